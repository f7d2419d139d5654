"""The laws of lanes that are read forward: cover, the same batches for any job, and to open a lane anywhere."""

import pickle
import tracemalloc
from collections import Counter
from itertools import islice

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streampipe.plan.dataset import Dataset
from streampipe.plan.deal import shard_seed
from streampipe.plan.lanes import EpochOrder, Lanes, batch_seed
from streampipe.plan.order import windowed
from streampipe.plan.streams import CountedStreams, Streams, choose_streams

counts = st.lists(st.integers(0, 9), min_size=1, max_size=20).map(np.array)
windows = st.sampled_from([None, 0, 1, 5, 100])


def listed(streams, epoch, lane, counts, first=0):
    """The samples of a lane in the order in which they are read."""
    for portion in streams.portions(epoch, lane, first):
        last = counts[portion.shard] if portion.last is None else portion.last
        for number in range(portion.first, last):
            if number % portion.parts == portion.part:
                yield portion.shard, number


def given_out(streams, epoch, lane, counts):
    """The items of a lane in their order."""
    items = listed(streams, epoch, lane, counts)
    return list(windowed(items, streams.window, streams.order_seed(epoch, lane)) if streams.window else items)


@settings(max_examples=150, deadline=None)
@given(counts, st.integers(1, 30), windows, st.integers(0, 3), st.booleans())
def test_every_sample_is_in_one_lane_once(counts, lanes, window, epoch, counted):
    streams = CountedStreams(counts, lanes, 1, window) if counted else Streams(len(counts), lanes, 1, window)
    got = [given_out(streams, epoch, lane, counts) for lane in range(lanes)]
    everything = {(shard, number) for shard, n in enumerate(counts) for number in range(n)}
    assert Counter(item for lane in got for item in lane) == Counter(everything)
    for lane, items in enumerate(got):
        portions = list(streams.portions(epoch, lane))
        for first in range(len(portions) + 1):
            assert list(streams.portions(epoch, lane, first)) == portions[first:]
        if counted:
            start, end = streams.bounds(lane)
            assert len(items) == end - start
            assert len(items) in (counts.sum() // lanes, -(-counts.sum() // lanes))
    assert [given_out(streams, epoch, lane, counts) for lane in range(lanes)] == got


@settings(max_examples=150, deadline=None)
@given(counts, st.integers(1, 12), windows, st.integers(0, 3))
def test_a_counted_lane_can_be_opened_at_any_item(counts, lanes, window, epoch):
    streams = CountedStreams(counts, lanes, 5, window)
    for lane in range(lanes):
        whole = given_out(streams, epoch, lane, counts)
        assert [streams.find(epoch, lane, item) for item in range(len(whole))] == whole
        for item in range(len(whole) + 1):
            first, number = streams.mark(epoch, lane, item)
            items = listed(streams, epoch, lane, counts, first)
            begun = streams.portions(epoch, lane, first)
            shard = next((portion.shard for portion in begun), None)
            rest = (place for place in items if place[0] != shard or place[1] >= number)
            if window:
                rest = windowed(rest, window, streams.order_seed(epoch, lane), item)
            assert list(rest) == whole[item:]


@settings(max_examples=100, deadline=None)
@given(
    counts,
    st.sampled_from([(12, 1, 1), (12, 4, 3), (24, 12, 2), (6, 6, 4), (4, 2, 12)]),
    windows,
    st.sampled_from(["short", "drop", "pad"]),
    st.integers(0, 2),
    st.just((0, None)) | st.tuples(st.integers(0, 20), st.integers(0, 60)),
)
def test_lanes_that_are_read_forward_give_the_batches_of_an_indexed_plan_on_any_job(
    counts, shape, window, tail, epoch, limit
):
    dataset = Dataset([f"{i}.tar" for i in range(len(counts))], None, counts).limited(*limit)
    lanes = Lanes(dataset.samples, *shape, window or 0, tail)
    streams = CountedStreams(counts, lanes.number, 9, window, dataset.first, dataset.last)
    items = [given_out(streams, epoch, lane, counts) for lane in range(lanes.number)]
    for lane, mine in enumerate(items):
        assert [streams.find(epoch, lane, item) for item in range(len(mine))] == mine
    stream = dataset.stream(None if window is None else shard_seed(9, epoch))
    order = EpochOrder(lanes, batch_seed(9, epoch))
    for ranks in (ranks for ranks in (1, 2, 3, 4, 6) if lanes.rotation.fits(ranks)):
        for t in range(lanes.batches):
            numbers = [lanes.cut.numbers(t, rank, ranks) for rank in range(ranks)]
            read = [
                [items[lane][item] for lane, item in zip(*(each.tolist() for each in lanes.at(mine)), strict=True)]
                for mine in numbers
            ]
            assert read == [stream.find(order.draws(mine)) for mine in numbers]
            assert all(read)


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(1, 100_000))
def test_chosen_lanes_are_bounded_divide_the_batch_and_follow_from_batch_and_shards(size, shards):
    chosen = choose_streams(size, shards)
    assert size % chosen.places == 0
    assert chosen.number <= min(shards, max(64, 12 * max(1, size // 16)))
    assert 12 % chosen.columns == 0
    if shards >= 64:
        assert chosen.workers(4) == 4 or chosen.workers(4) == 3
        assert chosen.workers(4) == 4 or chosen.columns == 6


def test_ten_thousand_shards_on_64_ranks_with_8_workers():
    """Every sample once and equal shares, by shares of shards; what a consumer holds does not grow with the epoch."""
    shards, ranks = 10_000, 64
    counts = np.random.default_rng(0).integers(7_000, 10_000, shards)
    rotation = choose_streams(16 * ranks, shards)
    workers = rotation.workers(8)
    assert rotation.fits(ranks)
    assert (rotation.number, workers) == (768, 6)
    for streams in (
        Streams(shards, rotation.number, 0, 64),
        CountedStreams(counts, rotation.number, 0, 64),
    ):
        read, opened = np.zeros(shards), 0
        tracemalloc.start()
        for rank in range(ranks):
            for worker in range(workers):
                for lane in rotation.owned(rank, ranks, worker, workers):
                    mine = 0.0
                    for portion in streams.portions(3, lane):
                        count = counts[portion.shard]
                        last = count if portion.last is None else portion.last
                        read[portion.shard] += (last - portion.first) / portion.parts
                        mine += (last - portion.first) / portion.parts
                        opened += 1
                    if isinstance(streams, CountedStreams):
                        assert abs(mine - counts.sum() / rotation.number) < 1
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert np.allclose(read, counts)
        assert opened <= shards + rotation.number  # at most one more for each lane
        assert peak < 2 << 20


def test_lanes_of_an_endless_pass_may_be_in_different_epochs():
    streams = Streams(7, 2, 0, 10)
    first, second = streams.portions(0, 0), streams.portions(5, 1)
    begun = list(islice(first, 2)), list(islice(second, 2))
    for epoch in range(1, 5):
        list(streams.portions(epoch, 0))
    assert begun[0] + list(first) == list(Streams(7, 2, 0, 10).portions(0, 0))
    assert begun[1] + list(second) == list(Streams(7, 2, 0, 10).portions(5, 1))


def test_streams_are_pickled_without_what_they_remember():
    streams = CountedStreams(np.arange(1000), 4, 0, 10)
    fresh = pickle.dumps(streams)
    whole = list(streams.portions(0, 1))
    assert pickle.dumps(streams) == fresh
    assert list(pickle.loads(fresh).portions(0, 1)) == whole
