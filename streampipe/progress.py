"""Passes over a pipeline that know where they stand: what a pipeline's state is made of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from streampipe.context import Consumer, Run
from streampipe.errors import ConfigError
from streampipe.passes import Division, make_batches
from streampipe.planned import VERSION, Cursor, Plan

if TYPE_CHECKING:
    from streampipe.pipeline import Pipeline


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


class SequentialPass:
    """One consumer's pass in the sequential tier. It resumes by going through what was given out, without giving it."""

    def __init__(self, pipe: Pipeline, consumer: Consumer, state: Mapping[str, Any] | None) -> None:
        self._consumer = consumer
        self._description = description(pipe)
        epochs = pipe.epochs or 1
        self._given = 0
        if state is None:
            self._epoch = pipe._clock.begin(epochs)
        else:
            mine = sequential_state(self._description, pipe.seed, consumer, 0, 0)
            check_sequential(state, mine, ("streampipe", "tier", "seed", "rank", "pipeline"))
            _check_worker(state, consumer)
            self._epoch, self._given = state["epoch"], state["given"]
            pipe._clock.set(self._epoch)
            pipe._clock.begin(epochs)
        self._seed = pipe.seed
        self._items = pipe.run(consumer, self._epoch)

    def __iter__(self) -> Iterator[Any]:
        for item in islice(self._items, self._given, None):
            self._given += 1
            yield item

    def state(self) -> dict[str, Any]:
        """Plain JSON that counts what this consumer gave out."""
        return sequential_state(self._description, self._seed, self._consumer, self._epoch, self._given)


def description(pipe: Pipeline) -> str:
    """The pipeline in words that are the same in every process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(pipe))


def sequential_state(pipeline: str, seed: int, consumer: Consumer, epoch: int, given: int) -> dict[str, Any]:
    """The state of a consumer in the sequential tier."""
    state: dict[str, Any] = {
        "streampipe": VERSION,
        "tier": "sequential",
        "epoch": epoch,
        "given": given,
        "seed": seed,
        "pipeline": pipeline,
        "rank": [consumer.rank, consumer.world_size],
    }
    if consumer.num_workers > 1:
        state["worker"] = [consumer.worker, consumer.num_workers]
    return state


def check_sequential(
    state: Mapping[str, Any], mine: Mapping[str, Any], names: Iterable[str] = ("streampipe", "tier", "seed", "pipeline")
) -> None:
    """Refuse a state of another tier, seed or pipeline.

    Raises:
        ConfigError: it names both values.
    """
    for name in names:
        if state.get(name) != mine[name]:
            raise ConfigError(
                f"the state was saved with {name} {state.get(name)!r}, here it is {mine[name]!r}: without counts a "
                f"stream can only go on as it was; restore it, or make an index and start a new epoch"
            )


def _check_worker(state: Mapping[str, Any], consumer: Consumer) -> None:
    saved, mine = state.get("worker"), [consumer.worker, consumer.num_workers]
    sequential = state.get("tier") == "sequential"
    if (saved is not None and list(saved) != mine) or (saved is None and sequential and consumer.num_workers > 1):
        raise ConfigError(
            f"the state is of worker {(saved or [0, 1])[0]} of {(saved or [0, 1])[1]}, this is worker {mine[0]} of "
            f"{mine[1]}: keep the number of workers, or save and load with pipe.loader()"
        )
