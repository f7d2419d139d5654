"""``where``: one small language, the same answer from an index and from the samples themselves."""

import json
import pickle
import random

import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streampipe as sp
from streampipe.counters import counters
from streampipe.query.column import column
from streampipe.query.condition import Condition
from streampipe.query.expression import Expression
from tests.data import photo, shard
from tests.laws import engine_of

ROWS = [
    {"n": 1, "x": 0.5, "t": "cat", "ok": True, "odd": 1},
    {"n": 2, "x": None, "t": "dog", "ok": False, "odd": "text"},
    {"n": None, "x": 2.5, "t": None, "ok": None, "odd": None},
    {"n": -4, "x": float("nan"), "t": "a cat", "ok": True, "odd": 2.5},
    {},
]
NAMES = ("n", "x", "t", "ok", "odd", "none")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("n > 1", [False, True, None, False, None]),
        ("not n > 1", [True, False, None, True, None]),
        ("0 < n <= 2", [True, True, None, False, None]),
        ("n > 1 or x > 1", [False, True, True, None, None]),
        ("n < 0 and x > 1", [False, False, None, None, None]),
        ("n in [1, -4]", [True, False, None, True, None]),
        ("t in ['cat']", [True, False, None, False, None]),
        ("'cat' in t", [True, False, None, True, None]),
        ("'cat' not in t", [False, True, None, False, None]),
        ("x is None", [False, True, False, True, True]),
        ("x is not None and x > 0", [True, False, True, False, False]),
        ("ok", [True, False, None, True, None]),
        ("ok == True", [True, False, None, True, None]),
        ("n / 0 > 1", [None] * 5),
        ("n * 2 + 1 == 3", [True, False, None, False, None]),
        ("-n % 3 == 1", [False, True, None, True, None]),
        ("max(n, x) > 2", [False, None, None, None, None]),
        ("abs(n) > 3", [False, False, None, True, None]),
        ("len(t) == 3", [True, True, None, False, None]),
        ("t >= 'cat'", [True, True, None, False, None]),
        ("odd == 1", [True, False, None, False, None]),
        ("odd != 'text'", [True, False, None, True, None]),
        ("none > 3", [None] * 5),
        ("none is None", [True] * 5),
    ],
)
def test_three_valued_truth(text, wanted):
    columns = {name: column([row.get(name) for row in ROWS]) for name in NAMES if name != "none"}
    value = Expression(text)(columns, len(ROWS))
    assert [bool(v) if k else None for v, k in zip(value.values, value.known, strict=True)] == wanted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("__import__('os')", r"only abs\(\), min\(\), max\(\) and len\(\) can"),
        ("n.__class__(1)", "only abs"),
        ("[x for x in n]", "cannot be used; write comparisons"),
        ("(lambda: 1)(2)", "only abs"),
        ("n if n else 1", "cannot be used"),
        ("n == None", "write 'is None'"),
        ("n is 5", "'is' goes with None only"),
        ("n in [m]", "holds constants only"),
        ("n >", "is no expression"),
        ("", "is no expression"),
        ("n ** 9999999", "cannot be used"),
        ("n[x]", "is no column"),
        ("f'{n}'", "cannot be used"),
        ("n := 3", "is no expression"),
        ("(" * 5000 + "n" + ")" * 5000, "at most 10000|is no expression"),
        ("1+" * 6000 + "1", "at most 10000"),
    ],
)
def test_what_is_not_of_the_language_is_refused(text, words):
    with pytest.raises(sp.ConfigError, match=words):
        Expression(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [("t > 5", "a text and a number have no order"), ("t + 1 > 2", "t is no number"), ("len(n) > 1", "takes one text")],
)
def test_kinds_that_do_not_go_together_are_an_error(text, words):
    with pytest.raises(sp.ConfigError, match=words):
        Expression(text)({name: column([row.get(name) for row in ROWS]) for name in ("t", "n")}, len(ROWS))


scalars = st.dictionaries(
    st.sampled_from(["n", "x", "t"]),
    st.one_of(st.none(), st.integers(-5, 5), st.floats(-3, 3), st.sampled_from(["a", "b"]), st.booleans()),
)
parts = st.sampled_from(["n", "x", "3", "-1.5", "n + x", "abs(n)", "width", "height"])
compare = st.builds(lambda a, op, b: f"{a} {op} {b}", parts, st.sampled_from(["<", ">=", "==", "!="]), parts)
atoms = st.one_of(compare, st.sampled_from(["t == 'a'", "t in ['a', 1]", "x is None", "n is not None", "key > '3'"]))
conditions = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.builds(lambda a, op, b: f"({a} {op} {b})", inner, st.sampled_from(["and", "or"]), inner),
        st.builds(lambda a: f"not {a}", inner),
    ),
    max_leaves=4,
)


def answer(pipe):
    try:
        return [sample["__key__"] for sample in pipe]
    except sp.StreampipeError as error:
        return type(error).__name__


@settings(max_examples=120, deadline=None)
@given(st.lists(scalars, min_size=1, max_size=8), conditions, st.sampled_from(["drop", "keep", "error"]))
def test_both_tiers_keep_the_same_samples(tmp_path_factory, rows, condition, missing):
    folder = tmp_path_factory.mktemp("where")
    samples = [(str(i), {"json": json.dumps(row), "jpg": photo(1, 20 + i, 30)}) for i, row in enumerate(rows)]
    (folder / "0.tar").write_bytes(shard(samples))
    found = [
        answer(sp.stream(str(folder / "0.tar"), tier=tier).where(condition, missing)) for tier in (None, "sequential")
    ]
    assert found[0] == found[1]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    rng = random.Random(1)
    for number in range(5):
        rows = [(f"{number}{i:03d}", {"score": rng.random(), "n": i}) for i in range(20)]
        (folder / f"{number:05d}.tar").write_bytes(shard([(key, {"json": json.dumps(row)}) for key, row in rows]))
    return folder


def test_a_planned_filter_reads_nothing_that_it_drops(shards):
    pipe = sp.stream(str(shards), shuffle=10).where("n < 5").where("score > 0.1").decode().batch(4)
    before = counters.get("reading", "samples in")
    loader = pipe.loader()
    rows = [row for batch in loader for row in batch["json"]]
    assert all(row["n"] < 5 and row["score"] > 0.1 for row in rows)
    assert counters.get("reading", "samples in") - before == len(rows) == loader.engine.plan.lanes.samples
    assert len(loader) == -(-len(rows) // 4)


def test_a_pyarrow_expression_does_the_same(shards):
    keys = answer(sp.stream(str(shards)).where("n < 5 and score > 0.5"))
    expression = (pc.field("n") < 5) & (pc.field("score") > 0.5)
    assert answer(sp.stream(str(shards)).where(expression)) == keys
    assert answer(sp.stream(str(shards), tier="sequential").where(expression)) == keys
    assert answer(sp.stream(str(shards)).where(pc.field("none") > 5)) == "StageError"


@pytest.mark.parametrize("tier", [None, "sequential"])
def test_nothing_left_is_an_error_that_says_why(shards, tier):
    pipe = sp.stream(str(shards), tier=tier).where("n < 50 and aesthetic >= 5")
    words = r"dropped every one of 100 samples \(aesthetic >= 5 is unknown for 100\); check names and limits"
    with pytest.raises(sp.StageError, match=words):
        list(pipe)


@pytest.mark.parametrize("tier", [None, "sequential"])
def test_a_missing_value_can_be_an_error(shards, tier):
    with pytest.raises(sp.ConfigError, match="sample '0000' lacks a value that is needed"):
        list(sp.stream(str(shards), tier=tier).where("aesthetic >= 5", missing="error"))


def test_another_filter_is_refused_on_resume(shards):
    first = sp.stream(str(shards)).where("n < 5").batch(5).loader()
    next(iter(first))
    other = sp.stream(str(shards)).where("n < 5", missing="keep").batch(5).loader()
    with pytest.raises(sp.ConfigError, match=r"the filter \(where\) is '\(n < 5 \[missing=keep\]\)' here and was"):
        other.load_state_dict(first.state_dict())


def test_conditions_are_picklable():
    for condition in ("n < 5", pc.field("n") < 5):
        copy = pickle.loads(pickle.dumps(Condition(condition, "keep")))
        assert copy.text == Condition(condition, "keep").text
        assert [bool(copy.of_sample({"n": n}).kept[0]) for n in (1, 9, None)] == [True, False, True]


def test_where_behind_another_stage_runs_as_a_generator(shards):
    pipe = sp.stream(str(shards)).select("json").where("n < 5")
    assert len(answer(pipe)) == 25
    assert "may yield more or fewer samples than it is given; put it first" in engine_of(pipe).why
