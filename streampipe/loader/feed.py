"""What travels between a loader's parent and its workers: the task of a pass one way, items and counts the other.

The parent hears with every item how it moves the place of the stream, so the state it names is that of the items which
training has received. Consumers (threads of this process, of workers, or workers without threads) take turns, and one
parcel is taken from each: so whose turn it is follows from the number of items alone, also after a resume.
"""

from __future__ import annotations

import traceback
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch.utils.data import IterableDataset, get_worker_info

from streampipe.context import Consumer
from streampipe.counters import Counted, OfLoader
from streampipe.engine.engine import Engine, is_nothing
from streampipe.errors import ConfigError, StreampipeError
from streampipe.lifeline import end_with_parent
from streampipe.loader.ahead import in_turn
from streampipe.loader.handover import Packed, Shelf
from streampipe.loader.making import Sender, made_for
from streampipe.loader.recorder import Recorder
from streampipe.memory import share_with_parent
from streampipe.observe import Trace
from streampipe.policy import Counts as Tallies
from streampipe.policy import ErrorPolicy, Fate
from streampipe.unwanted import Unwanted, unwanted_when

END = "streampipe: no more items"
FAILED = "streampipe: an error of a worker"


class WorkerTraceback(Exception):
    """Where in a worker an error came from: shown in front of it, as the cause."""

    def __str__(self) -> str:
        return f"in a worker\n{self.args[0]}" if self.args else ""


class Parcel(NamedTuple):
    """An item on its way to the parent, with what its worker counted since the last one, how the item moves the place
    of the stream, which consumer made it, and whether that one has more.
    """

    item: Any
    counted: Counted | None
    moved: Any = None
    consumer: int = 0
    more: bool = True
    skipped: Tallies | None = None  # at the end: what this consumer skipped
    dropped: Mapping[str, Fate] | None = None  # and what its stages kept and dropped
    made: float = 0.0  # when, by the clock that all processes of a machine share

    def pin_memory(self) -> Parcel:
        """With the item's tensors in pinned memory; torch calls this where ``pin_memory`` was asked for."""
        from torch.utils.data._utils.pin_memory import pin_memory

        return self._replace(item=pin_memory(self.item))  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Task:
    """A pass: the engine, where the rank's stream stands, the epoch before which it ends, and who makes its items."""

    engine: Engine[Any]
    at: Any
    until: int | None
    crew: Crew


class Crew(NamedTuple):
    """Who makes the items of a rank, in turn: so many threads in each of so many worker processes.

    ``workers`` 0 is this process, ``threads`` 0 no thread: items are made when they are asked for. Each of them makes
    whole items, as a consumer of its own. ``inner``: threads that share one item, where consumers must be fewer.
    """

    workers: int
    threads: int
    inner: int

    @property
    def consumers(self) -> int:
        """How many there are."""
        return max(1, self.workers) * max(1, self.threads)

    @property
    def processes(self) -> int:
        """How many processes they are in."""
        return max(1, self.workers)


def crew_of(engine: Engine[Any], rank: int, ranks: int, workers: int, threads: int) -> Crew:
    """As many consumers as may take turns without changing the order, in so many workers with so many threads each."""
    processes = engine.stride(Consumer(rank, ranks, 0, max(1, workers)))
    most = next(
        each
        for each in range(max(1, threads), 0, -1)
        if each == 1 or engine.stride(Consumer(rank, ranks, 0, processes * each)) == processes * each
    )
    inner = threads // most if threads else 0
    return Crew(min(workers, processes), most if threads else 0, inner if inner > 1 else 0)


class Feed(IterableDataset[Parcel]):
    """The pipeline as a loader's dataset. The parent says what a pass is.

    Workers that start for a pass find its task in their copy. Persistent workers keep the copy of their first pass; for
    later ones, which begin at an epoch's beginning, they look for the epoch in shared memory, which the parent writes
    before it asks them to begin again.
    """

    def __init__(self, rank: int, world_size: int, ahead: int, recorder: Recorder) -> None:
        self._counts: OfLoader | None = recorder.counts
        self._trace = recorder.trace
        self.rank = rank
        self.world_size = world_size
        self.ahead = ahead
        self.task: Task | None = None
        self.shelf = Shelf()  # the blocks of the workers that were started last
        self.is_asked = False  # by its loader: nobody else can make sense of parcels
        self._shared: torch.Tensor = torch.zeros(3, dtype=torch.int64, device="cpu").share_memory_()  # type: ignore[no-untyped-call]
        self._passes = 0

    def begin(self, task: Task) -> None:
        """In the parent: the next pass is this one."""
        self.task = task
        until = -1 if task.until is None else task.until
        self._shared[:2].copy_(torch.tensor([task.engine.epoch_of(task.at), until], device="cpu"))

    def give_up(self) -> None:
        """In the parent: what workers make for the pass that is open is not wanted any more."""
        self._shared[2] += 1

    def leave_to_parent(self) -> None:
        """In a fork of the parent: its workers are told nothing from here."""
        self._shared = self._shared.clone().share_memory_()  # type: ignore[no-untyped-call]

    def __iter__(self) -> Iterator[Parcel]:
        info = get_worker_info()
        if info is None or self.task is None or not (self.is_asked or self._passes):
            raise ConfigError(
                "this dataset belongs to the loader that pipe.loader() made, and only that can iterate it: what "
                "splits, skips or rebuilds DataLoaders (accelerator.prepare, skip_first_batches, a Trainer) must leave "
                "it as it is (streampipe.compat has prepare for Accelerate, LoaderTrainer, LoaderModule); the loader "
                "reads this rank's share, and goes on from loader.load_state_dict(state)"
            )
        task = self.task
        if self._passes:
            epoch, until, _ = self._shared.tolist()
            task = replace(task, at=task.engine.first(epoch), until=None if until < 0 else until)
        self._passes += 1
        self._counts = OfLoader(Trace(f"worker {info.id}") if self._trace else None)
        self.shelf.blocks.clear()
        worker, crew = info.id, task.crew
        if worker >= crew.processes:
            return iter(())  # it takes no turns
        given_up = self._shared[2].item()
        unwanted_when(lambda: self._shared[2].item() != given_up)
        numbers = range(worker, crew.consumers, crew.processes)
        sender = Sender(self._counts)
        streams = [self._of_worker(task, number, worker, sender) for number in numbers]
        return _until_unwanted(_to_its_error(self._with_parent(streams, crew), worker))

    def parcels(self, pin: bool = False) -> Generator[Parcel, None, None]:
        """The parcels of a pass that has no workers; ``pin``: in pinned memory."""
        task = self.task
        assert task is not None
        streams = [self._of_consumer(task, number) for number in range(task.crew.consumers)]
        if pin:
            streams = [map(Parcel.pin_memory, each) for each in streams]
        return self._of_process(streams, task.crew)

    def _with_parent(self, streams: Sequence[Iterator[Parcel]], crew: Crew) -> Iterator[Parcel]:
        """What the consumers in a worker make, as long as its parent lives."""
        end_with_parent()
        yield from self._of_process(streams, crew, True)

    def _of_process(
        self, streams: Sequence[Iterator[Parcel]], crew: Crew, in_worker: bool = False
    ) -> Generator[Parcel, None, None]:
        """What the consumers in a process make, in their turns."""
        if not crew.threads:
            yield from streams[0]
            return
        ended = (Parcel(END, None),) if in_worker else ()  # it has turns among the workers, whoever makes something
        yield from in_turn(streams, max(1, self.ahead // len(streams)), ended)

    def _of_worker(self, task: Task, number: int, worker: int, sender: Sender) -> Iterator[Parcel]:
        """What a consumer in a worker makes, with what was counted there, ready to be sent."""
        blocks = share_with_parent()
        for parcel in _to_its_error(self._of_consumer(task, number), number):
            item = Packed(parcel.item, self.shelf.name, worker, blocks)
            over = _is(parcel.item, END) or _is(parcel.item, FAILED)
            yield parcel._replace(item=item, counted=sender.take(over))
            del item, parcel

    def _of_consumer(self, task: Task, number: int) -> Iterator[Parcel]:
        crew = task.crew
        consumer = Consumer(self.rank, self.world_size, number, crew.consumers)
        policy = task.engine.spec.policy.fresh()
        items = task.engine.items(task.at, task.until, consumer, crew.inner, policy=policy)
        assert self._counts is not None
        for item, moved, more in made_for(self._counts, items):
            yield Parcel(item, None, moved, number, more, made=perf_counter())
            del item
        yield Parcel(END, None, skipped=policy.take(), dropped=policy.fates)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_counts": None}  # the parent's stay with it


class Received(NamedTuple):
    """An item in the parent, how it moves the place of the stream, and whether more can follow."""

    item: Any
    moved: Any
    more: bool


def unpack(
    parcels: Generator[Parcel, None, None], consumers: int, judge: ErrorPolicy, recorder: Recorder, batched: bool
) -> Generator[Received, None, None]:
    """The items of a pass, in the parent; turns without an item come too, because they move the place.

    ``judge`` hears in the end what was skipped and dropped by all consumers, ``recorder`` what is waited for and comes.
    ``batched``: items are known to be batches.
    """
    done: set[int] = set()
    counts = recorder.counts
    with closing(parcels):
        for parcel in parcels:
            item = parcel.item
            if parcel.counted is not None:
                counts.merge(parcel.counted)
            if item.__class__ is str:
                if item == FAILED:
                    kind, text, origin = parcel.moved
                    raise kind(text) from (WorkerTraceback(origin) if origin else None)
                if item == END:
                    judge.merge(parcel.skipped or {}, parcel.dropped or {})
                    continue
            if not parcel.more:
                done.add(parcel.consumer)
            if not is_nothing(item):
                recorder.gives(length_of(item, batched), parcel.made)
            yield Received(item, parcel.moved, len(done) < consumers)
            del item, parcel
    recorder.ends()


def _until_unwanted(parcels: Iterator[Parcel]) -> Iterator[Parcel]:
    """The parcels of a worker, until the parent does not want them any more."""
    with suppress(Unwanted):
        yield from parcels


def _to_its_error(parcels: Iterator[Parcel], number: int) -> Iterator[Parcel]:
    """The parcels of a consumer in a worker; its error is a parcel too, or torch would put tracebacks around it."""
    try:
        yield from parcels
    except StreampipeError as error:
        yield Parcel(FAILED, None, (type(error), str(error), _origin(error)), number)


def _origin(error: StreampipeError) -> str:
    """The traceback of what a user's function raised, as text; the library's own errors say all in a sentence."""
    return "".join(traceback.format_exception(error.__cause__)) if error.__cause__ is not None else ""


def _is(item: Any, mark: str) -> bool:
    return isinstance(item, str) and item == mark


def length_of(item: Any, batched: bool) -> int:
    """The samples of an item. One that is known to be a batch has as many as rows, whatever it is made of.

    >>> length_of({"__key__": ["a", "b"]}, False), length_of((torch.zeros(3, 2), ["a"]), True), length_of([1, 2], False)
    (2, 3, 1)
    """
    keys = item.get("__key__") if isinstance(item, Mapping) else None
    if isinstance(keys, list):
        return len(keys)
    return _rows_of(item) or 1 if batched else 1


def _rows_of(value: Any) -> int | None:
    """The rows of a batch, or of the first of its fields that has some; None where there are none."""
    if isinstance(value, (Mapping, tuple)):
        fields = value.values() if isinstance(value, Mapping) else value
        return next((rows for each in fields if (rows := _rows_of(each)) is not None), None)
    if isinstance(value, str) or not hasattr(value, "__len__") or getattr(value, "shape", None) == ():
        return None
    return len(value)
