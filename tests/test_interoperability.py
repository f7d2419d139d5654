"""The same archives through webdataset and through streampipe: equal, or on the list in docs/format.md."""

import io
import subprocess
import tarfile

import pytest
import webdataset as wds

import streampipe as sp
from tests.data import photo, shard, write_shards

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def theirs(path):
    dataset = wds.WebDataset([str(path)], shardshuffle=False, handler=wds.reraise_exception, empty_check=False)
    return [{k: v for k, v in s.items() if k not in ("__url__", "__local_path__")} for s in dataset]


def ours(path):
    return [{k: v for k, v in s.items() if k not in ("__url__", "__position__")} for s in sp.stream(str(path))]


def archive(path, entries, format_):
    with tarfile.open(path, "w", format=format_) as tar:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1234.5 if format_ == tarfile.PAX_FORMAT else 1234
            tar.addfile(info, io.BytesIO(data))
    return path


SAME = {
    "plain": [("a.jpg", b"1"), ("a.txt", b"2"), ("b.jpg", b""), ("b.txt", b"4")],
    "folders and dots in folders": [("x/22.0/1.jpg", b"1"), ("x/22.0/1.seg.png", b"2"), ("./c.txt", b"3")],
    "dotted keys": [("img1.5.txt", b"1"), ("img2.5.txt", b"2")],
    "upper case": [("A.JPG", b"1"), ("A.Txt", b"2")],
    "members without a key": [("README", b"1"), ("a.b/c", b"2"), (".hidden", b"3"), ("a.txt", b"4")],
    "reserved names": [("__meta__", b"1"), ("__x__/a.txt", b"2"), ("__len__.txt", b"3")],
    "hidden files at the root": [("._a.jpg", b"1"), ("a.jpg", b"2")],
    "long names": [("d" * 80 + "/" + "n" * 90 + ".jpg", b"1"), ("e" * 80 + "/x.txt", b"2")],
}


@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("case", SAME)
def test_the_same_samples_as_webdataset(tmp_path, case, format_):
    path = archive(tmp_path / "s.tar", SAME[case], format_)
    assert ours(path) == theirs(path) != []


def test_shards_of_webdatasets_writer_read_equal(tmp_path):
    with wds.TarWriter(str(tmp_path / "s.tar")) as writer:
        for i in range(20):
            writer.write({"__key__": f"{i:05d}", "jpg": photo(i), "json": {"n": i}, "txt": f"ü {i}", "cls": i})
    assert ours(tmp_path / "s.tar") == theirs(tmp_path / "s.tar")


def test_our_shards_read_equal_in_webdataset_tarfile_and_gnu_tar(tmp_path):
    samples = [(f"{'d' * (i * 9)}/{i:03d}", {"jpg": photo(i), "txt": f"text ü {i}"}) for i in range(1, 20)]
    samples += [("ü/é", {"txt": "x"}), ("n" * 200, {"txt": "y", "json": "{}"})]
    path = tmp_path / "s.tar"
    path.write_bytes(shard(samples))
    assert ours(path) == theirs(path)
    members = {
        f"{key}.{field}": value.encode() if isinstance(value, str) else value
        for key, fields in samples
        for field, value in fields.items()
    }
    with tarfile.open(path) as tar:
        assert {m.name: tar.extractfile(m).read() for m in tar} == members
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "-xf", path, "-C", tmp_path / "out"], check=True)
    files = [each for each in (tmp_path / "out").rglob("*") if each.is_file()]
    assert {str(each.relative_to(tmp_path / "out")): each.read_bytes() for each in files} == members


INTENDED = {
    "hidden files in folders": ([("d/._1.jpg", b"x"), ("d/1.jpg", b"y")], [{"__key__": "d/1", "jpg": b"y"}]),
    "interleaved keys": ([("a.jpg", b"1"), ("b.jpg", b"2"), ("a.txt", b"3")], sp.DuplicateKey),
    "absolute names": ([("/a.jpg", b"1")], sp.UnsafeName),
    "climbing names": ([("../a.jpg", b"1")], sp.UnsafeName),
}


@pytest.mark.parametrize("case", INTENDED)
def test_intended_differences(tmp_path, case):
    entries, expected = INTENDED[case]
    path = archive(tmp_path / "s.tar", entries, tarfile.GNU_FORMAT)
    if isinstance(expected, list):
        assert ours(path) == expected != theirs(path)
    else:
        theirs(path)  # does not raise
        with pytest.raises(expected):
            ours(path)


def test_hard_links_are_an_error_where_webdataset_loses_the_field(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"1")
    (tmp_path / "b.jpg").hardlink_to(tmp_path / "a.jpg")
    subprocess.run(["tar", "-cf", tmp_path / "s.tar", "-C", tmp_path, "a.jpg", "b.jpg"], check=True)
    assert [s["__key__"] for s in theirs(tmp_path / "s.tar")] == ["a"]
    with pytest.raises(sp.UnsupportedMember, match="hard link"):
        ours(tmp_path / "s.tar")


def test_a_truncated_tail_is_an_error_also_where_webdataset_ends_clean(tmp_path):
    whole = archive(tmp_path / "w.tar", SAME["plain"], tarfile.USTAR_FORMAT).read_bytes()
    (tmp_path / "s.tar").write_bytes(whole[:2048])
    assert [s["__key__"] for s in theirs(tmp_path / "s.tar")] == ["a"]
    with pytest.raises(sp.TruncatedShard):
        ours(tmp_path / "s.tar")


def test_webdatasets_stages_apply_to_our_stream(tmp_path):
    keys = write_shards(tmp_path, [5])
    pipe = (
        sp.stream(tmp_path).apply(wds.map(lambda s: {**s, "n": int(s["cls"])})).apply(wds.select(lambda s: s["n"] % 2))
    )
    pipe = pipe.apply(wds.to_tuple("__key__", "n"))
    assert list(pipe) == [(key, int(key)) for key in keys if int(key) % 2]


def test_a_webdataset_can_be_a_source(tmp_path):
    keys = write_shards(tmp_path, [5, 4])
    urls = [str(tmp_path / "00000.tar"), str(tmp_path / "00001.tar")]
    source = wds.WebDataset(urls, shardshuffle=False, nodesplitter=wds.split_by_node)
    pipe = sp.from_iterable(source).decode().batch(3)
    assert [key for batch in pipe for key in batch["__key__"]] == keys
    got = [key for batch in pipe.loader(num_workers=2) for key in batch["__key__"]]
    assert sorted(got) == keys
