"""A split: disjoint, complete, the same from index and sample, whatever else is in the dataset."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streampipe as sp
from streampipe.index import ShardIndex
from streampipe.index.columns import Columns
from streampipe.index.facts import facts_of
from streampipe.index.table import make
from streampipe.query.condition import Condition, Keep
from streampipe.query.split import Split
from tests.data import write_shards


def index_of(keys, scalars=None):
    row = {"size": 512, "crc32": None, "fields": [], "width": None, "height": None}
    rows = [{**row, "key": key, "offset": 512 * i} for i, key in enumerate(keys)]
    return make(rows, Columns(scalars or [{}] * len(keys)), {"bytes": 1 << 30})


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
values = st.one_of(texts, st.integers(-(2**53), 2**53), st.floats(allow_nan=False), st.booleans())


@settings(deadline=None)
@given(st.lists(texts, max_size=40), st.floats(0.01, 0.99), st.integers(0, 5))
def test_every_sample_is_on_one_side_the_same_from_index_and_sample(keys, share, seed):
    index = index_of(keys)
    rest, held = Split.halves(share, seed=seed)
    sides = [each.of_index(index).kept for each in (rest, held)]
    assert (sides[0] != sides[1]).all()
    for each, side in zip((rest, held), sides, strict=True):
        assert [bool(each.of_sample({"key": key}).kept[0]) for key in keys] == side.tolist()
        assert each.of_index(index).reasons.total() == len(keys) - side.sum()
    assert held.of_index(index_of(keys[::-1])).kept.tolist() == sides[1].tolist()[::-1]


@settings(deadline=None)
@given(st.lists(values, min_size=1, max_size=20))
def test_any_fact_gives_the_same_side_from_index_and_sample(facts):
    index = index_of([str(i) for i in range(len(facts))], [{"group": each} for each in facts])
    split = Split(0.2, 0.7, "group")
    found = [bool(split.of_sample({"group": each}).kept[0]) for each in facts]
    assert split.of_index(ShardIndex.from_bytes(index.to_bytes(), "x")).kept.tolist() == found


def test_shares_are_what_was_asked_for_and_seeds_are_independent():
    index = index_of([f"{i:09d}" for i in range(100_000)])
    begin = time.process_time()
    kept = [Split(0, 0.3, seed=seed).of_index(index).kept for seed in range(3)]
    assert time.process_time() - begin < 5
    for each in kept:
        assert abs(each.mean() - 0.3) < 0.006
    for one, two in [(0, 1), (1, 2), (0, 2)]:
        assert abs((kept[one] & kept[two]).mean() - 0.09) < 0.005
    wider = Split(0, 0.4).of_index(index).kept
    assert (wider | kept[0] == wider).all()
    neighbours = (kept[0][1:] & kept[0][:-1]).mean()
    assert abs(neighbours - 0.09) < 0.005


def test_sides_never_change():
    """These are held out in every release: a change of the hash would mix training and validation data."""
    keys = [f"{i:04d}" for i in range(60)]
    held = Split.halves(0.1)[1].of_index(index_of(keys)).kept
    assert [key for key, each in zip(keys, held, strict=True) if each] == HELD


HELD = ["0004", "0015", "0017", "0024", "0029", "0038", "0040", "0049"]


def test_it_stands_among_conditions_and_is_asked_of_what_those_before_it_kept():
    index = index_of([f"{i:03d}" for i in range(200)], [{"n": i} if i % 2 else {} for i in range(200)])
    split, condition = Split(0, 0.5, "n"), Condition("n >= 0")
    keep = Keep((condition, split))
    wanted = [i for i in range(1, 200, 2) if split.of_sample({"n": i}).kept[0]]
    assert keep(index).tolist() == np.flatnonzero(keep.judged(index)[0]).tolist() == wanted
    assert keep.text == "(n >= 0) and (split by 'n' at 0.0 to 0.5, seed 0)"
    assert keep.reasons(index).total() == 200 - len(wanted)
    assert keep.names({"n"}) == ""
    with pytest.raises(sp.ConfigError, match="split by 'n': sample '000' does not have it, so it has no side"):
        split.of_index(index)
    with pytest.raises(sp.ConfigError, match="sample 'a' does not have it"):
        split.of_sample({"key": "a", "n": float("nan")})
    assert split.lacks({"key": "a"})
    assert not split.lacks({"n": 0})


def test_the_index_of_real_shards_agrees_with_their_samples(tmp_path):
    write_shards(tmp_path, [30, 20])
    source = sp.stream(str(tmp_path)).source
    rest, held = Split.halves(0.3)
    planned = [source.dataset(Keep((each,))) for each in (rest, held)]
    assert sum(each.samples for each in planned) == 50
    for each, dataset in zip((rest, held), planned, strict=True):
        samples = sp.stream(str(tmp_path), tier="sequential")
        kept = [bool(each.of_sample(facts_of(sample, each.wants_sizes)).kept[0]) for sample in samples]
        assert [sum(kept[:30]), sum(kept[30:])] == dataset.counts.tolist()


@pytest.mark.parametrize(("low", "high"), [(0, 0), (0.5, 0.2), (-0.1, 0.5), (0, 1.5), (float("nan"), 1)])
def test_shares_that_are_none_are_refused(low, high):
    with pytest.raises(sp.ConfigError, match="shares from 0 to 1"):
        Split(low, high)
    if low == 0:
        with pytest.raises(sp.ConfigError, match="share is between 0 and 1"):
            Split.halves(high)
