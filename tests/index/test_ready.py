"""An index that was read to count samples is not read again for them, unless it has changed."""

import os
import pickle

import streampipe as sp
from streampipe.index import Finder, ShardIndex
from streampipe.index.ready import Ready
from streampipe.index.table import BYTES
from streampipe.source import Source
from streampipe.tar import Limits
from tests.data import shard, write_shards


def counted_reads(monkeypatch):
    """The files whose indexes are read from now on."""
    read, from_bytes = [], ShardIndex.from_bytes

    def noted(data, name, *args):
        read.append(name.rpartition("/")[2])
        return from_bytes(data, name, *args)

    monkeypatch.setattr(ShardIndex, "from_bytes", noted)
    return read


def test_a_first_pass_reads_each_index_once(tmp_path, monkeypatch):
    keys = write_shards(tmp_path, [3, 4])
    sp.index(tmp_path, progress=False)
    read = counted_reads(monkeypatch)
    pipe = sp.stream(tmp_path)
    assert [sample["__key__"] for sample in pipe] == keys
    assert sorted(read) == ["00000.index.parquet", "00001.index.parquet"]
    assert [sample["__key__"] for sample in pipe] == keys
    assert len(read) == 4, "what was taken is held by nobody but the shard"


def test_an_index_that_was_made_anew_is_read_anew(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(shard([("a", {"txt": "1"}), ("b", {"txt": "2"})]))
    sp.index(tmp_path, progress=False)
    pipe = sp.stream(path)
    assert len(pipe) == 2
    path.write_bytes(shard([("c", {"txt": "3"}), ("d", {"txt": "4"})]))
    os.remove(tmp_path / "a.index.parquet")
    sp.index(tmp_path, progress=False)
    assert [(sample["__key__"], sample["txt"]) for sample in pipe] == [("c", b"3"), ("d", b"4")]


def test_only_columns_that_were_read_are_found_and_nothing_travels(tmp_path):
    write_shards(tmp_path, [2])
    sp.index(tmp_path, progress=False)
    found = Finder(Source(), Limits()).find(str(tmp_path / "00000.tar"), columns=BYTES)
    ready, place = Ready(), found.place
    ready.keep(place, BYTES, found)
    assert ready.find(place, None) is None
    assert ready.find(place, BYTES | {"width"}) is None
    assert ready.find(place, ()) is found
    assert pickle.loads(pickle.dumps(ready)).find(place, ()) is None
    assert ready.find(place, BYTES) is found
    assert ready.find(place, BYTES) is None
