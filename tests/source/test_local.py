"""Local files: exact ranges, and a file that shrinks is an error, not the end of the process."""

import glob
import os

import fsspec
import pytest

import streampipe as sp
from streampipe.index import index
from streampipe.source import Source
from streampipe.source.local import BLOCK, of_one_folder, open_local
from streampipe.urls import ShardList
from tests.data import shard
from tests.warm import PIPE, Program


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(bytes(range(256)) * 8000)
    return path


def test_ranges_and_pieces_are_those_of_the_file(path):
    file, data = open_local(str(path), str(path)), path.read_bytes()
    assert len(file) == len(data)
    assert file.read(5, 99) == data[5:99]
    assert file.read(len(data) - 5, len(data) + 99) == data[-5:]
    assert file.read(len(data) + 1, len(data) + 2) == b""
    assert b"".join(file.pieces()) == data == bytes(file) == bytes(file.mapped())
    assert b"".join(file.pieces(BLOCK + 7)) == data[BLOCK + 7 :]


def test_a_file_that_was_cut_off_gives_an_error_and_no_part_of_what_is_gone(path):
    file = open_local(str(path), "https://me:hidden@h/a.tar")
    os.truncate(path, 1000)
    assert file.read(0, 1000) == path.read_bytes()
    for start, end in ((990, 1010), (1000, 1001), (500_000, 600_000)):
        with pytest.raises(sp.ShardChanged, match="had 2048000 bytes, and has 1000 now") as caught:
            file.read(start, end)
        assert "hidden" not in str(caught.value)
    with pytest.raises(sp.ShardChanged):
        list(file.pieces())


def test_a_descriptor_is_closed_with_its_file(path):
    before = len(os.listdir("/proc/self/fd"))
    file = open_local(str(path), str(path))
    assert len(os.listdir("/proc/self/fd")) == before + 1
    del file
    assert len(os.listdir("/proc/self/fd")) == before


def read_what_shrinks(path, tier, workers):
    try:
        for number, _ in enumerate(sp.stream(path, tier=tier, on_error="skip").batch(4).loader(num_workers=workers)):
            if number == 1:
                os.truncate(path, 4096)
    except sp.ShardChanged:
        os._exit(7)


@pytest.mark.parametrize("tier", ["planned", "sequential"])
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.usefixtures("warm")
def test_a_shard_that_shrinks_while_it_is_read_is_an_error_in_the_process_that_reads(tmp_path, tier, workers):
    path = tmp_path / "a.tar"
    path.write_bytes(shard([(f"{i:04d}", {"jpg": bytes(200_000), "txt": "x"}) for i in range(100)]))
    own = {"STREAMPIPE_CACHE": str(tmp_path / "remembered")}
    program = Program(read_what_shrinks, path, tier, workers, environment=own, stderr=PIPE)
    _, errors = program.communicate()
    assert program.returncode == 7, errors


def test_what_an_index_knows_is_read_from_a_shard_that_grew_shorter_behind_it(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(shard([(f"{i:04d}", {"txt": f"text {i}"}) for i in range(200)]))
    index(ShardList([str(path)]), Source(), progress=False)
    samples = iter(sp.stream(str(path)))
    got = [next(samples)["__key__"] for _ in range(3)]
    os.truncate(path, 10 * 1024)
    with pytest.raises(sp.ShardChanged, match=r"a\.tar was cut off while it was read"):
        for sample in samples:
            got.append(sample["__key__"])
    assert got == [f"{i:04d}" for i in range(len(got))]


@pytest.mark.parametrize("name", ["plain", "with [brackets] and *", ".hidden"])
def test_what_is_in_one_folder_is_what_any_glob_finds(tmp_path, name, monkeypatch):
    folder = tmp_path / name
    (folder / "inside").mkdir(parents=True)
    for each in ("b.tar", "a.tar", ".c.tar", "d[1].tar"):
        (folder / each).touch()
    here = glob.escape(str(folder))
    assert of_one_folder(f"{here}/*") == sorted(f"{folder}/{each.name}" for each in folder.iterdir())
    monkeypatch.chdir(folder)
    for pattern in ("*", "*.tar", "[!a].tar", "?.tar", "*[[]1].tar", "no*"):
        there = f"{here}/{pattern}"
        found = of_one_folder(there)
        assert found == Source().glob(there) == sorted(fsspec.filesystem("file").glob(there))
        assert of_one_folder(pattern) == [os.path.relpath(each) for each in found]
        assert of_one_folder(f"../{glob.escape(name)}/{pattern}") == of_one_folder(pattern)
    assert of_one_folder(f"{tmp_path}/none/*") == []
    assert of_one_folder(f"{tmp_path}/*/*") is of_one_folder("s3://bucket/*") is of_one_folder("here/**") is None
