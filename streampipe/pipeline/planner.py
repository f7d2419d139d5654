"""The planner: what a pipeline's batches are, in integers, or why nobody can know."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from streampipe.errors import ConfigError, ShardError
from streampipe.index.known import known_samples
from streampipe.pipeline.mix import ConcatDataset, MixDataset, MixedBuckets, MixSamples, Part
from streampipe.pipeline.passes import Division, divide
from streampipe.plan.bucketed import BucketDataset, Bucketed, BucketPlan, make_plan
from streampipe.plan.dataset import Uncounted
from streampipe.plan.lanes import Lanes
from streampipe.plan.planned import Plan, make
from streampipe.reading.shards import ShardSamples
from streampipe.stages.where import nothing_left

if TYPE_CHECKING:
    from streampipe.pipeline.pipeline import Pipeline

_SHARDS_TO_BLAME = 100
"""How many shards are looked at to say why a condition keeps nothing."""


def planned(pipe: Pipeline, world_size: int, tail: str | None) -> tuple[Plan, Division] | str:
    """The plan of a pass of ``world_size`` ranks, or the reason why there can be none."""
    source = pipe.source
    if isinstance(source, MixSamples):
        return _of_mix(pipe, source, world_size, tail)
    if not isinstance(source, ShardSamples):
        return "the samples come from an iterable"
    if source.tier == "sequential":
        return "tier='sequential' was asked for"
    division = divide(pipe.chain)
    if isinstance(division, str):
        return division
    try:
        dataset = source.dataset(division.keep, division.group.buckets if division.group else None)
    except Uncounted as reason:
        return str(reason)
    except ShardError as error:
        if pipe.policy.mode == "raise":
            raise
        return f"a shard is damaged, and its readable samples are wanted ({error})"
    if division.keep and not dataset.samples:
        indexes = filter(None, map(source.finder.find, source.shards[:_SHARDS_TO_BLAME]))
        seen, reasons, there = 0, Counter[str](), set[str]()
        for each in indexes:
            seen, reasons = seen + len(each), reasons + division.keep.reasons(each)
            there.update(each.fact_names)
        raise nothing_left(division.keep.text, seen, reasons, division.keep.names(there), there)
    text = division.keep.text if division.keep else ""
    if isinstance(dataset, BucketDataset):
        window, sensible = source.window, source.sensible
        return _with_buckets(pipe, dataset, division, world_size, tail, window, sensible), division
    size = (division.batch or 1) * world_size
    tail = tail or division.tail
    plan = make(dataset, size, source.window, pipe.seed, tail, text, source.sensible)
    return plan, division


def _with_buckets(
    pipe: Pipeline,
    dataset: Bucketed,
    division: Division,
    ranks: int,
    tail: str | None,
    window: int | None,
    sensible: bool,
) -> BucketPlan:
    group = division.group
    assert group is not None
    if tail is not None:
        raise ConfigError("tail= has no meaning with buckets: say bucket(tail='carry' | 'merge' | 'drop')")
    if pipe.policy.mode == "raise":
        dataset.check_sized()
    text = division.keep.text if division.keep else ""
    plan = make_plan(
        dataset, division.sizes, ranks, window, pipe.seed, text, sensible, group.tail, group.same is not False
    )
    plan.check_epochs(pipe.epochs)
    return plan


def _of_mix(pipe: Pipeline, source: MixSamples, world_size: int, tail: str | None) -> tuple[Plan, Division] | str:
    division = divide(pipe.chain)
    if isinstance(division, str) or division.keep:
        return division if isinstance(division, str) else "where stands behind mix; put it into the parts"
    parts = []
    for each in source.pipes:
        found = planned(each, 1, None)
        if isinstance(found, str):
            return f"a part of the mixture is not planned: {found}"
        plan, inner = found
        if inner.group:
            return "a part of the mixture has buckets; put bucket behind mix"
        dataset = plan.dataset
        if division.group:
            dataset = each.source.dataset(inner.keep, division.group.buckets)
        parts.append(Part(dataset, each.seed, each.source.window, inner.stages, plan.filter, plan.sensible))
    if division.group:
        mixed = MixedBuckets(parts, source.weights, source.repeats)
        return _with_buckets(pipe, mixed, division, world_size, tail, None, False), division
    size = (division.batch or 1) * world_size
    mixture = (ConcatDataset if source.in_turn else MixDataset)(parts, source.weights, source.repeats)
    tail = tail or division.tail
    return Plan(mixture, Lanes(mixture.samples, size, tail=tail), pipe.seed, False), division


def known_items(pipe: Pipeline) -> int | None:
    """Items of an epoch where a file of another tool beside the shards says how many samples there are, and stages
    keep that number; in batches where the chain has one.
    """
    division = divide(pipe.chain)
    if isinstance(division, str) or division.keep or division.group or not isinstance(pipe.source, ShardSamples):
        return None
    total = known_samples(pipe.source.shards, pipe.source.source)
    return None if total is None else total // (division.batch or 1)
