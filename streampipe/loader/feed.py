"""What travels between a loader's parent and its workers: the task of a pass one way, batches and counts the other.

The parent hears with every batch where its worker stands, so the state it gives out is that of the batches which
training has received. It takes one parcel from each worker in turn. A worker that has no more goes on sending empty
parcels until all are done: so whose turn it is follows from the number of batches alone, also after a resume.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch.utils.data import IterableDataset, get_worker_info

from streampipe.context import Consumer, Run
from streampipe.counters import Counts, counters
from streampipe.errors import ConfigError
from streampipe.lifeline import end_with_parent
from streampipe.pipeline.passes import Division, make_batches
from streampipe.pipeline.pipeline import Pipeline
from streampipe.pipeline.progress import Lane, begin, check_sequential, sequential_state
from streampipe.plan.planned import Cursor, Plan

NOTHING = "streampipe: no batch"
END = "streampipe: no more batches"


class Parcel(NamedTuple):
    """A batch on its way to the parent, with what its worker counted since the last one and where it goes on behind it:
    a planned pass at a cursor, a sequential one in the lane that the batch is of.
    """

    batch: Any
    counts: Counts
    after: Cursor | Lane | None = None

    def pin_memory(self) -> Parcel:
        """With the batch's tensors in pinned memory; torch calls this where ``pin_memory`` was asked for."""
        from torch.utils.data._utils.pin_memory import pin_memory

        return self._replace(batch=pin_memory(self.batch))  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class PlannedTask:
    """A pass in the planned tier: every worker takes its turn from ``cursor`` on."""

    plan: Plan
    division: Division
    cursor: Cursor


@dataclass(frozen=True)
class SequentialTask:
    """A pass in the sequential tier: each worker goes on with its lanes, in turn; ``turn`` says which worker begins.

    A worker has the one lane that is its own, or such as another job's consumers left.
    """

    epoch: int
    lanes: tuple[tuple[Lane, ...], ...]
    turn: int
    endless: bool


class Progress:
    """How far training has come in a pass."""

    taken = 0  # of a pass that steps_per_epoch cuts

    def add(self, parcel: Parcel) -> None:
        """A parcel was received."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """The state at this point."""
        raise NotImplementedError


class PlannedProgress(Progress):
    """The planned tier's: a cursor."""

    def __init__(self, plan: Plan, cursor: Cursor) -> None:
        self.plan = plan
        self.cursor = cursor

    def add(self, parcel: Parcel) -> None:
        """A parcel was received."""
        assert isinstance(parcel.after, Cursor)
        self.cursor = parcel.after

    def state(self) -> dict[str, Any]:
        """The state at this point."""
        return {**self.plan.state(self.cursor), "taken": self.taken}


class SequentialProgress(Progress):
    """The sequential tier's: where each worker's lanes go on, the next one first, and which worker's turn it is."""

    def __init__(self, common: dict[str, Any], task: SequentialTask) -> None:
        self.common = common
        self.lanes = [list(of_worker) for of_worker in task.lanes]
        self.turn = task.turn

    def add(self, parcel: Parcel) -> None:
        """A parcel was received."""
        if isinstance(lane := parcel.after, Lane):
            lanes = self.lanes[self.turn]
            at = [each[:4] for each in lanes].index(lane[:4])
            self.lanes[self.turn] = [*lanes[at + 1 :], *lanes[:at], lane]
        self.turn = (self.turn + 1) % len(self.lanes)

    def state(self) -> dict[str, Any]:
        """The state at this point."""
        lanes = [[list(lane) for lane in of_worker] for of_worker in self.lanes]
        return {**self.common, "turn": self.turn, "taken": self.taken, "lanes": lanes}


class Feed(IterableDataset[Parcel]):
    """The pipeline as a loader's dataset. The parent says what a pass is.

    Workers that start for a pass find its task in their copy. Persistent workers keep the copy of their first pass; for
    later ones they look for the epoch in shared memory, which the parent writes before it asks them to begin again.
    """

    def __init__(self, pipe: Pipeline, rank: int, world_size: int, threads: int) -> None:
        self.pipe = pipe
        self.rank = rank
        self.world_size = world_size
        self.threads = threads
        self.task: PlannedTask | SequentialTask | None = None
        self._shared: torch.Tensor = torch.zeros(3, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        self._passes = 0

    def lanes(self, workers: int) -> tuple[tuple[Lane, ...], ...]:
        """The lane of each worker, from its beginning."""
        return tuple((Lane(self.rank, self.world_size, worker, workers),) for worker in range(workers))

    def begin(self, task: PlannedTask | SequentialTask) -> None:
        """In the parent: the next pass is this one."""
        self.task = task
        if isinstance(task, PlannedTask):
            until = -1 if task.cursor.until is None else task.cursor.until
            self._shared.copy_(torch.tensor([task.cursor.epoch, task.cursor.step, until]))
        else:
            self._shared[0] = task.epoch

    def __iter__(self) -> Iterator[Parcel]:
        info = get_worker_info()
        task = self.task
        assert task is not None
        if info is not None and self._passes:
            epoch, step, until = self._shared.tolist()
            if isinstance(task, PlannedTask):
                task = replace(task, cursor=Cursor(epoch, step, None if until < 0 else until))
            else:
                task = replace(task, epoch=epoch, lanes=self.lanes(len(task.lanes)), turn=0)
        if info is not None and not self._passes:
            end_with_parent()
        self._passes += 1
        worker, num_workers = (info.id, info.num_workers) if info else (0, 1)
        return self._parcels(task, worker, num_workers, info is not None)

    def _parcels(
        self, task: PlannedTask | SequentialTask, worker: int, num_workers: int, in_worker: bool
    ) -> Iterator[Parcel]:
        if in_worker:
            counters.take()  # what a forked worker was born with is the parent's
        made: Iterator[tuple[Any, Cursor | Lane]] = (
            self._planned(task, worker, num_workers)
            if isinstance(task, PlannedTask)
            else self._sequential(task, worker, num_workers)
        )
        for batch, after in made:
            yield Parcel(batch, counters.take() if in_worker else {}, after)
        if isinstance(task, PlannedTask):
            if in_worker and (rest := counters.take()):
                yield Parcel(END, rest)
            return
        while in_worker:
            yield Parcel(END, counters.take())

    def _planned(self, task: PlannedTask, worker: int, num_workers: int) -> Iterator[tuple[Any, Cursor]]:
        consumer = Consumer(self.rank, self.world_size, worker, num_workers)
        run = Run(seed=self.pipe.seed, consumer=consumer, policy=self.pipe.policy.fresh(), threads=self.threads)
        for made in make_batches(task.plan, task.division, run, task.cursor, worker, num_workers):
            yield (made.items[0] if made.items else NOTHING), made.after

    def _sequential(self, task: SequentialTask, worker: int, num_workers: int) -> Iterator[tuple[Any, Lane]]:
        lanes = task.lanes[(worker + task.turn) % num_workers]
        return in_turn([lane.rest(self.pipe, task.epoch, self.threads, task.endless) for lane in lanes])


def begin_planned(
    pipe: Pipeline, feed: Feed, plan: Plan, division: Division, state: Mapping[str, Any] | None, endless: bool
) -> Progress:
    """Set up a planned pass: at a new epoch, or where a loader's state says."""
    plan, cursor = begin(pipe, plan, state)
    if endless:
        cursor = cursor._replace(until=None)
    feed.begin(PlannedTask(plan, division, cursor))
    progress = PlannedProgress(plan, cursor)
    progress.taken = int(state.get("taken", 0)) if state else 0
    return progress


def begin_sequential(
    pipe: Pipeline, feed: Feed, workers: int, states: Sequence[Mapping[str, Any]], endless: bool
) -> Progress:
    """Set up a sequential pass: at a new epoch, or where the states of a loader's ranks say."""
    epochs = pipe.epochs or 1
    for state in states:
        check_sequential(state, pipe)
    if states:
        task = _resumed(states, feed, workers, endless)
        pipe._clock.set(task.epoch)
        pipe._clock.begin(epochs)
    else:
        task = SequentialTask(pipe._clock.begin(epochs), feed.lanes(workers), 0, endless)
    feed.begin(task)
    common = sequential_state(pipe, task.epoch, Consumer(feed.rank, feed.world_size))
    progress = SequentialProgress(common, task)
    progress.taken = states[0].get("taken", 0) if states else 0
    return progress


def _resumed(states: Sequence[Mapping[str, Any]], feed: Feed, workers: int, endless: bool) -> SequentialTask:
    """The task that goes on where the states are: on the same consumers as it was, on others with the lanes dealt."""
    for state in states:
        if list(state["rank"]) == [feed.rank, feed.world_size] and len(state["lanes"]) == workers:
            lanes = tuple(tuple(Lane(*lane) for lane in of_worker) for of_worker in state["lanes"])
            return SequentialTask(state["epoch"], lanes, state["turn"], endless)
    ranks = states[0]["rank"][1]
    if len(states) != ranks or sorted(state["rank"][0] for state in states) != list(range(ranks)):
        raise ConfigError(
            f"the state was saved on {ranks} ranks with {len(states[0]['lanes'])} workers, this job has "
            f"{feed.world_size} with {workers}: to deal the streams again, load a list of the states of "
            f"all {ranks} ranks"
        )
    every = sorted(Lane(*lane) for state in states for of_worker in state["lanes"] for lane in of_worker)
    if len(every) < feed.world_size:
        raise ConfigError(
            f"{len(every)} streams cannot be dealt to {feed.world_size} ranks: use at most {len(every)} ranks, or "
            f"make an index and start a new epoch"
        )
    mine = every[feed.rank :: feed.world_size]
    return SequentialTask(
        states[0]["epoch"], tuple(tuple(mine[worker::workers]) for worker in range(workers)), 0, endless
    )


def in_turn(streams: Sequence[Iterator[Any]]) -> Iterator[Any]:
    """One item of each stream after the other, until all have ended.

    >>> "".join(in_turn([iter("abc"), iter("x")]))
    'axbc'
    """
    running = list(streams)
    while running:
        for stream in list(running):
            item = next(stream, END)
            if isinstance(item, str) and item == END:
                running.remove(stream)
            else:
                yield item


def unpack(parcels: Iterator[Parcel], progress: Progress, workers: int) -> Iterator[Any]:
    """The batches of a pass, in the parent. ``progress`` follows what is given out."""
    ended = 0
    while ended < workers:
        start = time.perf_counter()
        parcel = next(parcels, None)
        counters.add("loader", "wait seconds", time.perf_counter() - start)
        if parcel is None:
            return
        counters.merge(parcel.counts)
        if _is(parcel.batch, END):
            if isinstance(progress, SequentialProgress):
                progress.add(parcel)
                ended += 1
            continue
        ended = 0
        progress.add(parcel)
        if _is(parcel.batch, NOTHING):
            continue
        counters.add("loader", "batches")
        counters.add("loader", "samples", _length(parcel.batch))
        yield parcel.batch
        del parcel


def _is(batch: Any, mark: str) -> bool:
    return isinstance(batch, str) and batch == mark


def _length(batch: Any) -> int:
    if isinstance(batch, dict) and isinstance(batch.get("__key__"), list):
        return len(batch["__key__"])
    return 1
