"""Passes over a pipeline that know where they stand: what a pipeline's state is made of."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from streampipe.context import Consumer, Mark, Run, Trail
from streampipe.errors import ConfigError
from streampipe.pipeline.chain import name_of
from streampipe.pipeline.passes import Division, make_batches
from streampipe.plan.planned import VERSION, Cursor, Plan
from streampipe.reading.shards import ShardSamples
from streampipe.stages.grouping import find_groups
from streampipe.stages.stage import traits_of
from streampipe.traits import Keeps

if TYPE_CHECKING:
    from streampipe.pipeline.pipeline import Pipeline


def begin(pipe: Pipeline, plan: Plan, state: Mapping[str, Any] | None) -> tuple[Plan, Cursor]:
    """Where a planned pass begins: at a new epoch, or where a state says. The pass after it is the next epoch."""
    epochs = pipe.epochs or 1
    if state is None:
        epoch = pipe._clock.begin(epochs)
        return plan, Cursor(epoch, 0, None if pipe.epochs is None else epoch + epochs)
    plan, cursor = plan.load(state)
    pipe._clock.set(max(0, cursor.until - epochs) if cursor.until is not None else cursor.epoch)
    pipe._clock.begin(epochs)
    return plan, cursor


class PlannedPass:
    """One consumer's pass in the planned tier."""

    def __init__(
        self, pipe: Pipeline, plan: Plan, division: Division, consumer: Consumer, state: Mapping[str, Any] | None
    ) -> None:
        if state is not None:
            _check_worker(state, consumer)
        self.plan, cursor = begin(pipe, plan, state)
        self._run = Run(seed=pipe.seed, consumer=consumer, policy=pipe.policy.fresh())
        self._division = division
        self._ended = False
        # A worker's own next step: of a state that a worker saved, that is the step in it.
        self._cursor = cursor if state is not None and "worker" in state else self.plan.after(cursor, consumer.worker)

    def __iter__(self) -> Iterator[Any]:
        stride = self._run.consumer.num_workers
        for made in make_batches(self.plan, self._division, self._run, self._cursor, stride=stride):
            self._cursor = self.plan.after(made.after, stride - 1)
            yield from made.items
        self._ended = True

    def state(self) -> dict[str, Any]:
        """Plain JSON that names the next step of this consumer."""
        state = self.plan.state(self._cursor)
        consumer = self._run.consumer
        if consumer.num_workers > 1:
            state["worker"] = [consumer.worker, consumer.num_workers]
        return state


class Lane(NamedTuple):
    """The stream of one consumer in the sequential tier: how much of it was given out, and the mark behind that."""

    rank: int
    world_size: int
    worker: int
    num_workers: int
    given: int = 0
    at: Mark = None

    def rest(self, pipe: Pipeline, epoch: int, threads: int = 0, endless: bool = False) -> Iterator[tuple[Any, Lane]]:
        """What was not given out yet, each with the lane behind it.

        It begins at the mark. Where a stage is opaque there is none, and the stream is gone through from its beginning.
        """
        exact = opaque(pipe) is None
        trail = Trail()
        at = self.at if exact else None
        items = pipe.run(Consumer(*self[:4]), epoch, threads, endless, at, trail)
        if at is None:
            items = islice(items, self.given, None)
        for given, item in enumerate(items, self.given + 1):
            yield item, Lane(*self[:4], given, trail.mark if exact else None)


def replayed(pipe: Pipeline) -> str | None:
    """Why a sequential pass resumes by going again through what was read; None if it can begin where it stopped."""
    if find_groups(pipe.chain)[1] is not None:
        return opaque(pipe) or "samples wait in the pools of bucket; what was given out is not decoded again"
    return opaque(pipe)


def opaque(pipe: Pipeline) -> str | None:
    """Why there are no marks in a sequential pass, so that it resumes by making again all that it gave out.

    There are where every stage keeps nothing between the items it gives out (``batch`` ends with a batch, ``map`` with
    a sample), or only numbers (``shuffle``, ``take``, ``unbatch``): then everything follows from a place in the source.
    """
    if not isinstance(pipe.source, ShardSamples):
        return "the samples come from an iterable"
    for stage in pipe.chain:
        if traits_of(stage).state is Keeps.OPAQUE:
            return f"stage {name_of(stage, parameters=True)} may keep something between samples"
    return None


class SequentialPass:
    """One consumer's pass in the sequential tier."""

    def __init__(self, pipe: Pipeline, consumer: Consumer, state: Mapping[str, Any] | None) -> None:
        self._lane = Lane(consumer.rank, consumer.world_size, consumer.worker, consumer.num_workers)
        epochs = pipe.epochs or 1
        if state is None:
            epoch = pipe._clock.begin(epochs)
        else:
            check_sequential(state, pipe)
            self._lane, epoch = _only_lane(state, self._lane), state["epoch"]
            pipe._clock.set(epoch)
            pipe._clock.begin(epochs)
        self._common = sequential_state(pipe, epoch, consumer)
        self._items = self._lane.rest(pipe, epoch)

    def __iter__(self) -> Iterator[Any]:
        for item, lane in self._items:
            self._lane = lane
            yield item

    def state(self) -> dict[str, Any]:
        """Plain JSON: where this consumer's stream goes on."""
        return {**self._common, "lanes": [[list(self._lane)]]}


def description(pipe: Pipeline) -> str:
    """The pipeline in words that are the same in every process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(pipe))


def sequential_state(pipe: Pipeline, epoch: int, consumer: Consumer) -> dict[str, Any]:
    """A state in the sequential tier but for its ``lanes``: those of each worker, the one whose turn it is first."""
    return {
        "streampipe": VERSION,
        "tier": "sequential",
        "epoch": epoch,
        "seed": pipe.seed,
        "pipeline": description(pipe),
        "rank": [consumer.rank, consumer.world_size],
        "turn": 0,
    }


def check_sequential(state: Mapping[str, Any], pipe: Pipeline) -> None:
    """Refuse a state of another tier, seed or pipeline.

    Raises:
        ConfigError: it names both values.
    """
    mine = sequential_state(pipe, 0, Consumer())
    for name in ("streampipe", "tier", "seed", "pipeline"):
        if state.get(name) != mine[name]:
            raise ConfigError(
                f"the state was saved with {name} {state.get(name)!r}, here it is {mine[name]!r}: without counts a "
                f"stream can only go on as it was; restore it, or make an index and start a new epoch"
            )


def _only_lane(state: Mapping[str, Any], mine: Lane) -> Lane:
    """The lane of a state that was saved by the same consumer."""
    lanes = [Lane(*lane) for of_worker in state["lanes"] for lane in of_worker]
    if len(lanes) != 1 or lanes[0][:4] != mine[:4]:
        theirs = lanes[0] if len(lanes) == 1 else mine._replace(num_workers=len(lanes))
        raise ConfigError(
            f"the state is of rank {theirs.rank} of {theirs.world_size}, worker {theirs.worker} of "
            f"{theirs.num_workers}; this is rank {mine.rank} of {mine.world_size}, worker {mine.worker} of "
            f"{mine.num_workers}: keep the number of ranks and workers, or save and load with pipe.loader()"
        )
    return lanes[0]


def _check_worker(state: Mapping[str, Any], consumer: Consumer) -> None:
    saved, mine = state.get("worker"), [consumer.worker, consumer.num_workers]
    if saved is not None and list(saved) != mine:
        raise ConfigError(
            f"the state is of worker {saved[0]} of {saved[1]}, this is worker {mine[0]} of {mine[1]}: keep the number "
            f"of workers, or save and load with pipe.loader()"
        )
