"""``explain``: what a pipeline will do, before it does it."""

from __future__ import annotations

from typing import Any

from streampipe.context import Consumer
from streampipe.engine.bounds import bounds_of, has_own_lanes, lanes_of, words
from streampipe.engine.chain import name_of
from streampipe.engine.compile import opaque_in
from streampipe.engine.division import Division
from streampipe.engine.engine import Engine, Level
from streampipe.engine.indexed import IndexedEngine
from streampipe.engine.interleaved import LaneEngine
from streampipe.engine.lanes import Shape
from streampipe.plan.batchwise import BatchPlan
from streampipe.plan.bucket_plan import BucketPlan
from streampipe.plan.buckets import name_of as bucket_name
from streampipe.plan.clips import ClipKeep
from streampipe.plan.pack_plan import ABOVE, PackPlan
from streampipe.plan.planned import Plan
from streampipe.plan.schedule import columns_of, draw
from streampipe.plan.stepped import StepPlan
from streampipe.query.condition import Keep
from streampipe.reading.prefetch import EARLY
from streampipe.spec import Job, Spec
from streampipe.stages.grouping import find_groups
from streampipe.stages.stage import pushdown_of
from streampipe.traits import Filter, Limit


def explain(engine: Engine[Any], job: Job, steps_per_epoch: int | None = None) -> str:
    """The level and why, what was pushed into the plan, what runs as generators, what is guaranteed, and numbers."""
    spec = engine.spec
    rows = [("source", repr(spec.source))]
    rows += _row("reads", _fields_read(spec))
    if isinstance(engine, IndexedEngine):
        rows += _planned(engine, job)
    elif isinstance(engine, LaneEngine):
        rows += _lanes(engine, job, steps_per_epoch)
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in rows)


def _lanes(engine: LaneEngine, job: Job, steps_per_epoch: int | None) -> list[tuple[str, str]]:
    spec, work = engine.spec, engine.work
    shape, ranks = work.shape, job.world_size
    lift = "" if engine.level is Level.INDEXED else spec.source.lift(engine.level is Level.COUNTED)
    head, tail = _stage_names(work.head.chain), _stage_names(work.tail.chain)
    of_rank = len(shape.columns_of(0, ranks))
    used = engine.stride(Consumer(0, ranks, 0, job.readers))
    rows = [
        ("level", f"{engine.level.value}{_SAMPLES[engine.level]}{'; ' + lift if lift else ''}"),
        ("not planned", engine.why),
        ("in each lane", _names(head)),
        ("on each batch", _names(tail)),
        ("order", _order(engine, job)),
        ("resume", f"exact; {_resume(engine)}"),
        ("holds", str(bounds_of(engine, job))),
    ]
    if shape.number > 1 and any(isinstance(pushdown_of(stage), Limit) for stage in work.head.chain):
        rows.append(("take, skip", f"each of {shape.number} lanes counts its share; {_EXACT}"))
    if used < job.num_workers:
        divide = ", ".join(str(w) for w in range(1, of_rank + 1) if of_rank % w == 0)
        rows.append(("workers", f"{job.num_workers - used} of {job.num_workers} stay idle: {divide} would be used"))
    if ranks > 1 and spec.epochs is not None and steps_per_epoch is None and engine.length(0, 1) is None:
        rows.append(("several ranks", "need loader(steps_per_epoch=n)"))
    given = [push.condition for stage in spec.chain if isinstance(push := pushdown_of(stage), Filter)]
    return rows + _row("names", ", ".join(filter(None, (each.names() for each in given))))


_EXACT = "in one process they are exact, in passes that end (epochs=n, without steps_per_epoch)"
_SAMPLES = {
    Level.INDEXED: ": it is known where each sample is",
    Level.COUNTED: ": it is known how many samples each shard has",
    Level.STREAMED: ": nothing is known of the samples before they are read",
}


def _order(engine: LaneEngine, job: Job) -> str:
    shape = engine.work.shape
    if engine.work.stream.together and shape.fits(job.world_size):
        return (
            f"{shape.places} x {shape.columns} lanes; the same batches on any ranks that divide {shape.places} and "
            f"workers that divide {shape.columns}"
        )
    if shape == Shape(job.world_size, job.readers):
        return "each reader has a stream of its own; another number of ranks or workers is another order"
    return (
        f"{shape.places} x {shape.columns} lanes, assigned to {job.world_size} ranks one after the other, because "
        f"those do not divide {shape.places}: another order than on other ranks"
    )


def _resume(engine: LaneEngine) -> str:
    work = engine.work
    if find_groups(work.head.chain)[1] is not None:
        return (
            "an epoch is read again from its beginning, because samples wait in the pools of bucket; what was yielded "
            "is not decoded again"
        )
    reason = opaque_in(work.stream, work.head.chain)
    if reason is not None:
        return f"each lane is replayed from the beginning of its epoch, because {reason}"
    return "from where each lane stopped, or where the shuffle's window before it begins"


def _stage_names(chain: Any) -> list[str]:
    return [name_of(stage, parameters=True) for stage in chain]


def _planned(engine: IndexedEngine, job: Job) -> list[tuple[str, str]]:
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
        ("level", f"{engine.level.value}{_SAMPLES[engine.level]}: batches are planned{'; ' + lift if lift else ''}"),
        ("pushed down", _names(pushed)),
        ("generators", _names([name_of(stage, parameters=True) for stage in division.tail])),
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
    rows += _row("names", _names_meant(spec, division))
    return rows + _reading(spec, plan, world_size, mine, alone)


def _fields_read(spec: Spec) -> str:
    read = spec.source.fields_read
    return f"no other fields than {', '.join(sorted(read))}" if read else ""


def _row(name: str, text: str) -> list[tuple[str, str]]:
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
    return rows + _row("  ...", f"{len(firsts) - _POINTS:,} points more" if len(firsts) > _POINTS else "")


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


def _reading(spec: Spec, plan: Plan, world_size: int, mine: int, alone: bool) -> list[tuple[str, str]]:
    """How the bytes are read, how many they are, and whether a cache would pay."""
    parts = plan.dataset.parts()
    sizes = [part.size for part in parts if part.size is not None]
    wanted, whole = sum(size.wanted for size in sizes), sum(size.shards for size in sizes)
    samples = max(1, sum(part.samples for part in parts))
    epoch = words(wanted * plan.lanes.samples / samples)
    share = (
        f" in all, {words(wanted * plan.lanes.samples / samples / world_size)} by each rank" if world_size > 1 else ""
    )
    rows = [("bytes", f"{epoch} an epoch{share}")] if len(sizes) == len(parts) else []
    remote = [part for part in parts if part.is_remote]
    forward = any(part.forward for part in parts)
    if not remote or forward:
        how = "each shard front to back, in its lane" if forward else "each sample when it is wanted"
        return [*rows, ("reading", f"{'remote' if remote else 'local'}: {how}")]
    source = remote[0].finder.source
    if source.cache is not None:
        text = (
            f"through the cache: each shard is copied once a machine ({words(whole)} for all), samples come from there"
        )
        return [*rows, ("reading", text)]
    rows += [("requests", _requests(plan, wanted / samples, source.network.window))] if wanted else []
    text = _ahead(plan, wanted / samples, mine, alone, wanted < whole / 2, source.network.memory)
    pays = "now" if spec.epochs != 1 else "from the second epoch on"
    extra = f", though it fetches whole shards where {words(wanted)} are wanted" if wanted < whole / 2 else ""
    return [
        *rows,
        ("reading", f"ahead of need: {text}"),
        ("cache", f"none; cache= would pay {pays}, with {words(whole)} of disk for all shards{extra}"),
    ]


def _requests(plan: Plan, mean: float, window: int) -> str:
    """How many requests for bytes an epoch costs all ranks: that depends on the link, but lies between two numbers."""
    parts, samples = plan.dataset.parts(), plan.lanes.samples
    shards = min(samples, sum(len(part.shards) for part in parts))
    least = max(shards, -(-int(samples * mean) // window))
    return (
        f"{least:,} to {samples:,} an epoch, by how much more the link has than is taken: at least a window of "
        f"{words(window)} or a shard each, at most a sample each"
    )


def _ahead(plan: Plan, mean: float, mine: int, alone: bool, few: bool, memory: int) -> str:
    """What becomes of the requests of a reader, from what its lanes would hold."""
    if few:
        return "exactly the samples that are kept, neighbours together"
    if not alone:
        return "each reader the samples that it needs, neighbours together"
    held = mine * plan.lanes.window / 2 * mean
    if held > EARLY * memory:
        return (
            f"windows of {mine} lanes are {words(held)} in each reader, more than Network(memory={memory >> 20} << 20) "
            f"has room for, so some samples come one by one; more workers or memory, or a smaller shuffle, need fewer "
            f"requests"
        )
    return f"strictly forward in {mine} lanes, each byte once; about {words(held)} wait in each reader"


def _names(names: list[str]) -> str:
    return ", ".join(names) or "nothing"
