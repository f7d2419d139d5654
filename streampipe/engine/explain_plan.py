"""What a planned pass will do, in words for ``explain``."""

from __future__ import annotations

from streampipe.engine.bounds import bounds_of, has_own_lanes, lanes_of
from streampipe.engine.chain import name_of
from streampipe.engine.division import Division
from streampipe.engine.engine import Level
from streampipe.engine.explain_reading import reading_rows
from streampipe.engine.indexed import IndexedEngine
from streampipe.plan.batchwise import BatchPlan
from streampipe.plan.bucket_plan import BucketPlan
from streampipe.plan.buckets import name_of as bucket_name
from streampipe.plan.clips import ClipKeep
from streampipe.plan.pack_plan import ABOVE, PackPlan
from streampipe.plan.planned import Plan
from streampipe.plan.schedule import columns_of, draw
from streampipe.plan.stepped import StepPlan
from streampipe.query.condition import Keep
from streampipe.spec import Job, Spec

KNOWN = {
    Level.INDEXED: ": it is known where each sample is",
    Level.COUNTED: ": it is known how many samples each shard has",
    Level.STREAMED: ": nothing is known of the samples before they are read",
}


def planned_rows(engine: IndexedEngine, job: Job) -> list[tuple[str, str]]:
    """The rows of a pass whose batches are decided in integers."""
    spec, plan, division = engine.spec, engine.plan, engine.division
    lanes, dataset, world_size = plan.lanes, plan.dataset, job.world_size
    lift = "" if engine.level is Level.INDEXED else spec.source.lift(True)
    pushed = [f"where {Keep(division.keep.conditions).text}"] if division.keep and division.keep.conditions else []
    pushed += [division.keep.clips.text] if isinstance(division.keep, ClipKeep) else []
    pushed += [name_of(division.bucket, parameters=True)] if division.bucket else []
    pushed += [f"batch({_sizes(division)})"] if division.batch else []
    pushed += [f"pack {division.pack.packing.text}"] if division.pack else []
    alone, mine = has_own_lanes(plan, job), lanes_of(plan, job)
    shards = sum(len(part.shards) for part in dataset.parts())  # a mixture's, too
    rows = [
        ("level", f"{engine.level.value}{KNOWN[engine.level]}: batches are planned{'; ' + lift if lift else ''}"),
        ("pushed down", listed(pushed)),
        ("generators", listed([name_of(stage, parameters=True) for stage in division.tail])),
        ("samples", f"{lanes.samples:,} in {shards:,} shards"),
        *_steps_and_groups(plan, world_size),
        *(_schedule(plan) if isinstance(plan, StepPlan) else []),
        (
            "order",
            f"{lanes.places} x {lanes.columns} lanes, window {lanes.window:,}" if plan.shuffled else _unshuffled(plan),
        ),
        ("holds", str(bounds_of(engine, job))),
        (
            "guarantees",
            f"{_cover(plan)}; equal steps; the same batches on any ranks and workers; O(1) resume",
        ),
        ("lanes", "each has one reader" if alone else f"some have several readers: same batches, {_better(plan)}"),
    ]
    rows += optional_row("names", _names_meant(spec, division))
    return rows + reading_rows(spec, plan, world_size, mine, alone)


def optional_row(name: str, text: str) -> list[tuple[str, str]]:
    """A row; none where there is nothing to say."""
    return [(name, text)] if text else []


def _names_meant(spec: Spec, division: Division) -> str:
    """What the names of the conditions stand for in the first shard."""
    if division.keep is None:
        return ""
    found = next(spec.source.indexes(), None)
    return "" if found is None else division.keep.names(found.fact_names)


def _steps(plan: Plan, world_size: int) -> str:
    lanes = plan.lanes
    if isinstance(plan, BatchPlan):
        return f"{plan.batches:,} in the first epoch on each of {world_size} ranks, each a batch of one part"
    if isinstance(plan, StepPlan):
        return f"{plan.batches:,} in the first epoch on each of {world_size} ranks, {lanes.size} samples each in all"
    last = lanes.samples % lanes.size
    tail = f"the last batch has {last} samples" if last and lanes.tail == "short" else f"tail={lanes.tail}"
    return f"{plan.batches:,} an epoch on each of {world_size} ranks, {lanes.size} samples each in all; {tail}"


def _schedule(plan: StepPlan) -> list[tuple[str, str]]:
    """The share of each part over the steps, drawn; and in numbers where it begins to change."""
    firsts = plan.rates.firsts
    last = firsts[-1] * 5 // 4 or plan.batches
    columns = columns_of(last)
    rows = [("schedule", f"steps 0 to {last:,}, from left to right; then as at the end")]
    shares = [plan.rates.at(step) for step in columns]
    for k, bar in enumerate(draw(list(zip(*shares, strict=True)))):
        rows += [(f"  part {k}", f"|{bar}| of {_of_part(plan, k)}")]
    for step, goes in zip(firsts[:_POINTS], map(plan.rates.goes, firsts), strict=False):
        at = " ".join(f"{float(100 * share):.3g}" for share in plan.rates.at(step))
        rows += [(f"  step {step:,}", f"{at} %{', changing up to the next' if goes else ''}")]
    return rows + optional_row("  ...", f"{len(firsts) - _POINTS:,} points more" if len(firsts) > _POINTS else "")


def _of_part(plan: StepPlan, part: int) -> str:
    """How much a part has."""
    number = plan.dataset.part_samples[part]
    if not isinstance(plan, BatchPlan):
        return f"{number:,} samples"
    own = plan.dataset.plans[part]
    if isinstance(own, PackPlan):
        return f"{own.lanes.samples:,} samples in {own.packs.number:,} packs"
    most = own.batch if isinstance(own.batch, int) else f"{min(own.batch)} to {max(own.batch)}"
    sizes = f", {len(own.groups.buckets)} buckets" if isinstance(own, BucketPlan) else ""
    return f"{own.lanes.samples:,} samples in {float(number):,.5g} batches of {most}{sizes}"


_POINTS = 12
"""Points of a schedule that are said in numbers."""


def _sizes(division: Division) -> str:
    """Samples of a rank's batch, or the least and the most where buckets have their own."""
    least, most = min(division.sizes, default=division.batch), division.batch
    return str(most) if least == most else f"{least} to {most}"


def _buckets(plan: BucketPlan) -> list[tuple[str, str]]:
    """Steps, leftovers, what is dropped, and the histogram, of the first epoch."""
    groups, dataset = plan.groups, plan.dataset
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
    rows += [
        (
            "buckets",
            f"{len(groups.buckets)} sizes, each as height x width{' x frames' if groups.buckets.frames else ''}",
        )
    ]
    for size, samples, full, over, lost in every:
        share = f"{samples / max(1, dataset.samples):.1%}".replace("%", " %")
        text = f"{samples:,} samples ({share}), {full:,} full batches, {over} {left}, {100 * lost:.1f} % cut away"
        rows += [(bucket_name(size).removeprefix("bucket "), text)] if samples else []
    return rows


def _steps_and_groups(plan: Plan, world_size: int) -> list[tuple[str, str]]:
    if isinstance(plan, BucketPlan):
        return _buckets(plan)
    return _packs(plan) if isinstance(plan, PackPlan) else [("steps", _steps(plan, world_size))]


def _packs(plan: PackPlan) -> list[tuple[str, str]]:
    """Steps, fill, and what is left out, of any epoch."""
    packs, dataset = plan.packs, plan.dataset
    mean = dataset.samples / max(1, packs.number)
    over = packs.number % plan.ranks
    last = f"; the last step shares the samples of {over} packs out over all" if over else ""
    whole = f"the same packs on any ranks, in steps that are whole on numbers that divide {packs.round}"
    rows = [
        ("steps", f"{plan.batches:,} an epoch on each of {plan.ranks} ranks, one pack each{last}"),
        (
            "packs",
            f"{packs.number:,} an epoch, of {mean:,.1f} samples on average, by {len(packs.costs)} classes of cost; "
            f"{whole}",
        ),
        ("fill", f"{dataset.fill:.1%} of the budget of {packs.budget:,}".replace("%", " %")),
    ]
    for what, number in ((ABOVE, dataset.left_out), ("skipped, cost above budget", dataset.over)):
        rows += [("dropped", f"{number:,} samples {what}")] if number else []
    return rows + ([("dropped", f"{dataset.unknown:,} samples without a cost")] if dataset.unknown else [])


def _unshuffled(plan: Plan) -> str:
    return "each part's own" if len(plan.dataset.parts()) > 1 else "as listed"


def _cover(plan: Plan) -> str:
    if isinstance(plan, PackPlan):
        mixed = len(plan.dataset.parts()) > 1
        return "each part has its share of the draws, exactly" if mixed else "every sample once an epoch"
    policy = plan.groups.leftover if isinstance(plan, BucketPlan) else plan.lanes.tail
    if isinstance(plan, BatchPlan):
        return "each part has its share of the batches at every step, within two, and its own plan gives them in order"
    if isinstance(plan, StepPlan):
        return "each part has its share of all draws at every step, within two; one that is used up begins anew"
    if len(plan.dataset.parts()) > 1:
        return "each part has its share of the draws, exactly"
    return {
        "carry": "over epochs every sample as often as any other of its bucket, give or take one",
        "merge": "every sample once an epoch",
        "short": "every sample once an epoch",
        "pad": "every sample once an epoch, those that fill its last batch twice",
        "drop": "no sample twice an epoch",
    }[policy]


def _better(plan: Plan) -> str:
    if isinstance(plan, (BucketPlan, PackPlan)):
        return "but a remote shard is asked by each of them (cache= keeps it on the machine)"
    columns = plan.lanes.columns
    return f"more requests; a number of workers that divides {columns} gives each lane one"


def listed(names: list[str]) -> str:
    """Names in a row of the table."""
    return ", ".join(names) or "nothing"
