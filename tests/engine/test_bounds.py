"""What a reader holds at most, as explain() says it: by simulation of a large job, in integers, and by counting."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest

import streampipe as sp
from streampipe.context import Consumer
from streampipe.counters import counters
from streampipe.engine.batches import most_open
from streampipe.engine.bounds import bounds_of
from streampipe.engine.compile import compile
from streampipe.plan.dataset import Dataset
from streampipe.plan.deal import deal
from streampipe.plan.lanes import Shuffle
from streampipe.plan.planned import Cursor, make
from streampipe.reading.shards import ShardSamples
from streampipe.spec import Job
from tests import levels
from tests.data import write_shards
from tests.engine.lanes import Job as Ranks

SHARDS, EACH, RANKS, WORKERS, BATCH = 10_000, 5_000, 64, 8, 16


def remote(**options):
    return sp.stream(f"s3://bucket/{{00000..{SHARDS - 1:05d}}}.tar", shuffle=True, tier="sequential", **options)


@pytest.mark.parametrize(("ranks", "workers", "batch"), [(RANKS, WORKERS, BATCH), (1, 0, 256), (1, 8, 16), (8, 1, 4)])
def test_a_streamed_reader_has_a_shard_a_lane_and_all_its_windows_fit_into_a_gigabyte(ranks, workers, batch):
    job = Job(ranks, workers)
    pipe = remote(epochs=None).batch(batch)
    engine = compile(pipe.spec, job)
    found = bounds_of(engine, job)
    shape, stream = engine.work.shape, engine.work.stream
    assert isinstance(stream, ShardSamples)
    assert found.bytes <= 1 << 30
    for rank in {0, ranks - 1}:
        columns, used = shape.columns_of(rank, ranks), engine.stride(Consumer(rank, ranks, 0, job.readers))
        assert sum(map(len, columns[::used])) <= found.lanes == found.shards
    assert found.samples == found.lanes * (stream.window + 1)
    assert str(found) in pipe.explain(world_size=ranks, num_workers=workers)
    # the lanes that a reader has are all dealt whole shards, one after the other: none needs a second one open
    for lane in range(0, shape.number, max(1, shape.number // 7)):
        portions = list(deal(range(SHARDS), lane, shape.number, share=False))
        assert all(portion.parts == 1 for portion in portions)
        assert len(portions) in (SHARDS // shape.number, -(-SHARDS // shape.number))


@pytest.mark.parametrize(("ranks", "workers"), [(RANKS, WORKERS), (RANKS, 12), (1, 8), (1, 1)])
def test_a_planned_reader_keeps_its_shards_open_as_long_as_they_are_needed(ranks, workers):
    """A least recently used list of the length that is said: hardly any shard is opened twice."""
    plan = make(
        Dataset([""] * SHARDS, None, np.full(SHARDS, EACH)), RANKS * BATCH, Shuffle(2_000, True), 0, "short", ""
    )
    places = plan.dataset.places(plan, 0, ranks)
    opened, seen, opens, drawn = OrderedDict(), set(), 0, 0
    steps = plan.steps(Cursor(0, plan.batches // 3, 1), 0, workers)
    while drawn < 12_000:
        for place in places(0, next(steps).step):
            drawn += 1
            opens += place.shard not in opened
            opened[place.shard] = None
            opened.move_to_end(place.shard)
            seen.add(place.shard)
            if len(opened) > most_open(plan):
                opened.popitem(last=False)
    assert most_open(plan) <= 1024
    assert opens <= 1.05 * len(seen)


@pytest.mark.parametrize("cell", [("indexed", "opaque"), ("indexed", "each"), ("streamed", "opaque")])
def test_shards_are_opened_once_an_epoch_by_the_lanes_of_a_reader(tmp_path, cell):
    counts = [40] * 6
    write_shards(tmp_path / "indexed", counts)
    levels.compress(tmp_path / "indexed", tmp_path / "streamed")
    job = Ranks(lambda **options: levels.samples(*cell, tmp_path, **options), 4, steps=None)
    before = counters.get("reading", "shards opened"), counters.get("reading", "shards")
    assert sum(map(len, job.take())) == sum(counts)
    opened = counters.get("reading", "shards opened") - before[0]
    read = counters.get("reading", "shards") - before[1]
    assert (opened, read) == ((0, 6) if cell[0] == "streamed" else (6, 0))
