"""The loader: a torch DataLoader over a pipeline that accounts for what it delivers."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from streampipe.context import Consumer
from streampipe.counters import Counts, counters
from streampipe.errors import ConfigError
from streampipe.pipeline import Pipeline
from streampipe.world import find_world


class Loader(DataLoader[Any]):
    """What ``pipe.loader(...)`` gives: batches as the pipeline makes them, from worker processes or threads.

    Args:
        pipe: the pipeline.
        num_workers: worker processes. 0 runs the pipeline in this process.
        threads: threads for the stages that decode or map and were not given their own number; in each worker, or,
            with ``num_workers=0``, in this process, where batches are then also made ahead in the background.
        rank, world_size: this process among all that train together; found in torch.distributed or the environment
            (RANK, WORLD_SIZE) if not given. Decided here, in the parent, so it holds under every start method.
        prefetch: batches made ahead: by each worker, or in the background with ``threads``.
        pin_memory, timeout, persistent_workers, multiprocessing_context, worker_init_fn: as in torch's DataLoader.

    Codecs release the GIL, and a worker must hand every batch over to the parent: on a few cores ``threads=`` with
    ``num_workers=0`` is the fastest. Worker processes win where stages are mostly Python; the two can be combined.
    """

    def __init__(
        self,
        pipe: Pipeline,
        num_workers: int = 0,
        *,
        threads: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        prefetch: int = 2,
        pin_memory: bool = False,
        timeout: float = 0,
        persistent_workers: bool = False,
        multiprocessing_context: Any = None,
        worker_init_fn: Callable[[int], None] | None = None,
    ) -> None:
        if threads < 0 or prefetch < 1:
            raise ConfigError(f"threads is 0 or more and prefetch 1 or more, not {threads} and {prefetch}")
        self.pipe = pipe
        self.prefetch = prefetch
        feed = _Feed(pipe, *find_world(rank, world_size), threads)
        self._feed = feed
        super().__init__(
            feed,
            batch_size=None,
            num_workers=num_workers,
            collate_fn=_as_it_is,
            pin_memory=pin_memory,
            timeout=timeout,
            persistent_workers=persistent_workers,
            multiprocessing_context=multiprocessing_context if num_workers else None,
            worker_init_fn=worker_init_fn,
            prefetch_factor=prefetch if num_workers else None,
        )

    def set_epoch(self, epoch: int) -> None:
        """The next pass is epoch ``epoch``."""
        self.pipe.set_epoch(epoch)

    def report(self) -> str:
        """What happened so far, as a table: the same as ``pipe.report()``."""
        return self.pipe.report()

    def __iter__(self) -> Any:
        self._feed.begin(self.pipe._clock.begin(self.pipe.epochs or 1))
        parcels: Iterator[Parcel] = super().__iter__()
        if self.num_workers == 0 and self._feed.threads:
            parcels = ahead(parcels, self.prefetch)
        return _unpack(parcels)


class Parcel(NamedTuple):
    """A batch on its way to the parent, with what its worker counted since the last one."""

    batch: Any
    counts: Counts

    def pin_memory(self) -> Parcel:
        """With the batch's tensors in pinned memory; torch calls this where ``pin_memory`` was asked for."""
        from torch.utils.data._utils.pin_memory import pin_memory

        return Parcel(pin_memory(self.batch), self.counts)  # type: ignore[no-untyped-call]


class _Feed(IterableDataset[Parcel]):
    """The pipeline as a loader's dataset. The parent says which epoch a pass is.

    Workers that start for a pass find it in their copy (``_epoch``). Persistent workers keep the copy of their first
    pass; for later ones they look into shared memory, which the parent writes before it asks them to begin again.
    """

    def __init__(self, pipe: Pipeline, rank: int, world_size: int, threads: int) -> None:
        self.pipe = pipe
        self.rank = rank
        self.world_size = world_size
        self.threads = threads
        self._epoch = 0
        self._shared_epoch: torch.Tensor = torch.zeros(1, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        self._passes = 0

    def begin(self, epoch: int) -> None:
        """In the parent: the next pass begins at ``epoch``."""
        self._epoch = epoch
        self._shared_epoch[0] = epoch

    def __iter__(self) -> Iterator[Parcel]:
        info = get_worker_info()
        epoch = self._epoch if info is None or self._passes == 0 else int(self._shared_epoch[0])
        self._passes += 1
        worker, num_workers = (info.id, info.num_workers) if info else (0, 1)
        consumer = Consumer(self.rank, self.world_size, worker, num_workers)
        return _pack(self.pipe.run(consumer, epoch, self.threads), in_worker=info is not None)


def _pack(batches: Iterable[Any], in_worker: bool) -> Iterator[Parcel]:
    if in_worker:
        counters.take()  # what a forked worker was born with is the parent's
    for batch in batches:
        yield Parcel(batch, counters.take() if in_worker else {})
    if in_worker:
        rest = counters.take()
        if rest:
            yield Parcel(_NOTHING, rest)


_NOTHING = "streampipe: no batch, only counts"


def _unpack(parcels: Iterator[Parcel]) -> Iterator[Any]:
    while True:
        start = time.perf_counter()
        parcel = next(parcels, None)
        counters.add("loader", "wait seconds", time.perf_counter() - start)
        if parcel is None:
            return
        counters.merge(parcel.counts)
        if isinstance(parcel.batch, str) and parcel.batch == _NOTHING:
            continue
        counters.add("loader", "batches")
        counters.add("loader", "samples", _length(parcel.batch))
        yield parcel.batch
        del parcel


def _length(batch: Any) -> int:
    if isinstance(batch, dict) and isinstance(batch.get("__key__"), list):
        return len(batch["__key__"])
    return 1


def _as_it_is(item: Any) -> Any:
    return item


def ahead(items: Iterator[Any], most: int) -> Iterator[Any]:
    """The items, made in a background thread up to ``most`` before they are asked for. Errors come where they belong.

    >>> list(ahead(iter("abc"), 2))
    ['a', 'b', 'c']
    """
    made: queue.Queue[tuple[str, Any]] = queue.Queue(most)
    stop = threading.Event()

    def put(kind: str, value: Any = None) -> bool:
        while not stop.is_set():
            try:
                made.put((kind, value), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put("item", item):
                    break
            else:
                put("end")
        except BaseException as error:  # KeyboardInterrupt too: the consumer must not wait for ever
            put("error", error)
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()

    thread = threading.Thread(target=work, name="streampipe-ahead", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = made.get()
            if kind == "item":
                yield value
            elif kind == "error":
                raise value
            else:
                return
            del value
    finally:
        stop.set()
        thread.join()
