"""Which scalars of json members become columns, of what type, and within which bounds."""

import json
import math
import tracemalloc

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streampipe as sp
from streampipe.index.columns import MIXED, MOST_COLUMNS, Columns
from streampipe.index.facts import facts_of
from streampipe.query.condition import Condition
from tests.data import shard

BIG = 1234567890123456789


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2], pa.int64()),
        ([1, math.nan], pa.int64()),
        ([BIG, math.nan], pa.int64()),
        ([1, 0.5], pa.float64()),
        ([0.5, math.inf], pa.float64()),
        ([True, False], pa.bool_()),
        (["a", "b"], pa.string()),
        ([BIG, 0.5], MIXED),
        ([1, True], MIXED),
        ([1, "a"], MIXED),
        ([0.5, "a", None], MIXED),
    ],
)
def test_types_of_columns(values, kind):
    ((field, column),) = Columns([{"n": value} for value in values]).to_arrow()
    wanted = [None if value is None or value != value else value for value in values]
    if kind is MIXED:
        assert field.metadata[MIXED] == b"json"
        assert [None if text is None else json.loads(text) for text in column.to_pylist()] == wanted
    else:
        assert field.type == column.type == kind
        assert column.to_pylist() == wanted


def shard_of(folder, rows):
    folder.mkdir()
    (folder / "0.tar").write_bytes(shard([(f"{i}", {"json": json.dumps(row)}) for i, row in enumerate(rows)]))
    return str(folder)


SCALARS = st.one_of(
    st.integers(-(1 << 63) + 1, (1 << 63) - 1), st.floats(), st.booleans(), st.sampled_from(["a", "b"]), st.none()
)


@settings(max_examples=60, deadline=None)
@given(st.lists(SCALARS, min_size=1, max_size=4), SCALARS.filter(lambda each: each is not None and each == each))
def test_both_tiers_give_one_answer_whatever_stands_in_a_column(values, asked):
    import tempfile
    from pathlib import Path

    text = f"n == {asked!r}".replace("inf", "1e999")
    with tempfile.TemporaryDirectory() as folder:
        url = shard_of(Path(folder) / "s", [{"n": value} for value in values])
        pipe = sp.stream(url, tier="sequential").source.finder.find(f"{url}/0.tar")
        by_index = Condition(text).of_index(pipe).kept.tolist()
    facts = [facts_of({"__key__": "x", "json": json.dumps({"n": value}).encode()}) for value in values]
    assert by_index == [bool(Condition(text).of_sample(each).kept[0]) for each in facts]


def test_a_taggers_json_takes_time_and_memory_of_its_samples_alone():
    columns = Columns()
    tracemalloc.start()
    for i in range(3000):
        columns.add({f"tag_{(i * 7919 + j * 104729) % 50_000}": 0.5 for j in range(20)} | {"width": 512, "own": i})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 << 20
    found = {field.name: column for field, column in columns.to_arrow()}
    assert len(found) == MOST_COLUMNS
    assert columns.left_out
    assert found["own"].to_pylist() == list(range(3000))
    assert found["width"].null_count == 0


def test_every_column_that_is_there_is_whole():
    rows = [{f"n{(i * i + j) % 2500}": i for j in range(5)} for i in range(2000)]
    columns = Columns(rows)
    for field, column in columns.to_arrow():
        assert column.to_pylist() == [row.get(field.name) for row in rows]


def test_names_that_where_knows_are_columns_however_late_they_come():
    columns = Columns([{f"n{i}_{j}": 1 for j in range(100)} for i in range(40)])
    columns.add({"punsafe": 0.1, "unheard_of": 1})
    names = [field.name for field, _ in columns.to_arrow()]
    assert "punsafe" in names
    assert "unheard_of" not in names


def test_long_texts_are_no_facts():
    facts = facts_of({"__key__": "a", "json": json.dumps({"short": "x", "long": "x" * 40_000}).encode()})
    assert facts["short"] == "x"
    assert "long" not in facts
