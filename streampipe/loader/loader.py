"""The loader: a torch DataLoader over a pipeline that accounts for what it delivers."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch.utils.data import DataLoader

from streampipe.errors import ConfigError
from streampipe.loader.ahead import ahead
from streampipe.loader.feed import NOTHING as _NOTHING
from streampipe.loader.feed import Feed, Parcel, PlannedProgress, Progress, begin_planned, begin_sequential, unpack
from streampipe.pipeline.explain import explain
from streampipe.pipeline.passes import Division
from streampipe.pipeline.pipeline import Pipeline
from streampipe.pipeline.planner import known_items
from streampipe.plan.planned import VERSION, Plan
from streampipe.plan.state import checked_state
from streampipe.world import check_world, find_world

_ELSEWHERE = {
    "batch_size": "put batch(n) at its end",
    "shuffle": "give sp.stream(..., shuffle=True)",
    "drop_last": "give batch(n, tail='drop'), or loader(tail='drop')",
    "collate_fn": "put map(fn) behind batch(n)",
    "prefetch_factor": "give loader(prefetch=n)",
}
"""Options of torch's DataLoader, and what does the same here."""


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse the options of torch's DataLoader that have their place elsewhere.

    Raises:
        ConfigError: it says where.
    """
    for option in options:
        if option in _ELSEWHERE:
            raise ConfigError(f"loader has no {option}=: the pipeline decides; {_ELSEWHERE[option]}")


class Loader(DataLoader[Any]):
    """What ``pipe.loader(...)`` gives: batches as the pipeline makes them, from worker processes or threads.

    Args:
        pipe: the pipeline.
        num_workers: worker processes. 0 runs the pipeline in this process.
        threads: threads for the stages that decode or map and were not given their own number; in each worker, or,
            with ``num_workers=0``, in this process, where batches are then also made ahead in the background.
        rank, world_size: this process among all that train together; found in torch.distributed or the environment
            (RANK, WORLD_SIZE) if not given. Decided here, in the parent, so it holds under every start method.
        steps_per_epoch: a pass is so many batches on every rank, and the next pass goes on where it stopped. Needed for
            several ranks where samples are not counted.
        tail: what becomes of an epoch's last batch, counted samples given: ``"short"`` (the default), ``"drop"``, or
            ``"pad"`` with the epoch's first samples; if not given, what ``batch(tail=)`` says.
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
        steps_per_epoch: int | None = None,
        tail: str | None = None,
        prefetch: int = 2,
        pin_memory: bool = False,
        timeout: float = 0,
        persistent_workers: bool = False,
        multiprocessing_context: Any = None,
        worker_init_fn: Callable[[int], None] | None = None,
    ) -> None:
        if threads < 0 or prefetch < 1 or (steps_per_epoch is not None and steps_per_epoch < 1):
            raise ConfigError(
                f"threads is 0 or more, prefetch and steps_per_epoch 1 or more, not {threads}, {prefetch} and "
                f"{steps_per_epoch}"
            )
        self.pipe = pipe
        self.prefetch = prefetch
        self.steps_per_epoch = steps_per_epoch
        feed = Feed(pipe, *find_world(rank, world_size), threads)
        self._world_was_found = rank is None
        self._feed = feed
        self._tail = tail
        self._found: tuple[Plan, Division] | str | None = None
        self._resume: list[dict[str, Any]] = []  # what the next pass begins with: the states of one or all ranks
        self._at: Progress | None = None  # of the pass that is running, or the last one
        self._flow: Iterator[Any] | None = None  # with steps_per_epoch: the stream that passes are cut from
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
        self._resume, self._flow = [], None
        self.pipe.set_epoch(epoch)

    def report(self) -> str:
        """What happened so far, as a table: the same as ``pipe.report()``."""
        return self.pipe.report()

    def explain(self) -> str:
        """What a pass of this loader will do, as a table."""
        return explain(self.pipe, self._feed.world_size, self.num_workers, self.plan())

    def plan(self) -> tuple[Plan, Division] | str:
        """The plan of this job, or why there is none; made once, here in the parent."""
        if self._found is None:
            self._found = self.pipe.plan(self._feed.world_size, self._tail)
        return self._found

    def __len__(self) -> int:
        """Batches of a whole pass.

        Raises:
            TypeError: nobody knows: the stream is endless, or its samples are not counted.
        """
        if (steps := self._steps()) is not None:
            return steps
        found = self.plan()
        if isinstance(found, str):
            raise TypeError(f"this loader has no length, because {found}; give steps_per_epoch=")
        if self.pipe.epochs is None:
            raise TypeError("this loader has no length, because epochs=None makes it endless; give steps_per_epoch=")
        return found[0].length(self._first_epoch(self.pipe.epochs), self.pipe.epochs)

    def _first_epoch(self, epochs: int) -> int:
        """Of the pass that is running, or else of the next one."""
        if self._resume and self._resume[0].get("until") is not None:
            return int(self._resume[0]["until"]) - epochs
        cursor = self._at.cursor if isinstance(self._at, PlannedProgress) else None
        if cursor is not None and cursor.until is not None and cursor.epoch < cursor.until:
            return cursor.until - epochs
        return self.pipe._clock.next(epochs)

    def state_dict(self) -> dict[str, Any]:
        """Where training stands: after the batch received last, whatever was made ahead. Small, plain JSON.

        In the planned tier it is the same on every rank, and may be loaded on any number of ranks and workers that
        keeps the global batch. In the sequential tier each rank has its own; see ``load_state_dict``.

        It counts every batch that the iterator gave out. ``zip(loader, range(n))`` asks for one batch more than it
        hands on, and drops it; a state taken then stands behind that batch. Write ``zip(range(n), loader)``, or
        ``itertools.islice(loader, n)``, or break out of a plain loop: these take what they give.

        >>> import itertools, streampipe as sp
        >>> loader = sp.from_iterable([{"n": i} for i in range(9)]).batch(2).loader()
        >>> [batch["n"] for batch in itertools.islice(loader, 2)]
        [[0, 1], [2, 3]]
        >>> resumed = sp.from_iterable([{"n": i} for i in range(9)]).batch(2).loader()
        >>> resumed.load_state_dict(loader.state_dict())
        >>> next(iter(resumed))["n"]
        [4, 5]
        """
        if self._resume:
            return dict(self._resume[0])
        if self._at is None:
            return {"streampipe": VERSION, "tier": "new", "epoch": self.pipe._clock.next(self.pipe.epochs or 1)}
        return self._at.state()

    def load_state_dict(self, state: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
        """The next pass continues with the batch after the one that ``state`` was taken at.

        In the sequential tier it goes on from the shard where it stopped if all stages allow it (``explain()``
        says), and else by going again through what was read. A list of the states of all ranks may be loaded on
        other ranks and workers: the streams of the former consumers are dealt to the new ones, nothing lost and nothing
        twice.

        Raises:
            ConfigError: this is no state; or (when the pass begins) it is of another dataset, batch size,
                seed, ... than this loader.
        """
        states = [state] if isinstance(state, Mapping) or not isinstance(state, (list, tuple)) else state
        self._resume = [checked_state(each) for each in states]
        self._flow = self._iterator = None

    def __iter__(self) -> Any:
        steps = self._steps()
        return self._stream(endless=self.pipe.epochs is None) if steps is None else self._cut(steps)

    def _steps(self) -> int | None:
        """Steps that a pass is cut into: as asked for, or, for ranks that read uncounted shards, by a known total."""
        if self.steps_per_epoch is None and self._feed.world_size > 1 and isinstance(self.plan(), str):
            total = known_items(self.pipe)
            if total is not None and self.pipe.epochs is not None:
                self.steps_per_epoch = max(1, total * self.pipe.epochs // self._feed.world_size)
        return self.steps_per_epoch

    def _cut(self, steps: int) -> Iterator[Any]:
        """One pass of ``steps`` batches of an endless stream, which the next pass goes on with."""
        if self._flow is None:
            self._flow = self._stream(endless=True)
        at = self._at
        assert at is not None
        while at.taken < steps:
            batch = next(self._flow, _NOTHING)
            if isinstance(batch, str) and batch == _NOTHING:
                raise ConfigError(
                    f"rank {self._feed.rank} of {self._feed.world_size} is given no samples, so it has no steps; check "
                    f"filters, and that there are as many samples as ranks"
                )
            at.taken += 1
            yield batch
        at.taken = 0

    def _stream(self, endless: bool) -> Iterator[Any]:
        if self._world_was_found:
            check_world(self._feed.rank, self._feed.world_size)
        states, self._resume = self._resume, []
        if states and states[0].get("tier") == "new":
            self.pipe.set_epoch(states[0]["epoch"])
            states = []
        found = self.plan()
        feed = self._feed
        if isinstance(found, str):
            if feed.world_size > 1 and not endless:
                raise ConfigError(
                    f"{feed.world_size} ranks would take different numbers of steps, and the last one would wait for "
                    f"ever, because {found}: give loader(steps_per_epoch=n)"
                )
            self._at = begin_sequential(self.pipe, feed, max(1, self.num_workers), states, endless)
        else:
            self._at = begin_planned(self.pipe, feed, *found, states[0] if states else None, endless)
        parcels: Iterator[Parcel] = super().__iter__()
        if self.num_workers:
            parcels = _let_go(parcels)
        elif feed.threads:
            parcels = ahead(parcels, self.prefetch)
        return unpack(parcels, self._at, max(1, self.num_workers))


def _let_go(parcels: Iterator[Parcel]) -> Iterator[Parcel]:
    """The same, but a worker's error ends the workers at once.

    The traceback of such an error holds torch's iterator, in a circle with itself. When the collector finds it, its
    queues are gone already, and it waits in vain for each worker to end: 5 s each, in whatever thread it happens to be.
    """
    try:
        yield from parcels
    except Exception as error:
        traceback.clear_frames(error.__traceback__)
        del parcels
        raise


def _as_it_is(item: Any) -> Any:
    return item
