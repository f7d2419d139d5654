"""What a reader holds at most: lanes, open shards, and samples that wait in windows. It follows from numbers alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from streampipe.context import Consumer
from streampipe.engine.batches import most_open
from streampipe.engine.engine import Engine
from streampipe.engine.indexed import IndexedEngine
from streampipe.engine.interleaved import LaneEngine
from streampipe.engine.streams import PlannedStream
from streampipe.plan.bucket_plan import BucketPlan
from streampipe.plan.pack_plan import PackPlan
from streampipe.plan.planned import Plan
from streampipe.reading.prefetch import MOST_OPEN
from streampipe.reading.protocol import Samples
from streampipe.spec import Job

_FORWARD = 4
"""Windows of samples that a shard which is read forward may hold: two behind the sample that is wanted, two before."""


@dataclass(frozen=True)
class Bounds:
    """Of each reader of a job: a rank's own process, or each of its workers.

    Args:
        readers: how many there are.
        lanes: that one of them draws from, whole or in part.
        shards: that it has open at once.
        samples: that wait in it because they came before their turn; None where only bytes are bounded.
        bytes: that those take; None where that is not known before they come.
    """

    readers: int
    lanes: int
    shards: int
    samples: int | None
    bytes: int | None

    def __str__(self) -> str:
        """In words.

        >>> print(Bounds(16, 4, 4, 1000, 64 << 20))
        each of 16 readers: 4 lanes; at most 4 open shards, and 1,000 samples in windows (67.1 MB)
        >>> print(Bounds(1, 4, 9, 0, 0))
        one reader: 4 lanes; at most 9 open shards, and no sample before its turn
        """
        size = "" if self.bytes is None else words(self.bytes)
        if self.samples == 0:
            waiting = "no sample before its turn"
        elif self.samples is None:
            waiting = f"samples before their turn of {size or 'unknown size'}"
        else:
            waiting = f"{self.samples:,} samples in windows" + (f" ({size})" if size else "")
        who = "one reader" if self.readers == 1 else f"each of {self.readers} readers"
        lanes, shards = ("" if each == 1 else "s" for each in (self.lanes, self.shards))
        return f"{who}: {self.lanes} lane{lanes}; at most {self.shards:,} open shard{shards}, and {waiting}"


def bounds_of(engine: Engine[Any], job: Job) -> Bounds:
    """What a reader of an engine holds at most, beside the batches that are made ahead and what stages keep."""
    if isinstance(engine, IndexedEngine):
        plan = engine.plan
        return _of_plan(plan, job.world_size * job.readers, lanes_of(plan, job), most_open(plan))
    assert isinstance(engine, LaneEngine)
    used = engine.stride(Consumer(0, job.world_size, 0, job.readers))
    lanes = -(-sum(map(len, engine.work.shape.columns_of(0, job.world_size))) // used)
    readers, stream = job.world_size * used, engine.work.stream
    if isinstance(stream, PlannedStream):
        return _of_plan(stream.plan, readers, lanes, stream.most_open)
    assert isinstance(stream, Samples)
    window = stream.window or 0
    shards, samples, size = stream.open_shards, (window + 1) * bool(window), stream.window_bytes * bool(window)
    return Bounds(readers, lanes, lanes * shards, lanes * samples, lanes * size)


def has_own_lanes(plan: Plan, job: Job) -> bool:
    """Whether each lane of a plan is drawn from by one reader."""
    lanes = plan.lanes
    divided = lanes.places % job.world_size == 0 and lanes.columns % job.readers == 0
    # batches of buckets, and packs, take turns over readers
    return job.world_size * job.readers == 1 or (divided and not isinstance(plan, (BucketPlan, PackPlan)))


def lanes_of(plan: Plan, job: Job) -> int:
    """The lanes that a reader of a plan draws from."""
    number = plan.lanes.number
    return max(1, number // (job.world_size * job.readers)) if has_own_lanes(plan, job) else number


def _of_plan(plan: Plan, readers: int, lanes: int, most: int) -> Bounds:
    parts = plan.dataset.parts()
    if any(part.forward for part in parts):
        return Bounds(readers, lanes, most, lanes * (_FORWARD * plan.window + 1), None)
    if any(part.is_remote for part in parts):
        return Bounds(readers, lanes, MOST_OPEN, None, max(part.finder.source.network.memory for part in parts))
    return Bounds(readers, lanes, min(most, sum(len(part.shards) for part in parts)), 0, 0)


def words(number: float) -> str:
    """Bytes in words.

    >>> words(1_234_567_890), words(250_000)
    ('1.23 GB', '0.2 MB')
    """
    return f"{number / 1e9:,.2f} GB" if number >= 1e9 else f"{number / 1e6:,.1f} MB"
