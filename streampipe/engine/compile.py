"""``compile``: from what a pipeline is to what runs it, once for a pass.

Indexed samples and a chain without a head give an ``IndexedEngine``. Everything else runs in lanes: those of the plan
where samples are indexed, else of whole shards. Lanes follow from the data and the global batch; where that is not
possible (too few shards, or shards that are wanted in their listed order), each consumer has a lane of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from streampipe.engine.chain import describe, name_of, takes_views, unwind
from streampipe.engine.division import Division, divide
from streampipe.engine.engine import Engine, Level
from streampipe.engine.indexed import IndexedEngine
from streampipe.engine.interleaved import LaneEngine, refuse_limit
from streampipe.engine.lanes import Head, Shape, Stream, Tail, Work
from streampipe.engine.planning import OnlyCounted, narrowed, plan_of, tail_of
from streampipe.engine.streams import PlannedStream
from streampipe.errors import ConfigError
from streampipe.plan.ask import Uncounted
from streampipe.plan.batchwise import BatchPlan
from streampipe.plan.bucket_plan import BucketPlan
from streampipe.plan.pack_plan import PackPlan
from streampipe.plan.packed import NotPacked
from streampipe.plan.planned import Plan
from streampipe.plan.stepped import StepPlan
from streampipe.plan.streams import choose_streams
from streampipe.spec import AnyStage, Job, Spec
from streampipe.stages.stage import pushdown_of, traits_of
from streampipe.traits import Group, Keeps, Limit

_PLACES, _COLUMNS = 48, 12
_FEW_PLACES = 4


def compile(spec: Spec, job: Job) -> Engine[Any]:
    """What runs a pass of a pipeline in a job. The first call may have to look at every shard.

    Raises:
        ConfigError: ``tier="planned"`` was asked for and cannot be, or no engine can run the chain.
    """
    division = divide(spec.chain)
    wanted, whole = spec.source.tier == "planned", spec
    spec = narrowed(spec, (*division.head, *division.tail))
    if wanted and division.head:
        raise ConfigError(f"tier='planned' cannot be: {division.why}")
    try:
        try:
            plan = plan_of(spec, division, job)
        except NotPacked as reason:
            if wanted:
                raise
            division = replace(division.unpacked(), why=str(reason))
            plan = plan_of(spec, division, job)
    except OnlyCounted as reason:
        division = replace(division.unpushed(), why=str(reason))
        spec = narrowed(whole, division.head)
        plan = plan_of(spec, division, job)
    except Uncounted as reason:
        if wanted:
            raise ConfigError(f"tier='planned' cannot be: {reason}") from None
        return _streamed(whole, division.unpushed(), job, str(reason))
    if not division.head:
        return IndexedEngine(spec, plan, division, _level(plan))
    return _planned_lanes(spec, division, job, plan)


def _level(plan: Plan) -> Level:
    return Level.COUNTED if any(not part.indexed for part in plan.dataset.parts()) else Level.INDEXED


# Lanes


def _planned_lanes(spec: Spec, division: Division, job: Job, plan: Plan) -> LaneEngine:
    if isinstance(plan, BatchPlan):
        raise ConfigError(
            f"behind a mixture of batches each batch stays one: {division.why}; put it into the parts, if it drops "
            f"nothing there, or leave it out"
        )
    if isinstance(plan, StepPlan):
        raise ConfigError(
            f"a mixture with a schedule needs batches that are planned, because weights are said by step: "
            f"{division.why}; put it into the parts, if it drops nothing there, or leave it out"
        )
    lanes = plan.lanes
    assert not isinstance(plan, PackPlan)
    own = division.pools or isinstance(plan, BucketPlan)
    if own:
        shape = Shape(job.world_size, job.readers)
    elif plan.shuffled and lanes.places >= _FEW_PLACES:
        shape = Shape(lanes.places, lanes.columns)
    else:  # any numbers will do, so such that many numbers of ranks and workers divide
        most = max(1, lanes.samples // (4 * lanes.size))
        places = max(_divisors(lanes.size, _PLACES), key=lambda a: (len(_divisors(a)), a))
        shape = Shape(places, max(t for t in _divisors(_COLUMNS) if t <= most))
    whole = replace(plan, lanes=replace(lanes, tail="short"))
    stream = PlannedStream(whole, shape, not own)
    engine = _engine(spec, division, job, shape, stream, _level(plan), division.why)
    return _alone(engine, replace(stream, shape=Shape(1, 1))) if _counts_alone(spec, division, job) else engine


def _streamed(spec: Spec, division: Division, job: Job, why: str) -> LaneEngine:
    source = spec.source
    size = (division.batch or 1) * job.world_size
    shape = Shape(job.world_size, job.readers)
    stream: Stream = source
    if source.streams and not division.pools:
        chosen = choose_streams(size, source.streams)
        found = Shape(chosen.places, chosen.columns)
        if found.number >= job.world_size * job.readers:
            shape, stream = found, source.in_lanes(found.places, found.number)
    engine = _engine(spec, division, job, shape, stream, Level.STREAMED, why)
    return _alone(engine, source) if _counts_alone(spec, division, job) else engine


def _counts_alone(spec: Spec, division: Division, job: Job) -> bool:
    """Whether a limit is counted by the only reader of a finite pass: in one lane it is exact, whatever is dropped
    before it. An endless one may go on with more readers, so it keeps its lanes.
    """
    limited = any(isinstance(pushdown_of(stage), Limit) for stage in division.head)
    return limited and job.world_size * job.readers == 1 and spec.epochs is not None and not job.in_steps


def _alone(engine: LaneEngine, stream: Stream) -> LaneEngine:
    """The same in one lane, of this stream."""
    return replace(engine, work=replace(engine.work, shape=Shape(1, 1), stream=stream), several=engine.work)


def _divisors(number: int, most: int | None = None) -> list[int]:
    return [d for d in range(1, min(number, most or number) + 1) if number % d == 0]


def _engine(
    spec: Spec,
    division: Division,
    job: Job,
    shape: Shape,
    stream: Stream,
    level: Level,
    why: str,
) -> LaneEngine:
    if division.pools:
        _check_pools(spec, division, job)
    if division.batch is None:  # a tail over single samples would start anew for each, and its threads with it
        division = replace(division, head=(*division.head, *division.tail), tail=())
    chain = (*division.head, *division.tail)
    views = takes_views(chain)
    cut = len(division.head)
    head = Head(division.head, None if views is None or views >= cut else views)
    tail = Tail(division.tail, None if views is None or views < cut else views - cut, division.head)
    tail_policy = tail_of(division, job)
    work = Work(
        shape,
        stream,
        head,
        tail,
        division.batch or 1,
        opaque_in(stream, division.head) is None,
        views is not None,
        partial(unwind, division.head),
        drop_short=tail_policy == "drop" and division.batch is not None,
        fill_short=tail_policy == "pad",
        continuous=division.pools,
    )
    return LaneEngine(spec, work, level, why, describe(spec.source, division.head))


def _check_pools(spec: Spec, division: Division, job: Job) -> None:
    """Refuse what pools cannot keep: a promise about buckets of all ranks, and a limit on their batches by epoch."""
    if spec.epochs != 1:
        refuse_limit(division.head)
    same = any(isinstance(each := pushdown_of(stage), Group) and each.same for stage in division.head)
    if same and job.world_size > 1:
        raise ConfigError(
            "bucket(same=True) needs samples that are counted: without counts, ranks cannot know what the others do; "
            "make an index (streampipe index), or leave same= out"
        )


def opaque_in(stream: Any, head: Sequence[AnyStage]) -> str | None:
    """Why a lane has no marks, so that it is replayed from the beginning of an epoch; None if it has."""
    if getattr(stream, "leaves_marks", False) is False:
        return "the samples come from an iterable"
    for stage in head:
        if traits_of(stage).state is Keeps.OPAQUE:
            return f"stage {name_of(stage, parameters=True)} may keep something between samples"
    return None
