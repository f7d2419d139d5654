"""What travels between a loader's parent and its workers: the task of a pass one way, batches and counts the other.

The parent hears with every batch where its worker stands, so the state it gives out is that of the batches which
training has received. It takes one parcel from each worker in turn. A worker that has no more goes on sending empty
parcels until all are done: so whose turn it is follows from the number of batches alone, also after a resume.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch.utils.data import IterableDataset, get_worker_info

from streampipe.context import Consumer, Run
from streampipe.counters import Counts, counters
from streampipe.errors import ConfigError
from streampipe.passes import Division, make_batches
from streampipe.pipeline import Pipeline
from streampipe.planned import Cursor, Plan
from streampipe.progress import begin, check_sequential, description, sequential_state

NOTHING = "streampipe: no batch"
END = "streampipe: no more batches"


class Parcel(NamedTuple):
    """A batch on its way to the parent, with what its worker counted since the last one and the cursor behind it."""

    batch: Any
    counts: Counts
    after: Cursor | None = None

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
    """A pass in the sequential tier: each worker goes on behind what it gave before; ``turn`` says who begins.

    ``dealt``: the streams of another job's consumers, which those of this one take over, to the end of the pass.
    """

    epoch: int
    given: tuple[int, ...]
    turn: int
    endless: bool
    dealt: tuple[Lane, ...] = ()


class Lane(NamedTuple):
    """The stream of one consumer in the sequential tier, and how much of it was given out."""

    rank: int
    world_size: int
    worker: int
    num_workers: int
    given: int


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
        assert parcel.after is not None
        self.cursor = parcel.after

    def state(self) -> dict[str, Any]:
        """The state at this point."""
        return {**self.plan.state(self.cursor), "taken": self.taken}


class SequentialProgress(Progress):
    """The sequential tier's: how many batches each worker gave, and whose turn it is."""

    def __init__(self, common: dict[str, Any], given: Iterable[int], turn: int) -> None:
        self.common = common
        self.given = list(given)
        self.turn = turn

    def add(self, parcel: Parcel) -> None:
        """A parcel was received."""
        if not _is(parcel.batch, END):
            self.given[self.turn] += 1
        self.turn = (self.turn + 1) % len(self.given)

    def state(self) -> dict[str, Any]:
        """The state at this point."""
        return {**self.common, "given": list(self.given), "turn": self.turn, "taken": self.taken}


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
                task = replace(task, epoch=epoch, given=(0,) * len(task.given), turn=0, dealt=())
        self._passes += 1
        worker, num_workers = (info.id, info.num_workers) if info else (0, 1)
        return self._parcels(task, worker, num_workers, info is not None)

    def _parcels(
        self, task: PlannedTask | SequentialTask, worker: int, num_workers: int, in_worker: bool
    ) -> Iterator[Parcel]:
        if in_worker:
            counters.take()  # what a forked worker was born with is the parent's
        made = (
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

    def _planned(self, task: PlannedTask, worker: int, num_workers: int) -> Iterator[tuple[Any, Cursor | None]]:
        consumer = Consumer(self.rank, self.world_size, worker, num_workers)
        run = Run(seed=self.pipe.seed, consumer=consumer, policy=self.pipe.policy.fresh(), threads=self.threads)
        for made in make_batches(task.plan, task.division, run, task.cursor, worker, num_workers):
            yield (made.items[0] if made.items else NOTHING), made.after

    def _sequential(self, task: SequentialTask, worker: int, num_workers: int) -> Iterator[tuple[Any, Cursor | None]]:
        mine = (worker + task.turn) % num_workers
        consumer = Consumer(self.rank, self.world_size, mine, num_workers)
        lanes = task.dealt[consumer.rank :: self.world_size][mine::num_workers]
        streams = [self._rest(lane, task) for lane in lanes]
        items = (
            in_turn(streams) if task.dealt else self._rest(Lane(self.rank, self.world_size, mine, num_workers, 0), task)
        )
        return ((item, None) for item in islice(items, task.given[mine], None))

    def _rest(self, lane: Lane, task: SequentialTask) -> Iterator[Any]:
        """What a consumer did not give out yet. The whole stream is gone through: without counts nobody can seek."""
        items = self.pipe.run(Consumer(*lane[:4]), task.epoch, self.threads, endless=task.endless)
        return islice(items, lane.given, None)


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
    consumer = Consumer(feed.rank, feed.world_size)
    common = sequential_state(description(pipe), pipe.seed, consumer, 0, 0)
    if not states:
        task = SequentialTask(pipe._clock.begin(pipe.epochs or 1), (0,) * workers, 0, endless)
        taken = 0
    else:
        for state in states:
            check_sequential(state, common)
        task = _resumed(states, consumer, workers, endless)
        taken = states[0]["taken"]
        pipe._clock.set(task.epoch)
        pipe._clock.begin(pipe.epochs or 1)
    feed.begin(task)
    dealt = {"dealt": [list(lane) for lane in task.dealt]} if task.dealt else {}
    progress = SequentialProgress({**common, "epoch": task.epoch, **dealt}, task.given, task.turn)
    progress.taken = taken
    return progress


def _resumed(states: Sequence[Mapping[str, Any]], consumer: Consumer, workers: int, endless: bool) -> SequentialTask:
    """The task that goes on where the states are: on the same consumers as it was, on others with the streams dealt."""
    mine = [consumer.rank, consumer.world_size]
    for state in states:
        if list(state["rank"]) == mine and len(state["given"]) == workers:
            dealt = tuple(Lane(*lane) for lane in state.get("dealt", ()))
            return SequentialTask(state["epoch"], tuple(state["given"]), state["turn"], endless, dealt)
    ranks = states[0]["rank"][1]
    if sorted(state["rank"][0] for state in states) != list(range(ranks)):
        raise ConfigError(
            f"the state was saved on {ranks} ranks with {len(states[0]['given'])} workers, this job has "
            f"{consumer.world_size} with {workers}: to deal the streams again, load a list of the states of "
            f"all {ranks} ranks"
        )
    if any(state.get("dealt") for state in states):
        raise ConfigError(
            "the streams of this state were dealt to other consumers once already: finish the pass on the same ranks "
            "and workers, or make an index"
        )
    lanes = [
        Lane(state["rank"][0], ranks, worker, len(state["given"]), given)
        for state in sorted(states, key=lambda state: int(state["rank"][0]))
        for worker, given in enumerate(state["given"])
    ]
    if len(lanes) < consumer.world_size:
        raise ConfigError(
            f"{len(lanes)} streams cannot be dealt to {consumer.world_size} ranks: use at most {len(lanes)} ranks, or "
            f"make an index and start a new epoch"
        )
    return SequentialTask(states[0]["epoch"], (0,) * workers, 0, endless, tuple(lanes))


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
