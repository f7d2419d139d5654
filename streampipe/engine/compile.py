"""``compile``: from what a pipeline is to what runs it, once for a pass.

Indexed samples and a chain without a head give an ``IndexedEngine``. Everything else runs in lanes: those of the plan
where samples are indexed, else of whole shards. Lanes follow from the data and the global batch; where that is not
possible (too few shards, or shards that are wanted in their listed order), each consumer has a lane of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from streampipe.engine.chain import describe, name_of, takes_views, unwind
from streampipe.engine.division import Division, divide
from streampipe.engine.engine import Engine, Level
from streampipe.engine.indexed import IndexedEngine
from streampipe.engine.interleaved import LaneEngine
from streampipe.engine.lanes import Head, Shape, Stream, Tail, Work
from streampipe.engine.mix import ConcatDataset, MixDataset, MixedBuckets, MixSamples, Part
from streampipe.engine.streams import PlannedStream
from streampipe.errors import ConfigError, ShardError
from streampipe.plan.ask import Uncounted
from streampipe.plan.bucketed import BucketDataset, Bucketed, BucketPlan, make_plan
from streampipe.plan.dataset import Dataset
from streampipe.plan.lanes import Lanes, sensible_window
from streampipe.plan.planned import Plan, make
from streampipe.plan.streams import choose_streams
from streampipe.reading.shards import ShardSamples
from streampipe.spec import AnyStage, Job, Spec
from streampipe.stages.stage import pushdown_of, traits_of
from streampipe.stages.where import nothing_left
from streampipe.traits import Group, Keeps, Limit

_SHARDS_TO_BLAME = 100
"""How many shards are looked at to say why a condition keeps nothing."""
_PLACES, _COLUMNS = 48, 12
_FEW_PLACES = 4


def compile(spec: Spec, job: Job) -> Engine[Any]:
    """What runs a pass of a pipeline in a job. The first call may have to look at every shard.

    Raises:
        ConfigError: ``tier="planned"`` was asked for and cannot be, or no engine can run the chain.
    """
    division = divide(spec.chain)
    wanted = getattr(spec.source, "tier", None) == "planned"
    if wanted and division.head and not isinstance(spec.source, MixSamples):
        raise ConfigError(f"tier='planned' cannot be: {division.why}")
    try:
        plan = plan_of(spec, division, job)
    except OnlyCounted:
        division = division.unpushed()
        plan = plan_of(spec, division, job)
    except Uncounted as reason:
        if wanted:
            raise ConfigError(f"tier='planned' cannot be: {reason}") from None
        return _streamed(spec, division.unpushed(), job, str(reason))
    if not division.head:
        return IndexedEngine(spec, plan, division, _level(plan))
    return _planned_lanes(spec, division, job, plan)


def _level(plan: Plan) -> Level:
    return Level.COUNTED if any(part.forward for part in plan.dataset.parts()) else Level.INDEXED


# Plans


def plan_of(spec: Spec, division: Division, job: Job) -> Plan:
    """The plan of a pass.

    Raises:
        Uncounted: samples cannot be counted without reading them.
    """
    source = spec.source
    if isinstance(source, MixSamples):
        return _of_mix(spec, source, division, job)
    if not isinstance(source, ShardSamples):
        raise Uncounted("the samples come from an iterable")
    if source.tier == "sequential":
        raise Uncounted("tier='sequential' was asked for")
    try:
        dataset: Any = _dataset(source, division)
    except ShardError as error:
        if spec.policy.mode == "raise":
            raise
        raise Uncounted(f"a shard is damaged, and its readable samples are wanted ({error})") from error
    if division.keep and not dataset.samples:
        raise _nothing_kept(source, division)
    if division.limit is not None:
        dataset = dataset.limited(division.limit.first, division.limit.last)
    text = division.keep.text if division.keep else ""
    if isinstance(dataset, BucketDataset):
        return _with_buckets(spec, dataset, division, job, source.window, source.sensible)
    size = (division.batch or 1) * job.world_size
    plan = make(dataset, size, source.window, spec.seed, _tail(division, job), text, source.sensible)
    return _read_forward(plan) if dataset.forward and plan.shuffled else plan


def _read_forward(plan: Plan) -> Plan:
    """The plan in lanes that can be divided among readers, because a shard that is read forward should have one."""
    lanes = plan.lanes
    chosen = choose_streams(lanes.size, len(plan.dataset.shards))
    window = sensible_window(chosen.places) if plan.sensible else lanes.window
    return replace(plan, lanes=replace(lanes, places=chosen.places, columns=chosen.columns, window=window))


def _dataset(source: ShardSamples, division: Division) -> Dataset | BucketDataset:
    """The samples as far as they are known: by an index, or, if nothing is asked of it, by another tool's counts."""
    try:
        return source.dataset(division.keep, division.group.buckets if division.group else None)
    except Uncounted as reason:
        try:
            counted = source.counted()
        except Uncounted:
            raise reason from None
        if division.pushed and not all(isinstance(pushdown_of(stage), Limit) for stage in division.pushed):
            raise OnlyCounted(str(reason)) from None
        return counted


class OnlyCounted(Uncounted):
    """Samples are counted, but the chain asks an index for more."""


def _tail(division: Division, job: Job) -> str:
    return job.tail or division.last


def _nothing_kept(source: ShardSamples, division: Division) -> Exception:
    assert division.keep is not None
    seen, reasons, there = 0, Counter[str](), set[str]()
    for each in filter(None, map(source.finder.find, source.shards[:_SHARDS_TO_BLAME])):
        seen, reasons = seen + len(each), reasons + division.keep.reasons(each)
        there.update(each.fact_names)
    return nothing_left(division.keep.text, seen, reasons, division.keep.names(there), there)


def _with_buckets(
    spec: Spec, dataset: Bucketed, division: Division, job: Job, window: int | None, sensible: bool
) -> BucketPlan:
    group = division.group
    assert group is not None
    if job.tail is not None:
        raise ConfigError("tail= has no meaning with buckets: say bucket(tail='carry' | 'merge' | 'drop')")
    if spec.policy.mode == "raise":
        dataset.check_sized()
    text = division.keep.text if division.keep else ""
    plan = make_plan(
        dataset,
        division.sizes,
        job.world_size,
        window,
        spec.seed,
        text,
        sensible,
        group.tail,
        group.same is not False,
    )
    plan.check_epochs(spec.epochs)
    return plan


def _of_mix(spec: Spec, source: MixSamples, division: Division, job: Job) -> Plan:
    if division.keep:
        raise ConfigError("where stands behind mix; put it into the parts")
    parts = []
    for each in source.parts:
        inner, plan = check_part(each)
        dataset: Any = plan.dataset
        if division.group:
            dataset = each.source.dataset(inner.keep, division.group.buckets)
        parts.append(Part(dataset, each.seed, each.source.window, inner.tail, plan.filter, plan.sensible))
    if division.group:
        mixed = MixedBuckets(parts, source.weights, source.repeats)
        return _with_buckets(spec, mixed, division, job, None, False)
    size = (division.batch or 1) * job.world_size
    mixture = (ConcatDataset if source.in_turn else MixDataset)(parts, source.weights, source.repeats)
    if division.limit is not None:
        mixture = mixture.limited(division.limit.first, division.limit.last)
    return Plan(mixture, Lanes(mixture.samples, size, tail=_tail(division, job)), spec.seed, False)


def check_part(spec: Spec, whole: str = "the mixture") -> tuple[Division, Plan]:
    """A part of a mixture or the like, planned.

    Raises:
        ConfigError: it cannot be.
    """
    division = divide(spec.chain)
    try:
        if division.head:
            raise Uncounted(division.why)
        plan = plan_of(spec, division, Job())
    except Uncounted as reason:
        raise ConfigError(f"a part of {whole} cannot be planned: {reason}") from None
    if division.group:
        raise ConfigError(f"a part of {whole} has buckets; put bucket behind it")
    return division, plan


# Lanes


def _planned_lanes(spec: Spec, division: Division, job: Job, plan: Plan) -> LaneEngine:
    lanes = plan.lanes
    if division.pools or isinstance(plan, BucketPlan):
        shape, elastic = Shape(job.world_size, job.readers), False
    elif plan.shuffled and lanes.places >= _FEW_PLACES:
        shape, elastic = Shape(lanes.places, lanes.columns), True
    else:  # any numbers will do, so such that many numbers of ranks and workers divide
        most = max(1, lanes.samples // (4 * lanes.size))
        places = max(_divisors(lanes.size, _PLACES), key=lambda a: (len(_divisors(a)), a))
        shape, elastic = Shape(places, max(t for t in _divisors(_COLUMNS) if t <= most)), True
    facts = {"data": f"{plan.dataset.fingerprint} {plan.filter} {plan.lanes.window if plan.shuffled else None}"}
    whole = replace(plan, lanes=replace(lanes, tail="short"))
    return _engine(spec, division, job, shape, elastic, PlannedStream(whole, shape), _level(plan), division.why, facts)


def _streamed(spec: Spec, division: Division, job: Job, why: str) -> LaneEngine:
    source = spec.source
    size = (division.batch or 1) * job.world_size
    shape, elastic = Shape(job.world_size, job.readers), False
    stream: Any = source
    facts = {"data": repr(source)}
    if isinstance(source, ShardSamples) and source.window is not None and not division.pools:
        chosen = choose_streams(size, len(source.shards))
        found = Shape(chosen.places, chosen.columns)
        if found.number >= job.world_size * job.readers:
            shape, elastic, stream = found, found.fits(job.world_size), source.in_lanes(found.places)
    return _engine(spec, division, job, shape, elastic, stream, Level.STREAMED, why, facts)


def _divisors(number: int, most: int | None = None) -> list[int]:
    return [d for d in range(1, min(number, most or number) + 1) if number % d == 0]


def _engine(
    spec: Spec,
    division: Division,
    job: Job,
    shape: Shape,
    elastic: bool,
    stream: Stream,
    level: Level,
    why: str,
    facts: dict[str, Any],
) -> LaneEngine:
    if division.pools:
        _check_pools(division, job)
    if division.batch is None:  # a tail over single samples would start anew for each, and its threads with it
        division = replace(division, head=(*division.head, *division.tail), tail=())
    chain = (*division.head, *division.tail)
    views = takes_views(chain)
    cut = len(division.head)
    head = Head(division.head, None if views is None or views >= cut else views)
    tail = Tail(division.tail, None if views is None or views < cut else views - cut, division.head)
    tail_policy = _tail(division, job)
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
    facts = {**facts, "pipeline": describe(spec.source, division.head)}
    return LaneEngine(spec, work, level, why, facts, elastic)


def _check_pools(division: Division, job: Job) -> None:
    """Refuse a promise about buckets of all ranks that nobody can keep without counts."""
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
