"""Facts of many shards in one file answer as the shards' own indexes do, or do not answer."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streampipe as sp
from streampipe.counters import counters
from streampipe.errors import ConfigError
from streampipe.index import ShardIndex
from streampipe.index.columns import Columns
from streampipe.index.manifest import read
from streampipe.index.merged import MergedFacts, Merger, Untold, Wanted, facts_of, together
from streampipe.index.table import LEFT_OUT, NESTED, make
from streampipe.plan.dataset import Kept
from streampipe.query.condition import Condition, Keep
from streampipe.source import Source
from streampipe.tar import Limits
from tests.data import shard

values = st.one_of(
    st.none(),
    st.integers(-3, 3),
    st.sampled_from([0.5, 2.0, (1 << 53) + 1, True, False, "a", "b"]),
)
shards = st.lists(
    st.lists(st.fixed_dictionaries({}, optional={"n": values, "m.x": values}), max_size=4), min_size=1, max_size=5
)
CONDITIONS = [
    "n == 2",
    "n == 'a'",
    "n != 0.5 and key >= '01'",
    "n is None or n in [1, 'b', True]",
    "m.x == n",
    "width is None",
    "n > 0",
    "nothing == 1",
]


def index_of(scalars, number=0):
    rows = [
        {"key": f"{number}{i}", "offset": 1024 * i, "size": 1024, "crc32": 0, "fields": [], "width": i or None}
        | {"height": 7}
        for i in range(len(scalars))
    ]
    return make(rows, Columns(scalars), {"bytes": 1024 * len(rows) + 1024, "sha256": "0"})


@settings(max_examples=200, deadline=None)
@given(shards, st.sampled_from(CONDITIONS), st.sampled_from(["drop", "keep"]), st.data())
def test_merged_facts_answer_as_the_indexes_of_the_shards(found, text, missing, data):
    indexes = [index_of(scalars, number) for number, scalars in enumerate(found)]
    question = Kept(Keep((Condition(text, missing),)))
    files = {}
    merger = Merger(files.__setitem__)
    for each in indexes:
        merger.add(each)
        if data.draw(st.booleans()):
            merger._flush()  # a row group may end behind any shard
    merger.close()
    counts = np.zeros(len(indexes), np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Source, "read", lambda self, url, start=0, end=None: files[url][start:end])
        first = 0
        try:
            for part in merger.parts:
                samples = np.array([len(each) for each in indexes[first : first + part.shards]])
                mine = np.flatnonzero(data.draw(st.lists(st.booleans(), min_size=len(samples), max_size=len(samples))))
                for facts, ends, numbers in facts_of(
                    Wanted("", part, samples, mine), Source(), Limits(), question.columns
                ):
                    counts[first + numbers] = question.find(facts, ends).counts[:, 0]
                own = np.array([len(question._keep(each)) for each in indexes[first : first + part.shards]])
                assert counts[first + mine].tolist() == own[mine].tolist()
                first += part.shards
        except ConfigError:  # a text and a number have no order: a column of both holds them as one shard's would
            assert text == "n > 0"


def test_what_an_index_may_lack_is_not_told():
    whole, cut = index_of([{"n": 1}], 0), index_of([{"m": 1}], 1)
    cut.facts[LEFT_OUT] = True
    table = together([whole, cut])
    assert table.column_names == ["key", "width", "height", "m"]  # n may be a value of the second that was left out
    facts = MergedFacts(table, 2, table.column_names, False, {})
    with pytest.raises(Untold):
        facts.may_lack("n")
    assert not MergedFacts(table, 2, table.column_names, True, {"videos": True}).may_lack("video.frames")
    with pytest.raises(Untold):
        MergedFacts(table, 2, table.column_names, True, {}).may_lack("video.frames")  # nobody looked at videos
    old = ShardIndex(index_of([{"a": 1}]).table, {"bytes": 9, NESTED: False})
    assert not json.loads(together([old]).schema.metadata[b"streampipe.facts"])["complete"]


def test_types_of_shards_become_one_without_changing_a_value():
    def merged(*kinds):
        table = together([index_of([{"n": value}], i) for i, value in enumerate(kinds)])
        field = table.schema.field("n")
        return str(field.type), bool(field.metadata), table.column("n").to_pylist()

    assert merged(1, 2) == ("int64", False, [1, 2])
    assert merged(1, 0.5, None) == ("double", False, [1.0, 0.5, None])
    assert merged((1 << 53) + 1, 0.5) == ("string", True, ["9007199254740993", "0.5"])
    assert merged("a", 1, True) == ("string", True, ['"a"', "1", "true"])
    assert merged("a", "b") == ("string", False, ["a", "b"])


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, range(20))
    sp.index(str(tmp_path), progress=False)
    return tmp_path


def write(folder: Path, numbers, samples=2, n=None):
    for number in numbers:
        rows = [(f"{number:03d}{i}", {"json": json.dumps({"n": number if n is None else n})}) for i in range(samples)]
        (folder / f"{number:05d}.tar").write_bytes(shard(rows))


def manifest(folder):
    return read((folder / "manifest.parquet").read_bytes(), "manifest")


def files(folder):
    return sorted(each.name for each in folder.glob("facts-*.parquet"))


def kept(folder, condition="n >= 5"):
    return (
        len(sp.stream(str(folder)).where(condition).loader().stream_keys())
        if False
        else sum(1 for _ in sp.stream(str(folder)).where(condition))
    )


def test_index_makes_one_file_for_many_shards_and_leaves_it_when_nothing_changed(folder):
    before = manifest(folder)
    assert [part.shards for part in before.parts] == [20]
    assert files(folder) == [before.parts[0].file]
    summary = sp.index(str(folder), progress=False)
    assert (summary.kept, summary.samples) == (20, 40)
    assert manifest(folder).digest == before.digest


def test_new_shards_come_behind_and_removed_ones_go(folder):
    write(folder, range(20, 25))
    assert sp.index([f"{folder}/{number:05d}.tar" for number in range(20, 25)], progress=False).samples == 10
    found = manifest(folder)
    assert found.names.to_pylist() == [f"{number:05d}.tar" for number in range(25)]
    assert sum(part.shards for part in found.parts) == 25
    assert files(folder) == sorted(part.file for part in found.parts)  # the small old one was made again, and is gone
    assert kept(folder) == 40
    for number in (0, 7):
        (folder / f"{number:05d}.tar").unlink()
        (folder / f"{number:05d}.index.parquet").unlink()
    sp.index(str(folder), progress=False)
    assert manifest(folder).names.to_pylist() == [f"{number:05d}.tar" for number in range(25) if number not in (0, 7)]
    assert kept(folder) == 38


def test_a_shard_that_changed_has_new_facts(folder):
    write(folder, [3], samples=12, n=9)
    sp.index(str(folder), progress=False)
    assert kept(folder) == 42
    assert len(files(folder)) == 1


def test_an_index_that_was_made_anew_has_new_facts_though_the_shard_is_the_same(folder):
    before = files(folder)
    path = folder / "00003.index.parquet"
    found = ShardIndex.from_bytes(path.read_bytes(), "index")
    changed = found.table.set_column(found.table.schema.get_field_index("n"), "n", [[9, 9]])
    path.write_bytes(ShardIndex(changed, found.facts).to_bytes())
    sp.index(str(folder), progress=False)
    assert files(folder) != before


@pytest.mark.parametrize("how", ["gone", "damaged", "of others"])
def test_merged_facts_that_cannot_be_read_are_passed_over_and_counted(folder, how, monkeypatch, caplog):
    monkeypatch.setattr("streampipe.plan.ask._FEW", 0)
    path = folder / files(folder)[0]
    data = path.read_bytes()
    if how == "gone":
        path.unlink()
    elif how == "damaged":
        path.write_bytes(data[: len(data) // 2])
    else:
        other = {}
        merger = Merger(other.__setitem__)
        merger.add(index_of([{"n": 9}] * 7))
        merger.close()
        path.write_bytes(next(iter(other.values())))
    counters.take()
    assert kept(folder) == 30
    assert counters.get("index", "files of merged facts passed over") == 1
    assert "own indexes are read" in caplog.text
