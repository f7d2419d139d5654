"""What ``tests/fuzz.py`` found, and its neighbours: kept small, as ordinary tests."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streampipe as sp
from streampipe.index import ShardIndex, manifest
from streampipe.index.columns import Columns
from streampipe.index.table import make
from tests.data import write_shards


@pytest.fixture(scope="module")
def loaders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder, [5, 1, 7])
    return {
        "planned": lambda: sp.stream(folder, shuffle=4).batch(3).loader(),
        "sequential": lambda: sp.stream(folder, shuffle=4, tier="sequential").shuffle(3).take(9).batch(2).loader(),
    }


def saved(make_loader):
    loader = make_loader()
    for _ in zip(range(2), loader, strict=False):
        pass
    return json.loads(json.dumps(loader.state_dict()))


GONE = object()


@pytest.mark.parametrize(
    ("tier", "name", "value"),
    [
        ("planned", "at", GONE),
        ("planned", "at", [0, -1]),
        ("planned", "at", [1 << 31, 0]),
        ("planned", "epoch", 1 << 62),
        ("planned", "epoch", 1 << 31),
        ("planned", "epoch", True),
        ("planned", "step", 0.5),
        ("planned", "step", -1),
        ("planned", "epochs", 0),
        ("planned", "steps", "3"),
        ("planned", "lanes", []),
        ("planned", "lanes", [0, 1]),
        ("planned", "lanes", [2, 1]),
        ("planned", "lanes", [1, 1 << 40]),
        ("planned", "lanes", "12"),
        ("planned", "worker", [1, 1]),
        ("planned", "kind", "new?"),
        ("planned", "kind", GONE),
        ("planned", "streampipe", "2"),
        ("sequential", "epoch", "x"),
        ("sequential", "at", [0]),
        ("sequential", "rank", [1, 1]),
        ("sequential", "rank", GONE),
        ("sequential", "rank", [0, 1 << 40]),
        ("sequential", "lanes", []),
        ("sequential", "lanes", [1, 1 << 40]),
        ("sequential", "standing", []),
        ("sequential", "standing", {"x": [0, 1, None]}),
        ("sequential", "standing", {"99": [0, 1, None]}),
        ("sequential", "standing", {"0": [0, 1]}),
        ("sequential", "standing", {"0": [0, -1, None]}),
        ("sequential", "standing", {"0": [0, 1, [0, 5]]}),
        ("sequential", "standing", {"0": [0, 1, [0, 5, 5, 5, 5]]}),
        ("sequential", "standing", {"0": [0, 1, "mark"]}),
    ],
)
def test_a_damaged_state_is_refused_in_one_sentence(loaders, tier, name, value):
    state = saved(loaders[tier])
    if value is GONE:
        del state[name]
    else:
        state[name] = value
    loader = loaders[tier]()
    with pytest.raises(sp.ConfigError):
        loader.load_state_dict(state)
        list(loader)


@pytest.mark.parametrize("state", [None, 5, "state", [], [[]], b"\x80\x04.", {}])
def test_what_is_no_state_is_refused(loaders, state):
    loader = loaders["planned"]()
    with pytest.raises(sp.ConfigError, match="no state of streampipe|not an empty list"):
        loader.load_state_dict(state)


ROW = {"key": "k", "offset": 0, "size": 1024, "crc32": None, "fields": [], "width": None, "height": None}


@pytest.mark.parametrize(
    "rows",
    [
        [{**ROW, "offset": -512}],
        [{**ROW, "size": 0}],
        [{**ROW, "size": -1}],
        [{**ROW, "size": 10_241}],
        [{**ROW, "offset": (1 << 63) - 1}],
        [{**ROW, "offset": (1 << 62), "size": 1 << 62}],
        [ROW, ROW],
        [{**ROW, "offset": 2048}, ROW],
        [{**ROW, "key": None}],
        [{**ROW, "offset": None}],
    ],
)
def test_an_index_whose_places_no_shard_can_have_is_refused(rows):
    data = make(rows, Columns([{} for _ in rows]), {"bytes": 10_240}).to_bytes()
    with pytest.raises(sp.IndexMismatch, match="does not describe a shard"):
        ShardIndex.from_bytes(data, "a.index.parquet")


@pytest.mark.parametrize("facts", [{"bytes": None}, {"bytes": -1}, {"bytes": "10240"}, {}])
def test_an_index_whose_facts_are_none_is_refused(facts):
    with pytest.raises(sp.IndexMismatch):
        ShardIndex.from_bytes(make([ROW], Columns([{}]), facts).to_bytes(), "a.index.parquet")


def parquet(table, facts):
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({b"streampipe": facts}), sink)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("columns", "facts"),
    [
        ({"shard": ["a"], "bytes": [512], "samples": [2]}, b'{"version": 1}'),
        ({"shard": ["a"], "bytes": [512], "samples": [-1]}, b'{"version": 1}'),
        ({"shard": ["a"], "bytes": [512], "samples": [None]}, b'{"version": 1}'),
        ({"shard": ["a"], "bytes": [512], "samples": ["1"]}, b'{"version": 1}'),
        ({"shard": [1], "bytes": [512], "samples": [1]}, b'{"version": 1}'),
        ({"shard": ["a"], "samples": [1]}, b'{"version": 1}'),
        ({"shard": ["a"], "bytes": [512], "samples": [1]}, b"[]"),
        ({"shard": ["a"], "bytes": [512], "samples": [1]}, b"[" * 100_000),
        ({"shard": ["a"], "bytes": [512], "samples": [1]}, b"{}"),
    ],
)
def test_a_manifest_that_is_not_sound_is_refused(columns, facts):
    with pytest.raises(sp.IndexMismatch, match=r"m\.parquet"):
        manifest.read(parquet(pa.table(columns), facts), "m.parquet")


def test_a_flipped_byte_of_an_index_is_refused_or_leaves_a_sound_one():
    whole = make([ROW, {**ROW, "offset": 1024}], Columns([{"a": 1}, {"a": 2}]), {"bytes": 10_240}).to_bytes()
    for at in range(0, len(whole), 5):
        data = bytearray(whole)
        data[at] ^= 0xFF
        try:
            found = ShardIndex.from_bytes(bytes(data), "i")
        except sp.IndexMismatch:
            continue
        starts, sizes = (found.table.column(name).to_numpy() for name in ("offset", "size"))
        assert (starts + sizes <= found.shard_bytes).all()


def test_a_changed_byte_of_an_indexs_footer_is_refused_or_changes_nothing():
    data = make([ROW], Columns([{"a": 1, "t": "x"}]), {"bytes": 10_240}).to_bytes()
    for at in range(len(data) - 1200, len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 0x20
        try:
            assert len(ShardIndex.from_bytes(bytes(damaged), "a.index.parquet")) == 1
        except sp.IndexMismatch:
            pass
