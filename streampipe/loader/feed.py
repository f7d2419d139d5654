"""What travels between a loader's parent and its workers: the task of a pass one way, items and counts the other.

The parent hears with every item how it moves the place of the stream, so the state it names is that of the items which
training has received. Workers take turns, and the parent takes one parcel from each: so whose turn it is follows from
the number of items alone, also after a resume.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch.utils.data import IterableDataset, get_worker_info

from streampipe.context import Consumer
from streampipe.counters import Counts, counters
from streampipe.engine.engine import Engine, is_nothing
from streampipe.errors import ConfigError, StreampipeError
from streampipe.lifeline import end_with_parent
from streampipe.policy import Counts as Tallies
from streampipe.policy import ErrorPolicy

END = "streampipe: no more items"
FAILED = "streampipe: an error of a worker"


class WorkerTraceback(Exception):
    """Where in a worker an error came from: shown in front of it, as the cause."""

    def __str__(self) -> str:
        return f"in a worker\n{self.args[0]}" if self.args else ""


class Parcel(NamedTuple):
    """An item on its way to the parent, with what its worker counted since the last one, how the item moves the place
    of the stream, and whether this worker has more.
    """

    item: Any
    counts: Counts
    moved: Any = None
    worker: int = 0
    more: bool = True
    skipped: Tallies | None = None  # at the end: what the error policy of this worker counted

    def pin_memory(self) -> Parcel:
        """With the item's tensors in pinned memory; torch calls this where ``pin_memory`` was asked for."""
        from torch.utils.data._utils.pin_memory import pin_memory

        return self._replace(item=pin_memory(self.item))  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Task:
    """A pass: the engine, where the rank's stream stands, and the epoch before which it ends."""

    engine: Engine[Any]
    at: Any
    until: int | None


class Feed(IterableDataset[Parcel]):
    """The pipeline as a loader's dataset. The parent says what a pass is.

    Workers that start for a pass find its task in their copy. Persistent workers keep the copy of their first pass; for
    later ones, which begin at an epoch's beginning, they look for the epoch in shared memory, which the parent writes
    before it asks them to begin again.
    """

    def __init__(self, rank: int, world_size: int, threads: int) -> None:
        self.rank = rank
        self.world_size = world_size
        self.threads = threads
        self.task: Task | None = None
        self.is_asked = False  # by its loader: nobody else can make sense of parcels
        self._shared: torch.Tensor = torch.zeros(2, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        self._passes = 0

    def begin(self, task: Task) -> None:
        """In the parent: the next pass is this one."""
        self.task = task
        until = -1 if task.until is None else task.until
        self._shared.copy_(torch.tensor([task.engine.epoch_of(task.at), until]))

    def __iter__(self) -> Iterator[Parcel]:
        info = get_worker_info()
        if self.task is None or not (self.is_asked or self._passes):
            raise ConfigError(
                "this dataset belongs to the loader that pipe.loader() made, and only that can iterate it: what "
                "splits, skips or rebuilds DataLoaders (accelerator.prepare, skip_first_batches, a Trainer) must leave "
                "it as it is; the loader reads this rank's share, and goes on from loader.load_state_dict(state)"
            )
        task = self.task
        if info is not None and self._passes:
            epoch, until = self._shared.tolist()
            task = replace(task, at=task.engine.first(epoch), until=None if until < 0 else until)
        if info is not None and not self._passes:
            end_with_parent()
        self._passes += 1
        worker, num_workers = (info.id, info.num_workers) if info else (0, 1)
        return self._parcels(task, worker, num_workers, info is not None)

    def _parcels(self, task: Task, worker: int, num_workers: int, in_worker: bool) -> Iterator[Parcel]:
        if in_worker:
            counters.take()  # what a forked worker was born with is the parent's
        consumer = Consumer(self.rank, self.world_size, worker, num_workers)
        policy = task.engine.spec.policy.fresh()
        try:
            for item, moved, more in task.engine.items(task.at, task.until, consumer, self.threads, policy=policy):
                yield Parcel(item, counters.take() if in_worker else {}, moved, worker, more)
        except StreampipeError as error:
            if not in_worker:
                raise
            yield Parcel(FAILED, counters.take(), (type(error), str(error), _origin(error)), worker)
            return
        yield Parcel(END, counters.take() if in_worker else {}, skipped=policy.take())


class Received(NamedTuple):
    """An item in the parent, how it moves the place of the stream, and whether more can follow."""

    item: Any
    moved: Any
    more: bool


def unpack(parcels: Iterator[Parcel], workers: int, judge: ErrorPolicy) -> Iterator[Received]:
    """The items of a pass, in the parent; turns without an item come too, because they move the place.

    ``judge`` hears in the end what was skipped in all workers.
    """
    done: set[int] = set()
    while True:
        start = time.perf_counter()
        parcel = next(parcels, None)
        counters.add("loader", "wait seconds", time.perf_counter() - start)
        if parcel is None:
            return
        counters.merge(parcel.counts)
        if _is(parcel.item, FAILED):
            kind, text, origin = parcel.moved
            raise kind(text) from (WorkerTraceback(origin) if origin else None)
        if _is(parcel.item, END):
            judge.merge(parcel.skipped or {})
            continue
        if not parcel.more:
            done.add(parcel.worker)
        if not is_nothing(parcel.item):
            counters.add("loader", "batches")
            counters.add("loader", "samples", _length(parcel.item))
        yield Received(parcel.item, parcel.moved, len(done) < workers)
        del parcel


def _origin(error: StreampipeError) -> str:
    """The traceback of what a user's function raised, as text; the library's own errors say all in a sentence."""
    return "".join(traceback.format_exception(error.__cause__)) if error.__cause__ is not None else ""


def _is(item: Any, mark: str) -> bool:
    return isinstance(item, str) and item == mark


def _length(batch: Any) -> int:
    if isinstance(batch, dict) and isinstance(batch.get("__key__"), list):
        return len(batch["__key__"])
    return 1
