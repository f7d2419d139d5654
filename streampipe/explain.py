"""``explain``: what a pipeline will do, before it does it."""

from __future__ import annotations

from streampipe.bucketed import BucketDataset, BucketPlan
from streampipe.chain import name_of
from streampipe.condition import Condition
from streampipe.passes import Division
from streampipe.pipeline import Pipeline
from streampipe.planned import Plan
from streampipe.progress import replayed
from streampipe.shards import ShardSamples
from streampipe.stages.stage import Stage


def explain(pipe: Pipeline, world_size: int, num_workers: int, found: tuple[Plan, Division] | str) -> str:
    """The tier and why, what was pushed into the plan, what runs as generators, what is guaranteed, and the numbers."""
    rows = [("source", repr(pipe.source))]
    if isinstance(found, str):
        rows += [
            ("tier", f"sequential: {found}"),
            ("generators", _names([name_of(stage, parameters=True) for stage in pipe.chain])),
            ("order", "each consumer reads whole shards; another number of ranks or workers is another order"),
            ("resume", f"exact on the same ranks and workers, dealt again on others; {_resume(pipe)}"),
            ("several ranks", "need loader(steps_per_epoch=n)"),
        ]
        given = [stage.parameters.get("condition") for stage in pipe.chain if isinstance(stage, Stage)]
        rows += _row("names", ", ".join(each.names() for each in given if isinstance(each, Condition) and each.names()))
    else:
        rows += _planned(pipe, world_size, num_workers, *found)
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in rows)


def _resume(pipe: Pipeline) -> str:
    reason = replayed(pipe)
    if reason is not None:
        return f"it goes again through what was read, because {reason}"
    return "from the shard where it stopped, or where the shuffle's window before it begins"


def _planned(
    pipe: Pipeline, world_size: int, num_workers: int, plan: Plan, division: Division
) -> list[tuple[str, str]]:
    lanes, dataset = plan.lanes, plan.dataset
    pushed = [f"where {division.keep.text}"] if division.keep else []
    pushed += [repr(division.bucket)] if division.bucket else []
    pushed += [f"batch({_sizes(division)})"] if division.batch else []
    readers = max(1, world_size * max(1, num_workers))
    alone = lanes.places % world_size == 0 and lanes.columns % max(1, num_workers) == 0
    mean = max(1, lanes.samples // max(1, len(dataset.shards)))
    mine = lanes.number if not alone else max(1, lanes.number // readers)
    open_at_once = min(len(dataset.shards), mine * (2 + lanes.window // mean))
    rows = [
        ("tier", "planned: the samples are counted"),
        ("pushed down", _names(pushed)),
        ("generators", _names([name_of(stage, parameters=True) for stage in division.stages])),
        ("samples", f"{lanes.samples:,} in {len(dataset.shards):,} shards"),
        *(_buckets(plan) if isinstance(plan, BucketPlan) else [("steps", _steps(plan, world_size))]),
        ("order", f"{lanes.places} x {lanes.columns} lanes, window {lanes.window:,}" if plan.shuffled else "as listed"),
        ("shards open", f"about {open_at_once} at once in each of {readers} readers"),
        (
            "guarantees",
            f"{_cover(plan)}; equal steps; the same batches on any ranks and workers; O(1) resume",
        ),
        ("lanes", "each has one reader" if alone else "some are read by several readers: same batches, more opens"),
    ]
    rows += _row("names", _names_meant(pipe, division))
    size = _bytes(pipe)
    return rows if size is None else [*rows, ("bytes", f"about {size / 1e9:,.2f} GB an epoch")]


def _row(name: str, text: str) -> list[tuple[str, str]]:
    return [(name, text)] if text else []


def _names_meant(pipe: Pipeline, division: Division) -> str:
    """What the names of the conditions stand for in the first shard."""
    if division.keep is None or not isinstance(pipe.source, ShardSamples):
        return ""
    found = pipe.source.finder.find(pipe.source.shards[0])
    return "" if found is None else division.keep.names(found.fact_names)


def _steps(plan: Plan, world_size: int) -> str:
    lanes = plan.lanes
    last = lanes.samples % lanes.size
    tail = f"the last batch has {last} samples" if last and lanes.tail == "short" else f"tail={lanes.tail}"
    return f"{plan.batches:,} an epoch on each of {world_size} ranks, {lanes.size} samples each in all; {tail}"


def _sizes(division: Division) -> str:
    """Samples of a rank's batch, or the least and the most where buckets have their own."""
    least, most = min(division.sizes, default=division.batch), division.batch
    return str(most) if least == most else f"{least} to {most}"


def _buckets(plan: BucketPlan) -> list[tuple[str, str]]:
    """Steps, leftovers, what is dropped, and the histogram, of the first epoch."""
    groups, dataset = plan.groups, plan.dataset
    assert isinstance(dataset, BucketDataset)
    merged = f", {len(groups.merged)} of them of merged leftovers" if groups.merged else ""
    where = "a step is one bucket on all ranks" if plan.same else f"each of {plan.ranks} ranks has its own bucket"
    left = {"carry": "for the next epoch", "merge": "to be merged", "drop": "left out"}[groups.leftover]
    rows = [("steps", f"{plan.batches_in(0):,} in the first epoch on each of {plan.ranks} ranks{merged}; {where}")]
    rows += [("dropped", f"{number:,} samples {what}") for what, number in dataset.dropped.items() if number]
    if dataset.misstated:
        rows += [
            ("json", f"{dataset.misstated:,} samples state another size than their image has; the image's is used")
        ]
    every = zip(groups.buckets.sizes, groups.samples, groups.full(0), groups.left_over, dataset.cut, strict=True)
    for (width, height), samples, full, over, lost in every:
        share = f"{samples / max(1, dataset.samples):.1%}".replace("%", " %")
        text = f"{samples:,} samples ({share}), {full:,} full batches, {over} {left}, {100 * lost:.1f} % cut away"
        rows += [(f"{width}x{height}", text)] if samples else []
    return rows


def _cover(plan: Plan) -> str:
    policy = plan.groups.leftover if isinstance(plan, BucketPlan) else "merge"
    return {
        "carry": "over epochs every sample as often as any other of its bucket, give or take one",
        "merge": "every sample once an epoch",
        "drop": "no sample twice an epoch",
    }[policy]


def _bytes(pipe: Pipeline) -> float | None:
    """An epoch's bytes, from the first shard's size; None where the store does not say."""
    if not isinstance(pipe.source, ShardSamples):
        return None
    shards = pipe.source.shards
    size = pipe.source.finder.source.size(shards[0])
    return None if size is None else float(size) * len(shards)


def _names(names: list[str]) -> str:
    return ", ".join(names) or "nothing"
