"""Planned reading checks what it reads against the index."""

import fsspec
import pytest

import streampipe as sp
from streampipe.index import index
from streampipe.source import Source
from streampipe.urls import ShardList
from tests.data import shard, write_shards
from tests.laws import engine_of


@pytest.fixture
def folder(tmp_path):
    write_shards(tmp_path, [6, 4])
    index(ShardList([str(tmp_path / "00000.tar"), str(tmp_path / "00001.tar")]), Source(), progress=False)
    return tmp_path


def test_a_flipped_byte_in_a_payload_is_found(folder):
    path = folder / "00000.tar"
    data = bytearray(path.read_bytes())
    at = data.index(b"text 0000003")
    data[at + 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(sp.CorruptShard, match=r"00000.tar, sample '0000003', byte \d+: .*\(crc32\)"):
        list(sp.stream(str(folder)))
    keys = [sample["__key__"] for sample in sp.stream(str(folder), on_error=sp.ErrorPolicy("skip", max_share=1))]
    assert len(keys) == 9
    assert "0000003" not in keys


def test_another_shard_of_the_same_size_is_refused(folder):
    (folder / "00001.tar").write_bytes(
        shard([(f"x{i:06d}", {"txt": "text 000000", "cls": "000000"}) for i in range(4)])
    )
    with pytest.raises((sp.IndexMismatch, sp.CorruptShard)):
        list(sp.stream(str(folder)))


def test_remote_shards_with_an_index_are_planned_and_without_one_sequential(folder):
    store = fsspec.filesystem("memory")
    for path in folder.iterdir():
        if path.suffix == ".tar":
            store.pipe_file(f"/planned/{path.name}", path.read_bytes())
    pipe = sp.stream("memory://planned/{00000..00001}.tar", shuffle=3).batch(3)
    assert "has no index" in engine_of(pipe).why
    index(ShardList(["memory://planned/00000.tar", "memory://planned/00001.tar"]), Source(), progress=False)
    pipe = sp.stream("memory://planned/{00000..00001}.tar", shuffle=3).batch(3)
    loader = pipe.loader()
    assert len(loader) == 4
    local = sp.stream(str(folder), shuffle=3).batch(3).loader()
    assert [batch["txt"] for batch in loader] == [batch["txt"] for batch in local]


def test_the_index_may_lie_elsewhere(tmp_path):
    write_shards(tmp_path / "data", [5])
    (tmp_path / "facts").mkdir()
    shards = ShardList([str(tmp_path / "data" / "00000.tar")])
    index(shards, Source(), folder=str(tmp_path / "facts"), progress=False)
    store = fsspec.filesystem("memory")
    store.pipe_file("/apart/00000.tar", (tmp_path / "data" / "00000.tar").read_bytes())
    pipe = sp.stream("memory://apart/00000.tar", index=str(tmp_path / "facts")).batch(2)
    assert len(pipe.loader()) == 3
    assert sum(len(batch["__key__"]) for batch in pipe) == 5
