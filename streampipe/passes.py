"""One pass of one consumer over a planned pipeline: batches with the cursor behind each.

A planned batch is made on its own: its samples are read, go through the chain together, and come out as one batch. So a
batch needs nothing but its number, and a sample that fails is replaced inside its own batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, NamedTuple

from streampipe.chain import AnyStage, name_of, takes_views, through
from streampipe.condition import Keep
from streampipe.context import Consumer, Run, Sample
from streampipe.counters import counters
from streampipe.errors import ShardError, TooManyErrors
from streampipe.planned import Cursor, Place, Plan
from streampipe.prefetch import Steps
from streampipe.reader import Reader
from streampipe.stages.stage import Stage

ONE_TO_ONE = ("map", "assign", "select", "rename", "decode", "caption", "join", "fit")
"""Stages of which a sample comes out for each that goes in, so that batches can be decided before them."""
_FEW_OPEN, _MOST_OPEN = 64, 256  # shards


@dataclass(frozen=True)
class Division:
    """A chain as the planner sees it: what is decided in integers, and what then runs as generators."""

    keep: Keep | None  # the conditions that the index answers
    stages: tuple[AnyStage, ...]
    batch: int | None  # samples of a rank's batch; None where the chain has no batch
    drop_last: bool = False


def divide(chain: Sequence[AnyStage]) -> Division | str:
    """The chain for the planner, or the reason why its batches cannot be decided before it runs."""
    size, drop_last = None, False
    pushed = list(takewhile(lambda stage: is_stage(stage, "where"), chain))
    for stage in chain[len(pushed) :]:
        if size is None and isinstance(stage, Stage) and is_stage(stage, "batch"):
            size, drop_last = stage.parameters["size"], bool(stage.parameters.get("drop_last"))
        elif not _one_to_one(stage, after_batch=size is not None):
            return f"stage {name_of(stage, parameters=True)} may give out more or fewer samples than it is given"
    conditions = tuple(stage.parameters["condition"] for stage in pushed if isinstance(stage, Stage))
    return Division(Keep(conditions) if conditions else None, tuple(chain[len(pushed) :]), size, drop_last)


def _one_to_one(stage: AnyStage, after_batch: bool) -> bool:
    return any(is_stage(stage, name) for name in (("map",) if after_batch else ONE_TO_ONE))


def is_stage(stage: AnyStage, name: str) -> bool:
    """Whether a stage is the library's own of that name."""
    return isinstance(stage, Stage) and stage.define.__module__ == f"streampipe.stages.{name}"


class Made(NamedTuple):
    """What a step gave (nothing where its only sample was skipped), and the cursor behind it."""

    items: list[Any]
    after: Cursor


def make_batches(
    plan: Plan, division: Division, run: Run, cursor: Cursor, first: int = 0, stride: int = 1
) -> Iterator[Made]:
    """A consumer's steps from ``cursor`` on: the ``first``, and every ``stride``-th after it."""
    run = replace(run, open_shards=open_shards(plan))
    views = takes_views(division.stages)
    chains = plan.dataset.chains
    with closing(read_steps(plan, run, cursor, first, stride, views is not None and chains is None)) as steps:
        for at, places, found in steps:
            samples = _good(places, found, run, chains)
            if division.batch and run.fill != len(places):
                run = replace(run, fill=len(places))
            items = list(through(division.stages, samples, run, views)) if division.stages else list(samples)
            if division.batch and len(items) != 1:
                raise TooManyErrors(
                    f"all {len(places)} samples of batch {at.step} of epoch {at.epoch} were skipped, so nothing is "
                    f"left to fill it with; check the data, or use on_error='raise' to see the first error"
                )
            yield Made(items, plan.after(at))


def read_batch(plan: Plan, epoch: int, step: int, run: Run, views: bool) -> Iterator[Sample]:
    """The samples of one global batch, those of all ranks."""
    chains = plan.dataset.chains
    alone = replace(run, consumer=Consumer())
    at = Cursor(epoch, step, epoch + 1)
    for _, places, found in read_steps(plan, alone, at, 0, plan.batches, views and chains is None):
        yield from _good(places, found, run, chains)


def read_steps(plan: Plan, run: Run, cursor: Cursor, first: int, stride: int, views: bool) -> Steps[Cursor]:
    """The steps with their places and, in the same order, their samples, or the error of each that failed."""
    consumer = run.consumer
    places = plan.dataset.places(plan, consumer.rank, consumer.world_size)
    steps = ((at, places(at.epoch, at.step)) for at in plan.steps(cursor, first, stride))
    return Reader(plan.dataset.parts(), max(_FEW_OPEN, open_shards(plan))).read(steps, views)


def open_shards(plan: Plan) -> int:
    """How many shards the samples of a plan come from at once."""
    if len(plan.dataset.parts()) > 1:
        return _MOST_OPEN
    window = plan.lanes.window * max(1, len(plan.dataset.shards)) // max(1, plan.lanes.samples)
    return min(_MOST_OPEN, plan.lanes.number * (2 + window))


def _good(
    places: Sequence[Place], found: Iterable[Sample | ShardError], run: Run, chains: Sequence[Any] | None
) -> Iterator[Sample]:
    """The samples that came, in a mixture through the stages of their part. Errors are up to the error policy."""
    for place, sample in zip(places, found, strict=True):
        if isinstance(sample, ShardError):
            run.policy.failed(sample, "reading")
            counters.add("reading", "samples skipped")
            continue
        run.policy.passed("reading")
        if chains is None:
            yield sample
        else:
            yield from through(chains[place.part], [sample], run, None)
