"""A run goes on with another global batch: nothing lost, nothing twice, the old order to the end of the epoch."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from streampipe.engine.state import VERSION, checked_state
from streampipe.errors import ConfigError
from streampipe.index.answers import Tally
from streampipe.plan.bucket_plan import make_plan
from streampipe.plan.bucketed import BucketDataset
from streampipe.plan.buckets import Buckets
from streampipe.plan.dataset import Dataset
from streampipe.plan.lanes import Lanes, Shuffle
from streampipe.plan.mixed import MixDataset, Part
from streampipe.plan.planned import Cursor, Plan, make

EPOCHS = 3
counts = st.lists(st.integers(0, 12), min_size=1, max_size=8).filter(sum)
windows = st.sampled_from([None, 0, 3, 50])
sizes = st.sampled_from([2, 4, 6, 12, 5])
tails = st.sampled_from(["short", "drop", "pad"])


def dataset_of(counts):
    return Dataset([f"{i}.tar" for i in range(len(counts))], None, np.array(counts))


def planner(counts, window, tail, mixed, skip=0):
    """From a global batch to the plan of a new run."""
    dataset = dataset_of(counts)
    if mixed:
        parts = [Part(dataset, 1, Shuffle(window), (), ""), Part(dataset_of([3, 4]), 2, Shuffle(), (), "")]
        mixture = MixDataset(parts, [2, 1], [1, 1]).limited(skip)
        return lambda size: Plan(mixture, Lanes(mixture.samples, size, tail=tail), 7, False)
    dataset = dataset.limited(min(skip, dataset.samples - 1))
    return lambda size: make(dataset, size, Shuffle(window), 7, tail)


def batch(plan, at, ranks=1):
    """A global batch, slot by slot."""
    parts = [plan.dataset.places(plan, rank, ranks)(at.epoch, at.step) for rank in range(ranks)]
    out = [None] * sum(map(len, parts))
    for rank, part in enumerate(parts):
        out[rank::ranks] = part
    return out


def draws(plan, epoch):
    """All places of an epoch in the order of its draws."""
    whole = Plan(plan.dataset, plan.lanes, plan.seed, plan.shuffled)
    found = [batch(whole, Cursor(epoch, step, None)) for step in range(whole.batches)]
    return [place for each in found for place in each][: plan.lanes.samples]


def resumed(plan, size_of, size, cursor):
    """A plan of another size that goes on from a state, through JSON."""
    plan, at = size_of(size).load(checked_state(json.loads(json.dumps(state_of(plan, cursor)))))
    return plan, at._replace(until=cursor.until)


def state_of(plan, cursor):
    """A state as a loader saves it."""
    passes = {"streampipe": VERSION, "epoch": cursor.epoch, "step": cursor.step, "epochs": None, "steps": None}
    return {**passes, **plan.state(cursor)}


@settings(max_examples=25, deadline=None)
@given(counts, windows, st.lists(sizes, min_size=2, max_size=4), st.booleans(), st.integers(0, 5), st.data())
def test_the_rest_of_an_epoch_keeps_its_order_whatever_the_batches(counts, window, batches, mixed, skip, data):
    size_of = planner(counts, window, "short", mixed, skip)
    plan, cursor = size_of(batches[0]), Cursor(0, 0, EPOCHS)
    begun = {epoch: draws(plan, epoch) for epoch in range(EPOCHS)}
    done = dict.fromkeys(range(EPOCHS), 0)
    for size in [*batches[1:], None]:
        steps = list(plan.steps(cursor))
        assert len(steps) == plan.length(cursor.epoch, EPOCHS - cursor.epoch) - cursor.step
        stop = data.draw(st.integers(0, len(steps))) if size else len(steps)
        for at in steps[:stop]:
            got = batch(plan, at)
            assert got == begun[at.epoch][done[at.epoch] : done[at.epoch] + plan.lanes.size]
            done[at.epoch] += len(got)
        cursor = steps[stop] if stop < len(steps) else Cursor(EPOCHS, 0, EPOCHS)
        if size:
            plan, cursor = resumed(plan, size_of, size, cursor)
            assert len(json.dumps(plan.state(cursor))) < 600
            for epoch in range(cursor.epoch + bool(cursor.step), EPOCHS):  # what comes later is as a new run has it
                begun[epoch] = draws(size_of(size), epoch)
    assert all(n == plan.lanes.samples for n in done.values())


@settings(max_examples=25, deadline=None)
@given(counts, windows, sizes, st.sampled_from([4, 6, 12]), tails, st.booleans(), st.integers(0, 20))
def test_any_number_of_ranks_goes_on_with_the_same_batches_and_equal_steps(
    counts, window, first, second, tail, mixed, stop
):
    size_of = planner(counts, window, tail, mixed)
    plan = size_of(first)
    stop %= plan.batches + 1
    before = [place for step in range(stop) for place in batch(plan, Cursor(0, step, None))]
    plan, cursor = resumed(plan, size_of, second, plan.after(Cursor(0, 0, 1), stop))
    steps = list(plan.steps(cursor))
    whole = [batch(plan, at) for at in steps]
    samples = plan.lanes.samples
    left = samples - len(before) if steps else 0
    got = Counter(before) + Counter(place for each in whole for place in each)
    if tail == "drop":
        assert all(len(each) == second for each in whole)
        assert len(whole) == left // second
        assert mixed or set(got.values()) <= {1}
    elif steps:
        assert len(whole) == -(-left // second)
        assert mixed or len(got) == samples
        assert mixed or got.total() == samples + (-left % second if tail == "pad" else 0)
    for ranks in (2, 3, 6):
        if second % ranks == 0:
            for at, each in zip(steps, whole, strict=True):
                assert batch(plan, at, ranks)[: len(each)] == each


@settings(max_examples=30, deadline=None)
@given(counts, windows, sizes, sizes, tails, st.booleans(), st.integers(0, 20))
def test_what_goes_on_with_another_batch_resumes_at_every_step(counts, window, first, second, tail, mixed, stop):
    size_of = planner(counts, window, tail, mixed)
    plan = size_of(first)
    plan, cursor = resumed(plan, size_of, second, plan.after(Cursor(0, 0, 2), stop % (plan.batches + 1)))
    steps = list(plan.steps(cursor))
    whole = [batch(plan, at) for at in steps]
    for i, at in enumerate(steps):
        again, begin = resumed(plan, size_of, second, at)
        assert [batch(again, each) for each in again.steps(begin)] == whole[i:]
        assert again.state(begin) == plan.state(at)


SHAPES = [(1, 2), (1, 1), (2, 1)]
matrices = st.lists(st.tuples(*[st.integers(0, 9)] * 3), min_size=1, max_size=5).filter(lambda m: sum(map(sum, m)) > 20)


def bucketed(matrix, window, leftover, same=True, ranks=1):
    """From a rank's batch to the plan of a new run."""
    tally = Tally(np.array(matrix, np.int32), np.zeros(3))
    dataset = BucketDataset(dataset_of([sum(row) for row in matrix]), Buckets(SHAPES), tally)

    def plan_of(size, ranks=ranks):
        each = size if isinstance(size, tuple) else (size,) * 3
        return make_plan(dataset, each, ranks, Shuffle(window), 7, "", leftover=leftover, same=same)

    return plan_of


@settings(max_examples=40, deadline=None)
@given(
    matrices,
    windows,
    st.sampled_from(["carry", "merge", "drop"]),
    st.lists(st.sampled_from([1, 2, 3, 5, (2, 4, 1)]), min_size=2, max_size=3),
    st.sampled_from([(True, 1), (True, 3), (False, 2)]),
    st.data(),
)
def test_buckets_go_on_with_other_batches(matrix, window, leftover, sizes, job, data):
    same, ranks = job
    plan_of = bucketed(matrix, window, leftover, same, ranks)

    def step(plan, at):
        return [place for rank in range(ranks) for place in plan.dataset.places(plan, rank, ranks)(at.epoch, at.step)]

    plan, cursor, got = plan_of(sizes[0]), Cursor(0, 0, EPOCHS), []
    for size in [*sizes[1:], None]:
        assume(not plan.is_empty)
        steps = list(plan.steps(cursor))
        stop = data.draw(st.integers(0, len(steps))) if size else len(steps)
        got += [place for at in steps[:stop] for place in step(plan, at)]
        cursor = steps[stop] if stop < len(steps) else Cursor(EPOCHS, 0, EPOCHS)
        if size:
            plan, cursor = resumed(plan, plan_of, size, cursor)
            assert len(json.dumps(plan.state(cursor))) < 700
            for at in list(plan.steps(cursor))[:3]:
                again, begin = resumed(plan, plan_of, size, at)
                assert step(again, begin) == step(plan, at)
                assert again.state(begin) == plan.state(at)
    times = Counter((place.shard, place.number, place.epoch) for place in got)
    if leftover == "merge":
        assert len(times) == EPOCHS * plan.dataset.samples
    if ranks == 1:
        assert set(times.values()) <= {1}
    if leftover == "carry" and ranks == 1:
        assert EPOCHS * plan.dataset.samples - len(times) < 3 * 5


@settings(max_examples=25, deadline=None)
@given(matrices, windows, st.sampled_from(["carry", "merge", "drop"]), st.integers(0, 30))
def test_buckets_go_on_alike_on_any_number_of_ranks(matrix, window, leftover, stop):
    plan_of = bucketed(matrix, window, leftover)
    plan = plan_of(4)
    assume(not plan.is_empty and not plan_of(6).is_empty)
    at = plan.after(Cursor(0, 0, 2), stop % (plan.batches_in(0) + plan.batches_in(1)))
    wanted = None
    for ranks in (1, 2, 3):
        plan, cursor = resumed(plan_of(4), lambda size, ranks=ranks: plan_of(size, ranks), 6 // ranks, at)
        got = [batch(plan, each, ranks) for each in plan.steps(cursor)]
        wanted = wanted or got
        # a batch with fewer samples than ranks has some of them twice
        assert [each[: len(other)] for each, other in zip(got, wanted, strict=True)] == wanted


def test_buckets_refuse_a_state_of_other_buckets_numbers():
    plan_of = bucketed([(5, 9, 7)], None, "carry")
    plan, cursor = resumed(plan_of(2), plan_of, 3, Cursor(0, 4, 2))
    state = state_of(plan, cursor)
    plan.load(checked_state(state))
    for change in ({"batch": [3, 3]}, {"begun": {**state["begun"], "draws": [2, 2]}}):
        with pytest.raises(ConfigError, match="which do not fit 3 buckets: it is damaged"):
            plan.load(checked_state({**state, **change}))
    with pytest.raises(ConfigError, match="do not fit 3 buckets"):
        plan.load(checked_state({**state, "begun": {**state["begun"], "draws": [2, 2, 8]}}))
    for change in ({"turn": 2}, {"epoch": 1}, {"steps": 5}, {"draws": [1, -1, 1]}, {"draws": 6}, {"turn": None}):
        with pytest.raises(ConfigError, match="this is no state of streampipe: its begun is"):
            checked_state({**state, "begun": {**state["begun"], **change}})


def test_steps_go_on_counting_and_the_next_epoch_has_lanes_of_its_own():
    size_of = planner([5] * 40, 10, "short", False)
    plan = size_of(8)
    plan, cursor = resumed(plan, size_of, 16, Cursor(0, 10, 2))
    assert cursor == Cursor(0, 10, 2)
    assert plan.batches_in(0) == 10 + 8  # 80 samples are done, 120 are left
    assert plan.batches_in(1) == plan.batches == 13
    assert plan.order(0).lanes == size_of(8).lanes
    assert plan.order(1).lanes == plan.lanes == size_of(16).lanes != size_of(8).lanes
    assert "begun" in plan.state(cursor)
    assert "begun" not in plan.state(Cursor(1, 0, 2))


def test_a_state_between_epochs_goes_on_as_a_new_run():
    size_of = planner([7, 6], 4, "short", False)
    for at in (Cursor(1, 0, 3), Cursor(0, 4, 3)):
        plan, cursor = resumed(size_of(4), size_of, 6, at)
        assert cursor == Cursor(1, 0, 3)
        assert plan.state(cursor) == size_of(6).state(cursor)


def test_leftovers_that_were_dropped_stay_dropped():
    size_of = planner([10], None, "drop", False)
    plan = size_of(4)
    plan, cursor = resumed(plan, size_of, 2, plan.after(Cursor(0, 0, 2), 2))
    assert cursor == Cursor(1, 0, 2)
    assert len(list(plan.steps(cursor))) == 5


def test_one_of_several_workers_cannot_go_on_with_another_batch():
    size_of = planner([10], None, "short", False)
    state = {**size_of(2).state(Cursor(0, 2, 1)), "worker": [1, 2]}
    size_of(2).load(state)
    with pytest.raises(ConfigError, match=r"global batch .* is 5 here and was 2 when one of several workers saved"):
        size_of(5).load(state)


@pytest.mark.parametrize(
    "change",
    [
        {"draws": 0},
        {"draws": 200},
        {"draws": "8"},
        {"steps": 0},
        {"steps": 11},
        {"lanes": [0, 1]},
        {"lanes": [2]},
        {"batch": 0},
        {"batch": "8"},
        {"window": -1},
        {"window": None},
    ],
)
def test_a_damaged_state_is_refused(change):
    size_of = planner([5] * 40, 10, "short", False)
    plan, cursor = resumed(size_of(8), size_of, 16, Cursor(0, 10, 2))
    state = state_of(plan, cursor)
    checked_state(state)
    with pytest.raises(ConfigError, match=r"this is no state of streampipe: its (begun|lanes are|batch is)"):
        checked_state({**state, "begun": {**state["begun"], **change}})


@pytest.mark.parametrize("change", [{"batch": 0}, {"batch": None}, {"batch": [4, 0]}, {"window": "all"}])
def test_a_batch_or_window_that_is_none_is_refused(change):
    state = state_of(planner([5], 10, "short", False)(2), Cursor(0, 0, None))
    with pytest.raises(ConfigError, match="this is no state of streampipe: its (batch|window) is"):
        checked_state({**state, **change})
