"""Each dataset of a plan is read in its own way: forward, at random, or ahead of need."""

import json

import pytest

import streampipe as sp
from streampipe.testing import FaultServer
from tests.data import shard


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Shards that are counted, and others that are indexed, of ten samples each."""
    folder = tmp_path_factory.mktemp("shards")
    rows = {
        name: [(f"{name}{i}", {"json": json.dumps({"n": i}), "txt": name}) for i in range(10)] for name in ("a", "b")
    }
    (folder / "b.tar").write_bytes(shard(rows["b"]))
    sp.index(folder, progress=False)
    objects = {f"indexed/{path.name}": path.read_bytes() for path in folder.iterdir()}
    objects |= {"counted/a.tar": shard(rows["a"]), "counted/sizes.json": b'{"a.tar": 10}'}
    with FaultServer(objects) as running:
        yield running


def keys(pipe):
    return [sample["__key__"] for sample in pipe]


def test_a_condition_holds_for_an_indexed_part_beside_one_that_is_only_counted(server):
    counted = sp.stream(server.url("counted/a.tar")).select("txt")
    indexed = sp.stream(server.url("indexed/b.tar")).where("n % 2 == 0").select("txt")
    assert sorted(keys(sp.mix([counted, indexed]))) == [
        *(f"a{i}" for i in range(10)),
        *(f"b{i}" for i in range(0, 10, 2)),
    ]


def test_take_and_skip_of_what_is_only_counted(server):
    pipe = sp.stream(server.url("counted/a.tar"), tier="planned")
    assert keys(pipe.take(3)) == ["a0", "a1", "a2"]
    assert keys(pipe.skip(2).take(3)) == ["a2", "a3", "a4"]
    assert len(pipe.take(3).batch(2).loader()) == 2
