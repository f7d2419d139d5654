"""``explain``: what a pipeline will do, before it does it."""

from __future__ import annotations

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
    pushed = ([f"where {division.keep.text}"] if division.keep else []) + (
        [f"batch({division.batch})"] if division.batch else []
    )
    readers = max(1, world_size * max(1, num_workers))
    alone = lanes.places % world_size == 0 and lanes.columns % max(1, num_workers) == 0
    mean = max(1, lanes.samples // max(1, len(dataset.shards)))
    mine = lanes.number if not alone else max(1, lanes.number // readers)
    open_at_once = min(len(dataset.shards), mine * (2 + lanes.window // mean))
    last = lanes.samples % lanes.size
    tail = f"the last batch has {last} samples" if last and lanes.tail == "short" else f"tail={lanes.tail}"
    rows = [
        ("tier", "planned: the samples are counted"),
        ("pushed down", _names(pushed)),
        ("generators", _names([name_of(stage, parameters=True) for stage in division.stages])),
        ("samples", f"{lanes.samples:,} in {len(dataset.shards):,} shards"),
        ("steps", f"{plan.batches:,} an epoch on each of {world_size} ranks, {lanes.size} samples each in all; {tail}"),
        ("order", f"{lanes.places} x {lanes.columns} lanes, window {lanes.window:,}" if plan.shuffled else "as listed"),
        ("shards open", f"about {open_at_once} at once in each of {readers} readers"),
        (
            "guarantees",
            "every sample once an epoch; equal steps; the same batches on any ranks and workers; O(1) resume",
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


def _bytes(pipe: Pipeline) -> float | None:
    """An epoch's bytes, from the first shard's size; None where the store does not say."""
    if not isinstance(pipe.source, ShardSamples):
        return None
    shards = pipe.source.shards
    size = pipe.source.finder.source.size(shards[0])
    return None if size is None else float(size) * len(shards)


def _names(names: list[str]) -> str:
    return ", ".join(names) or "nothing"
