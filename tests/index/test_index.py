"""The index says of every sample where it stands and what it is; an index of another shard is refused."""

import gzip
import io
import json
import os
import sys
import tarfile
import zlib
from pathlib import Path

import fsspec
import pytest

import streampipe as sp
from streampipe.cli import main
from streampipe.index import Finder, ShardIndex, index, scan
from streampipe.index.find import index_url
from streampipe.index.manifest import read
from streampipe.index.memory import memory
from streampipe.source import Source
from streampipe.tar import Limits
from streampipe.testing import FaultServer
from streampipe.urls import ShardList
from tests.cases.shards.archives import header
from tests.data import encoded, natural, photo, shard, write_shards


def written(tmp_path, samples, name="00000.tar"):
    path = tmp_path / name
    path.write_bytes(shard(samples))
    return str(path)


def scanned(path, **options):
    return scan(path, Source(), Limits(), **options)


def test_offsets_are_those_that_tarfile_finds(tmp_path):
    samples = [(f"{i:03d}", {"jpg": photo(i), "txt": f"text {i}", "x.json": "{}"}) for i in range(5)]
    path = written(tmp_path, samples)
    raw = Path(path).read_bytes()
    with tarfile.open(path) as tar:
        wanted = {member.name: (member.offset_data, member.size) for member in tar}
    found = {}
    for row in scanned(path).table.to_pylist():
        assert zlib.crc32(raw[row["offset"] : row["offset"] + row["size"]]) == row["crc32"]
        found |= {f"{row['key']}.{each['name']}": (each["offset"], each["size"]) for each in row["fields"]}
    assert found == wanted


def test_width_and_height_are_those_of_the_main_image(tmp_path):
    fields = {"cond.png": encoded(natural(30, 20), "PNG"), "jpg": photo(0, 90, 60), "mask.png": b"no image"}
    (row,) = scanned(written(tmp_path, [("a", fields)])).table.to_pylist()
    assert (row["width"], row["height"]) == (90, 60)
    assert len(list(sp.stream(str(tmp_path)).where("width == 90"))) == 1


def test_hidden_files_folders_and_upper_case_do_not_disturb(tmp_path):
    path = tmp_path / "odd.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("d", "d/a.JPG", "d/._a.JPG", "d/a.txt", "README", "d/b.txt"):
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE if name == "d" else tarfile.REGTYPE
            info.size = 0 if name == "d" else len(name)
            tar.addfile(info, io.BytesIO(name.encode()))
    rows = scanned(str(path)).table.to_pylist()
    raw = path.read_bytes()
    assert [(row["key"], [each["name"] for each in row["fields"]]) for row in rows] == [
        ("d/a", ["jpg", "txt"]),
        ("d/b", ["txt"]),
    ]
    texts = [raw[e["offset"] : e["offset"] + e["size"]] for row in rows for e in row["fields"]]
    assert texts == [b"d/a.JPG", b"d/a.txt", b"d/b.txt"]


def test_sizes_are_after_exif_orientation_and_damaged_images_have_none(tmp_path):
    image = natural(40, 30)
    exif = image.getexif()
    exif[0x0112] = 6
    turned = encoded(image, exif=exif)
    path = written(tmp_path, [("a", {"jpg": turned}), ("b", {"jpg": b"\xff\xd8\xffno"}), ("c", {"txt": "x"})])
    assert [(row["width"], row["height"]) for row in scanned(path).table.to_pylist()] == [
        (30, 40),
        (None, None),
        (None, None),
    ]


def test_scalars_of_the_json_member_are_columns(tmp_path):
    values = [
        {"aesthetic": 5, "width": 7, "tags": ["x"], "ok": True, "odd": 1, "null": None},
        {"aesthetic": 5.5, "odd": "text", "ok": None, "huge": 1 << 70},
    ]
    samples = [(f"{i}", {"json": json.dumps(value)}) for i, value in enumerate(values)]
    found = ShardIndex.from_bytes(scanned(written(tmp_path, samples)).to_bytes(), "x")
    table = found.columns(["aesthetic", "json.width", "ok", "odd", "tags", "huge", "null", "offset"])
    lists = {name: column if isinstance(column, list) else column.to_pylist() for name, column in table.items()}
    assert lists == {"aesthetic": [5.0, 5.5], "json.width": [7, None], "ok": [True, None], "odd": [1, "text"]}


def test_a_remote_shard_gives_the_same_index(tmp_path):
    path = written(tmp_path, [(f"{i:03d}", {"jpg": photo(i), "txt": "x" * i}) for i in range(6)])
    fsspec.filesystem("memory").pipe_file("/index/00000.tar", Path(path).read_bytes())
    remote = scan("memory://index/00000.tar", Source(), Limits())
    local = scanned(path)
    assert remote.table.equals(local.table)
    assert remote.facts == local.facts
    index(ShardList(["memory://index/00000.tar"]), Source(), progress=False)
    assert Finder(Source(), Limits()).find("memory://index/00000.tar").table.equals(local.table)
    assert Finder(Source(), Limits()).find("memory://index/none.tar") is None


def test_damage_is_an_error_not_a_shorter_index(tmp_path):
    path = written(tmp_path, [(f"{i}", {"txt": "x" * 100}) for i in range(9)])
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[:5000])
    with pytest.raises(sp.TruncatedShard, match="ends at byte 5000"):
        scanned(path)
    with pytest.raises(sp.TruncatedShard):
        index(ShardList([path]), Source(), progress=False)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["00000.tar"]


@pytest.mark.parametrize("held", [1 << 20, 0], ids=["held", "streamed"])
def test_a_shard_that_shrinks_while_its_index_is_made_is_an_error(tmp_path, monkeypatch, held):
    path, opened = tmp_path / "a.tar", Source.file
    path.write_bytes(shard([(f"{i}", {"txt": b"a" * 5000}) for i in range(10)]))

    def cut_off(self, url):
        file = opened(self, url)
        os.truncate(path, 4096)
        return file

    monkeypatch.setattr(Source, "file", cut_off)
    monkeypatch.setattr(sys.modules["streampipe.index.scan"], "_HELD", held)
    with pytest.raises((sp.ShardChanged, sp.TruncatedShard)):
        scan(str(path), Source(), Limits())


def test_the_command_writes_indexes_and_manifest_and_keeps_what_is_done(tmp_path, capsys):
    for number in range(3):
        written(tmp_path, [(f"{number}{i}", {"txt": "x"}) for i in range(number + 2)], f"{number:05d}.tar")
    assert main(["index", str(tmp_path / "{00000..00002}.tar"), "--quiet"]) == 0
    found = read((tmp_path / "manifest.parquet").read_bytes(), "manifest")
    assert (found.names.to_pylist(), found.samples.tolist()) == (["00000.tar", "00001.tar", "00002.tar"], [2, 3, 4])
    before = {each.name: each.stat().st_mtime_ns for each in tmp_path.glob("*.index.parquet")}
    written(tmp_path, [("new", {"txt": "y" * 20_000})], "00001.tar")
    assert main(["index", str(tmp_path)]) == 0
    assert "3 indexes (2 were there already): 7 samples" in capsys.readouterr().out
    after = {each.name: each.stat().st_mtime_ns for each in tmp_path.glob("*.index.parquet")}
    assert [name for name in before if before[name] != after[name]] == ["00001.index.parquet"]
    assert not list(tmp_path.glob("*.part"))


def test_a_shard_that_was_rewritten_with_its_old_size_is_indexed_anew(tmp_path):
    path = written(tmp_path, [("a", {"txt": "x"})])
    assert index(path, progress=False).kept == 0
    assert index(path, progress=False).kept == 1
    written(tmp_path, [("a", {"txt": "y"})])
    with pytest.raises(sp.CorruptShard, match="if it was rewritten, delete its index and run streampipe index"):
        list(sp.stream(path))
    assert index(path, progress=False).kept == 0
    assert [sample["txt"] for sample in sp.stream(path)] == [b"y"]


def test_a_remote_shard_that_was_rewritten_with_its_old_size_is_indexed_anew(tmp_path):
    first, second = (shard([("a", {"txt": text})]) for text in "xy")
    with FaultServer({"a.tar": first}) as server, FaultServer({"a.tar": first}) as copy:

        def indexed(of):
            return index(of.url("a.tar"), folder=str(tmp_path), progress=False).kept

        assert [indexed(server), indexed(server)] == [0, 1]
        server.put("a.tar", second)
        assert [indexed(server), indexed(server)] == [0, 1]
        assert indexed(copy) == 1  # elsewhere a version may be called otherwise


@pytest.mark.parametrize("count", [2, 9])  # 16 and more have their facts in one file
def test_each_folder_has_its_own_manifest_whatever_its_shards_are_called(tmp_path, count):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        for number in range(count):
            written(folder, [(f"{folder.name}{number}", {"txt": "x"})], f"{number:05d}.tar")
    for run in range(2):
        found = index([f"{folder}/*.tar" for folder in folders], progress=False)
        assert (found.samples, found.kept) == (2 * count, run and 2 * count - 1)
        for folder in folders:
            rows = read((folder / "manifest.parquet").read_bytes(), "manifest")
            assert rows.names.to_pylist() == [f"{number:05d}.tar" for number in range(count)]
        (folders[1] / "00000.index.parquet").unlink()
    assert "and 1 in other folders" in str(found)


@pytest.mark.parametrize("name", ["c.txt", "b.json", "README"])
def test_a_shard_that_was_appended_to_within_its_size_is_no_shorter_dataset(tmp_path, name):
    path = written(tmp_path, [("a", {"txt": "x"}), ("b", {"txt": "y"})])
    index(path, progress=False)
    size = Path(path).stat().st_size
    with tarfile.open(path, "a") as tar:
        tar.addfile(tarfile.TarInfo(name))
    assert Path(path).stat().st_size == size
    pipe = sp.stream(path)
    if name == "README":  # of no sample
        assert [sample["__key__"] for sample in pipe] == ["a", "b"]
    else:
        with pytest.raises(sp.IndexMismatch, match=f"byte 2048: the index does not know of member '{name}'"):
            list(pipe)


def test_an_index_of_another_shard_is_refused(tmp_path):
    path = written(tmp_path, [("a", {"txt": "x"})])
    index(ShardList([path]), Source(), progress=False)
    written(tmp_path, [(f"{i}", {"txt": "y" * 5000}) for i in range(9)])
    with pytest.raises(sp.IndexMismatch, match=r"made of a shard of 10240 bytes, but .* has 61440: it does not fit"):
        Finder(Source(), Limits()).find(path)


@pytest.mark.parametrize("junk", [b"", b"PAR1 no", b"x" * 1000])
def test_a_damaged_index_is_an_error_that_says_what_to_do(tmp_path, junk):
    path = written(tmp_path, [("a", {"txt": "x"})])
    Path(index_url(path)).write_bytes(junk)
    with pytest.raises(sp.IndexMismatch, match="is damaged .*delete it and run: streampipe index"):
        Finder(Source(), Limits()).find(path)


def test_a_local_shard_is_scanned_once_and_again_when_it_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("STREAMPIPE_CACHE", str(tmp_path / "memory"))
    (tmp_path / "data").mkdir()
    path = written(tmp_path / "data", [("a", {"txt": "x"})])
    finder = Finder(Source(), Limits())
    first = finder.find(path)
    monkeypatch.setattr(sys.modules["streampipe.index.find"], "scan", lambda *_, **__: pytest.fail("scanned again"))
    assert finder.find(path).table.equals(first.table)
    monkeypatch.undo()
    monkeypatch.setenv("STREAMPIPE_CACHE", str(tmp_path / "memory"))
    for each in (tmp_path / "memory" / "index").iterdir():
        each.write_bytes(b"damaged")
    assert finder.find(path).table.equals(first.table)
    written(tmp_path / "data", [("a", {"txt": "x"}), ("b", {"txt": "y"})])
    assert finder.find(path).keys() == ["a", "b"]
    assert memory() == str(tmp_path / "memory" / "index")
    assert [each.name for each in (tmp_path / "data").iterdir()] == ["00000.tar"]


def test_a_memory_that_cannot_be_written_only_costs_time(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STREAMPIPE_CACHE", str(tmp_path / "file"))
    path = written(tmp_path, [("a", {"txt": "x"})])
    assert Finder(Source(), Limits()).find(path).keys() == ["a"]
    assert "are not remembered" in caplog.text


def test_two_shards_of_one_name_are_refused(tmp_path):
    with pytest.raises(sp.ConfigError, match="two shards would have the index"):
        index(ShardList(["a/0.tar", "b/0.tar"]), Source(), folder=str(tmp_path))


@pytest.mark.parametrize("what", ["damaged", "compressed", "linked"])
def test_what_is_wrong_is_said_before_anything_is_hashed(tmp_path, monkeypatch, what, caplog):
    write_shards(tmp_path, [2, 2, 2, 2])
    for name in ("00002.tar", "00003.tar"):
        data = (tmp_path / name).read_bytes()
        link = header("x.jpg", kind=b"1", link="0020000.txt")
        odd = {"damaged": data[:3000], "compressed": gzip.compress(data), "linked": link + data}
        (tmp_path / name).write_bytes(odd[what])
    monkeypatch.setattr(sys.modules["streampipe.index.build"], "scan", lambda *_: pytest.fail("it was hashed"))
    with pytest.raises(sp.StreampipeError, match="00002.tar"):
        index(ShardList([f"{tmp_path}/{{00000..00003}}.tar"]), Source(), progress=False)
    assert "00003.tar" in caplog.text
    assert not list(tmp_path.glob("*.parquet"))


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_read(tmp_path, monkeypatch):
    write_shards(tmp_path, [2])
    monkeypatch.setattr("os.access", lambda *_: False)
    monkeypatch.setattr(sys.modules["streampipe.index.build"], "check", lambda *_: pytest.fail("it was read"))
    with pytest.raises(sp.ConfigError, match="cannot be written: give --out"):
        index(ShardList([f"{tmp_path}/00000.tar"]), Source(), progress=False)
