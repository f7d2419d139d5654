"""What a folder, a glob and a name stand for: hidden files, junk, signs of shells in names."""

import bz2
import gzip
import logging
import lzma
import os

import pytest
from PIL import Image

import streampipe as sp
from streampipe.cli import main
from streampipe.counters import counters
from tests.data import shard, write_shards

APPLE = b"\0\x05\x16\x07\0\x02\0\0Mac OS X".ljust(4096, b"\0")


def keys(urls, **options):
    return [each["__key__"] for each in sp.stream(urls, **options)]


def one(path, key=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(shard([(key or path.name.partition(".")[0], {"txt": "x"})]))


@pytest.mark.parametrize("pattern", ["{}", "{}/", "{}/*.tar", "{}/*", "{}/**/*.tar", "file://{}/"])
@pytest.mark.parametrize(
    "hidden", ["._0.tar", ".0.tar", "__MACOSX/0.tar", ".ipynb_checkpoints/0.tar", "__MACOSX/._0.tar"]
)
def test_hidden_files_are_passed_over_counted_and_said(tmp_path, pattern, hidden, caplog):
    one(tmp_path / "0.tar")
    (tmp_path / hidden).parent.mkdir(exist_ok=True)
    (tmp_path / hidden).write_bytes(APPLE)
    before = counters.get("listing", "hidden files passed over")
    with caplog.at_level(logging.WARNING, "streampipe"):
        assert keys(pattern.format(tmp_path)) == ["0"]
    if "/" not in hidden or "**" in pattern:
        assert counters.get("listing", "hidden files passed over") == before + 1
        assert "1 hidden files are passed over" in caplog.text


def test_what_pack_leaves_in_its_folder_is_not_told(tmp_path, caplog):
    (tmp_path / "in").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "in" / "a.png")
    sp.pack(str(tmp_path / "in"), str(tmp_path / "out"))
    assert (tmp_path / "out" / ".pack.lock").exists()
    with caplog.at_level(logging.WARNING, "streampipe"):
        assert keys(f"{tmp_path}/out") == ["a"]
    assert "hidden" not in caplog.text


def test_a_hidden_file_or_folder_that_is_meant_is_read(tmp_path):
    one(tmp_path / ".hidden" / ".0.tar", "a")
    assert keys(f"{tmp_path}/.hidden/.0.tar") == ["a"]
    assert keys(f"{tmp_path}/.hidden/.*.tar") == ["a"]
    one(tmp_path / ".hidden" / "1.tar", "b")
    assert keys(f"{tmp_path}/.hidden") == ["b"]


def test_a_folder_of_hidden_files_alone_is_an_error_that_says_so(tmp_path):
    (tmp_path / "._0.tar").write_bytes(APPLE)
    with pytest.raises(sp.ConfigError, match=r"no shard matches .*of 1 files that do, none is a shard"):
        keys(str(tmp_path))


def test_hidden_files_do_not_hinder_commands(tmp_path, capsys):
    one(tmp_path / "0.tar")
    (tmp_path / "._0.tar").write_bytes(APPLE)
    assert main(["index", "--quiet", str(tmp_path)]) == 0
    assert main(["verify", "--quiet", str(tmp_path)]) == 0
    assert main(["ls", f"{tmp_path}/*"]) == 0
    assert capsys.readouterr().out.count("txt=1") == 1


PACKERS = {"tar.gz": gzip.compress, "tgz": gzip.compress, "tar.xz": lzma.compress, "tar.bz2": bz2.compress}


@pytest.mark.parametrize("tier", [None, "sequential"])
@pytest.mark.parametrize("name", [*PACKERS, "txz", "tbz2"])
@pytest.mark.parametrize("suffix", [True, False])
def test_compressed_shards_are_read_by_their_content(tmp_path, name, tier, suffix):
    pack = PACKERS.get(name) or (lzma.compress if "x" in name else bz2.compress)
    path = tmp_path / (f"a.{name}" if suffix else "a.tar")
    path.write_bytes(pack(shard([("a", {"txt": "x" * 100_000}), ("b", {"txt": "y"})])))
    assert keys(str(tmp_path), tier=tier) == ["a", "b"]


@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.parametrize("suffix", [True, False])
def test_commands_say_that_a_compressed_shard_is_compressed(tmp_path, name, suffix, capsys):
    path = tmp_path / (f"a.{name}" if suffix else "a.tar")
    path.write_bytes(PACKERS[name](shard([("a", {"txt": "x"})])))
    assert main(["index", "--quiet", str(path)]) == 1
    assert "is compressed (" in capsys.readouterr().err
    assert main(["verify", "--quiet", str(path)]) == 0
    with pytest.raises(sp.ConfigError, match="is compressed"):
        keys(str(path), tier="planned")


@pytest.mark.parametrize("kind", [gzip.compress, lzma.compress, bz2.compress])
def test_compressed_data_of_several_streams_cut_or_followed_by_junk(tmp_path, kind):
    path, data = tmp_path / "a.tar", shard([("a", {"txt": "x"})])
    path.write_bytes(kind(data[:1000]) + kind(data[1000:]) + bytes(512))
    assert keys(path) == ["a"]
    path.write_bytes(kind(data)[:-9])
    with pytest.raises(sp.TruncatedShard, match="too early"):
        keys(path)
    path.write_bytes(kind(data) + b"junk")
    with pytest.raises(sp.CorruptShard, match="that is not"):
        keys(path)
    damaged = bytearray(kind(data))
    damaged[len(damaged) // 2] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(sp.ShardError, match="a.tar"):
        keys(path)


@pytest.mark.parametrize("kind", [lzma.compress, bz2.compress])
def test_bombs_are_stopped_early(tmp_path, kind):
    (tmp_path / "a.tar").write_bytes(kind(bytes(1 << 28)))
    with pytest.raises(sp.LimitExceeded, match="have inflated to"):
        keys(tmp_path / "a.tar", limits=sp.Limits(inflate_floor=1 << 20))


def test_endings_in_capitals_are_shards(tmp_path):
    one(tmp_path / "0.TAR")
    one(tmp_path / "1.Tar")
    assert keys(str(tmp_path)) == ["0", "1"]
    assert main(["index", "--quiet", str(tmp_path)]) == 0
    assert (tmp_path / "0.index.parquet").exists()


@pytest.mark.parametrize("name", ["a.tar.lz4", "a.zip", "a.tar.part", "a.tar.tmp"])
def test_archives_of_other_kinds_are_passed_over_and_said(tmp_path, name, caplog):
    one(tmp_path / "0.tar")
    (tmp_path / name).write_bytes(b"x")
    with caplog.at_level(logging.WARNING, "streampipe"):
        assert keys(str(tmp_path)) == ["0"]
    assert "1 archives of other kinds are passed over" in caplog.text
    assert name in caplog.text


def test_a_glob_of_everything_takes_the_shards(tmp_path):
    write_shards(tmp_path, [1, 1])
    assert main(["index", "--quiet", str(tmp_path)]) == 0
    assert len(keys(f"{tmp_path}/*")) == 2


SIGNS = [
    "a[0].tar",
    "b{1,2}.tar",
    "{0..3}.tar",
    "$c.tar",
    "d?.tar",
    "e*.tar",
    "~f.tar",
    "g h.tar",
    "i#j.tar",
    "k%20.tar",
]


@pytest.mark.parametrize("name", SIGNS)
@pytest.mark.parametrize("folder", ["plain", "br[1]", "br{1,2}", "$HOME", "a*b"])
def test_a_name_that_is_there_is_meant_as_it_stands(tmp_path, folder, name):
    one(tmp_path / folder / name, "here")
    one(tmp_path / "other.tar", "there")
    for url in (
        f"{tmp_path}/{folder}/{name}",
        [str(tmp_path / folder / name)],
        f"{tmp_path}/{folder}",
        tmp_path / folder,
    ):
        assert keys(url) == ["here"]


def test_a_relative_glob_in_a_folder_with_brackets(tmp_path, monkeypatch):
    one(tmp_path / "br[1]" / "0.tar")
    monkeypatch.chdir(tmp_path / "br[1]")
    assert keys("*.tar") == keys(".") == keys("0.tar") == ["0"]


def test_the_environment_and_the_users_folder_are_filled_in(tmp_path, monkeypatch):
    write_shards(tmp_path / "data", [1, 1])
    monkeypatch.setenv("SHARDS", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for url in ("$SHARDS", "${SHARDS}/{00000..00001}.tar", "$SHARDS/*.tar", "~/data", "~/data/{00000..00001}.tar"):
        assert len(keys(url)) == 2
    assert len(keys(["~/data/00000.tar", "$SHARDS/00001.tar"])) == 2
    with pytest.raises(sp.ShardMissing, match="NOT_SET"):
        keys("$NOT_SET/0.tar")


def test_a_missing_shard_of_a_range_is_skipped_where_that_is_allowed(tmp_path):
    write_shards(tmp_path, [3, 2, 4])
    os.remove(tmp_path / "00001.tar")
    url = f"{tmp_path}/{{00000..00002}}.tar"
    for tier in ("planned", "sequential"):
        with pytest.raises(sp.ShardMissing, match="00001.tar"):
            keys(url, tier=tier)
        with pytest.raises(sp.ShardMissing, match="00001.tar"):
            keys(url, tier=tier, on_error="skip")
        before = counters.get("reading", "missing shards")
        assert len(keys(url, tier=tier, missing_shards="skip")) == 7
        assert counters.get("reading", "missing shards") > before
        with pytest.raises(sp.ShardMissing, match="none of the 2 shards is there"):
            keys(f"{tmp_path}/x{{0..1}}.tar", tier=tier, missing_shards="skip")
    with pytest.raises(sp.ConfigError, match="missing_shards is one of error, skip"):
        sp.stream(url, missing_shards="ignore")


def test_remote_shards_that_are_missing_are_skipped_too():
    import fsspec

    store = fsspec.filesystem("memory")
    for number in (0, 2):
        store.pipe_file(f"/gone/{number}.tar", shard([(f"{number}", {"txt": "x"})]))
    url = "memory://gone/{0..2}.tar"
    with pytest.raises(sp.ShardMissing):
        keys(url)
    assert keys(url, missing_shards="skip") == ["0", "2"]
