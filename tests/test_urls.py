import tracemalloc

import pytest

import streampipe as sp
from streampipe.source import Source
from streampipe.urls import ShardList, expand, split_joined


def names(urls):
    return list(expand(urls, Source))


@pytest.mark.parametrize(
    ("pattern", "expanded"),
    [
        ("a.tar", ["a.tar"]),
        ("{0..2}.tar", ["0.tar", "1.tar", "2.tar"]),
        ("{08..10}.tar", ["08.tar", "09.tar", "10.tar"]),
        ("{2..0}.tar", ["2.tar", "1.tar", "0.tar"]),
        ("{0..6..3}.tar", ["0.tar", "3.tar", "6.tar"]),
        ("{a,b}{0..1}.tar", ["a0.tar", "a1.tar", "b0.tar", "b1.tar"]),
        ("{x,y{1..2}}.tar", ["x.tar", "y1.tar", "y2.tar"]),
        ("{a..c}.tar", ["a.tar", "b.tar", "c.tar"]),
        ("{E..A..2}.tar", ["E.tar", "C.tar", "A.tar"]),
        ("{{8..9},{a..b}}.tar", ["8.tar", "9.tar", "a.tar", "b.tar"]),
        ("{aa..c}.tar", ["{aa..c}.tar"]),
        ("a{b}.tar", ["a{b}.tar"]),
        ("a{.tar", ["a{.tar"]),
        ("s3://b/{00..01}.tar::x.tar", ["s3://b/00.tar", "s3://b/01.tar", "x.tar"]),
        ("simplecache::s3://b/{0..1}.tar", ["simplecache::s3://b/0.tar", "simplecache::s3://b/1.tar"]),
        (["a.tar", "{0..1}.tar", "b.tar"], ["a.tar", "0.tar", "1.tar", "b.tar"]),
    ],
)
def test_patterns_expand_as_in_a_shell(pattern, expanded):
    assert names(pattern) == expanded


def test_a_million_shards_cost_no_memory():
    tracemalloc.start()
    shards = ShardList(["s3://b/{000000..999999}.tar"])
    assert (len(shards), shards[123456], shards[-1]) == (10**6, "s3://b/123456.tar", "s3://b/999999.tar")
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


def test_directory_and_glob_are_listed_in_order(tmp_path):
    for name in ("b.tar", "a.tar", "c.tgz", "readme.txt"):
        (tmp_path / name).touch()
    assert [url.rsplit("/", 1)[1] for url in names(str(tmp_path))] == ["a.tar", "b.tar", "c.tgz"]
    assert [url.rsplit("/", 1)[1] for url in names(f"{tmp_path}/*.tar")] == ["a.tar", "b.tar"]
    assert [url.rsplit("/", 1)[1] for url in names(f"{tmp_path}/{{a,c}}.*")] == ["a.tar", "c.tgz"]
    assert names(f"file://{tmp_path}/*.tar") == [f"file://{tmp_path}/a.tar", f"file://{tmp_path}/b.tar"]


def test_nothing_found_is_an_error(tmp_path):
    with pytest.raises(sp.ConfigError, match="no shard matches"):
        names(str(tmp_path))
    with pytest.raises(sp.ConfigError, match="no shard matches"):
        names(f"{tmp_path}/*.tar")
    with pytest.raises(sp.ConfigError, match="no shards"):
        names([])


def test_memory_file_system_globs(tmp_path):
    import fsspec

    fs = fsspec.filesystem("memory")
    fs.pipe("/urls/1.tar", b"")
    fs.pipe("/urls/2.tar", b"")
    assert names("memory://urls/*.tar") == ["memory://urls/1.tar", "memory://urls/2.tar"]


def test_joined_urls_keep_fsspec_chains():
    assert split_joined("a::b.tar") == ["a::b.tar"]  # a bare word before :: is a protocol in fsspec's chaining
    assert split_joined("a.tar::b.tar") == ["a.tar", "b.tar"]
