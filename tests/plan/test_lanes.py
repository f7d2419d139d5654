"""The laws of the order, over every shape of dataset and job."""

import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampipe.errors import ConfigError
from streampipe.plan.lanes import EpochOrder, Lanes, RankReader, choose
from streampipe.plan.order import window_slice
from streampipe.rng import derive

shapes = st.tuples(
    st.integers(1, 600), st.integers(1, 6), st.integers(1, 6), st.integers(1, 6), st.sampled_from([0, 1, 7, 100, 5000])
)


def all_ranks(lanes, seed, ranks):
    readers = [RankReader(EpochOrder(lanes, seed), rank, ranks) for rank in range(ranks)]
    return [[reader(t).tolist() for t in range(lanes.batches)] for reader in readers]


def oracle(lanes, seed):
    """The design's formula, slot by slot, from whole lanes."""
    orders = []
    for lane in range(lanes.number):
        start, end = lanes.bounds(lane)
        n = end - start
        whole = window_slice(n, lanes.window, derive(seed, "lane", lane), 0, n) if lanes.window else np.arange(n)
        orders.append((start + whole).tolist())
    a, t, g = lanes.places, lanes.columns, lanes.size
    rounds = min(map(len, orders)) // lanes.draws
    batches = [
        [orders[(q % a) * t + b % t][(b // t) * lanes.draws + q // a] for q in range(g)] for b in range(rounds * t)
    ]
    tail = [each for order in orders for each in order[rounds * lanes.draws :]]
    return batches, [tail[i : i + g] for i in range(0, len(tail), g)]


@settings(max_examples=200, deadline=None)
@given(shapes, st.integers(0, 3))
def test_batches_are_those_of_the_written_law(shape, seed):
    n, places, draws, columns, window = shape
    lanes = Lanes(n, places * draws, places, columns, window)
    batches, tail = oracle(lanes, seed)
    order = EpochOrder(lanes, seed)
    assert lanes.full == len(batches)
    assert [order.batch(t).tolist() for t in range(lanes.batches)] == batches + tail


@settings(max_examples=200, deadline=None)
@given(shapes, st.sampled_from(["short", "drop", "pad"]), st.integers(1, 6))
def test_every_sample_goes_to_exactly_one_rank_and_all_ranks_take_the_same_steps(shape, tail, ranks):
    n, places, draws, columns, window = shape
    lanes = Lanes(n, places * draws * ranks, places, columns, window, tail)
    got = Counter(x for rank in all_ranks(lanes, 1, ranks) for batch in rank for x in batch)
    whole, rest = divmod(n, lanes.size)
    if tail == "drop":
        assert sum(got.values()) == whole * lanes.size
        assert set(got.values()) <= {1}
    else:
        assert set(got) == set(range(n))
        twice = sum(got.values()) - n
        assert twice == (max(0, ranks - rest) if rest and tail == "short" else -n % lanes.size if rest else 0)
    sizes = [[len(batch) for batch in rank] for rank in all_ranks(lanes, 1, ranks)]
    assert all(len(each) == lanes.batches for each in sizes)
    assert all(size >= 1 for each in sizes for size in each)
    if tail != "short":
        assert {size for each in sizes for size in each} <= {places * draws}


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 400), st.sampled_from([12, 24]), st.sampled_from([1, 2, 3, 4, 6, 12]), st.integers(1, 4))
def test_global_batches_do_not_depend_on_the_ranks(n, size, places, columns):
    lanes = Lanes(n, size, places, columns, 20, "pad")
    whole = all_ranks(lanes, 5, 1)[0]
    for ranks in (2, 3, 4, 6, 12):
        parts = all_ranks(lanes, 5, ranks)
        for t, batch in enumerate(whole):
            merged = [0] * size
            for rank in range(ranks):
                for q, x in zip(range(rank, size, ranks), parts[rank][t], strict=True):
                    merged[q] = x
            assert merged == batch


@pytest.mark.parametrize(("ranks", "workers"), [(1, 1), (2, 3), (4, 2), (6, 6), (12, 12)])
def test_where_ranks_and_workers_divide_the_lanes_every_lane_has_one_reader(ranks, workers):
    lanes = Lanes(5000, 48, 12, 12, 30)
    owner = {}
    for t in range(lanes.full):
        for rank in range(ranks):
            for lane in set(lanes.at(lanes.cut.numbers(t, rank, ranks))[0].tolist()):
                assert owner.setdefault(lane, (rank, t % workers)) == (rank, t % workers)


def test_any_batch_can_be_had_first():
    lanes = Lanes(1000, 20, 4, 3, 50)
    order = EpochOrder(lanes, 2)
    forward = [order.batch(t).tolist() for t in range(lanes.batches)]
    assert [EpochOrder(lanes, 2).batch(t).tolist() for t in range(lanes.batches)] == forward
    back = EpochOrder(lanes, 2)
    assert [back.batch(t).tolist() for t in reversed(range(lanes.batches))] == forward[::-1]


@pytest.mark.parametrize("size", [960])
@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 24, 30, 40, 60, 120])
def test_sixteen_job_sizes_continue_the_same_batches(size, ranks):
    """The job sizes of MosaicML's own resume tests: there the sets are equal, here every slot is."""
    lanes = Lanes(16_384, size, *choose(size, 16_384, 200), 100, "drop")
    whole = [EpochOrder(lanes, 3).batch(t).tolist() for t in range(lanes.batches)]
    for t in range(lanes.batches // 2, lanes.batches):
        merged = {}
        for rank in range(ranks):
            merged.update(
                zip(range(rank, size, ranks), RankReader(EpochOrder(lanes, 3), rank, ranks)(t).tolist(), strict=True)
            )
        assert [merged[q] for q in range(size)] == whole[t]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 16_384), st.integers(1, 22), st.sampled_from([1, 8]), st.integers(1, 10), st.integers(1, 200))
def test_cover_and_equal_steps_in_the_ranges_of_mosaicmls_partition_tests(samples, nodes, per_node, batch, shards):
    ranks = nodes * per_node
    places, columns = choose(batch * ranks, samples, shards)
    lanes = Lanes(samples, batch * ranks, places, columns, 50, "pad")
    parts = all_ranks(lanes, 7, ranks)
    assert {len(part) for part in parts} == {-(-samples // lanes.size)}
    assert {len(each) for part in parts for each in part} == {batch}
    got = Counter(x for part in parts for each in part for x in each)
    assert set(got) == set(range(samples))
    assert sum(got.values()) - samples == -samples % lanes.size


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 1024), st.integers(0, 10**6), st.integers(1, 2000))
def test_the_chosen_lanes_are_no_more_than_shards_and_fit_the_batch(size, samples, shards):
    places, columns = choose(size, samples, shards)
    assert Lanes(samples, size, places, columns).number <= shards


def test_places_must_divide_the_batch_and_ranks_too():
    with pytest.raises(ConfigError, match="5 places do not divide a global batch of 12"):
        Lanes(10, 12, 5)
    with pytest.raises(ConfigError, match="12 samples cannot be divided among 5 ranks"):
        RankReader(EpochOrder(Lanes(100, 12), 0), 0, 5)
    with pytest.raises(ConfigError, match="tail is one of short, drop, pad, not 'cut'"):
        Lanes(10, 2, tail="cut")


def test_a_seat_in_a_trillion_samples_costs_nothing():
    lanes = Lanes(10**12, 1024, 32, 12, 10_000)
    order = EpochOrder(lanes, 0)
    batch = order.batch(lanes.full - 1)
    assert len(set(batch.tolist())) == 1024
    assert sum(sys.getsizeof(piece) + piece.nbytes for *_, piece in order._pieces.values()) < 4 << 20
