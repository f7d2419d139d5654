"""Shards of any kind: the samples that one consumer reads in one epoch, in order; or, for a plan, their counts."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from functools import partial
from itertools import chain, dropwhile
from typing import Any, TypeVar

import numpy as np

from streampipe.atomic import unique
from streampipe.context import Position, Run, Sample
from streampipe.counters import counters
from streampipe.errors import ConfigError, SampleError, ShardError, ShardMissing
from streampipe.index import Finder, ShardIndex
from streampipe.plan.ask import Uncounted, none_there
from streampipe.plan.bucketed import BucketDataset
from streampipe.plan.buckets import Buckets
from streampipe.plan.clips import ClipKeep
from streampipe.plan.dataset import Dataset, count
from streampipe.plan.deal import Portion, deal, sample_seed, shard_order, shard_seed
from streampipe.plan.lanes import Shuffle, sensible_window
from streampipe.plan.order import traceable, window_bytes
from streampipe.plan.packed import PackDataset, count_groups
from streampipe.plan.packing import Packing
from streampipe.query.condition import Keep
from streampipe.reading.finder import SourceFinder
from streampipe.reading.protocol import Samples, digest
from streampipe.samples import size_of
from streampipe.samplesource import Columns, Counts, Facts, RandomAccess, SampleSource
from streampipe.source import Source, redact
from streampipe.urls import ShardList

T = TypeVar("T")

_AHEAD = 3  # shards that a source is told of before they are wanted


class ShardSamples(Samples):
    """The samples of a source in shards. Calling it reads an epoch of one lane: ``run.consumer`` says which.

    Args:
        shuffle: of shards and samples.
        tier: None: planned if it can be.
    """

    open_shards = 1
    leaves_marks = True
    singly = True

    def __init__(
        self,
        given: SampleSource,
        shuffle: Shuffle = Samples.shuffle,
        tier: str | None = None,
        finder: Finder | None = None,
    ) -> None:
        self.given = given
        names = given.shards
        self.shards = names if isinstance(names, ShardList) else ShardList.of(names)
        if not len(self.shards):
            raise ConfigError(f"{type(given).__name__} has no shards, so no samples")
        self.shuffle = shuffle
        self.tier = tier
        self.finder = finder or SourceFinder(given)
        self._datasets: dict[tuple[str, Any], Dataset | BucketDataset | PackDataset] = {}  # by filter and groups
        self._narrow: dict[frozenset[str], ShardSamples] = {}  # by the fields that are read
        self._job = unique()  # as long as this lives, it means the same data: in its copies in workers, too
        self._asked = shuffle.window
        self.window_bytes = self._window_bytes(1)
        self.together = False  # the shards that are left over are shared by readers, sample by sample

    @property
    def source(self) -> Source:
        """What reads the bytes of shards, where those are asked of it."""
        return self.finder.source

    def begin(self) -> None:
        """See ``Samples.begin``."""
        self.source.begin()

    def reading(self, lanes: int) -> AbstractContextManager[None]:
        """See ``Samples.reading``."""
        windows = lanes * self.window_bytes if self.window else 0
        return self.source.traffic.lanes(lanes, windows) if self.source.is_remote(self.shards[0]) else nullcontext()

    @property
    def streams(self) -> int:
        """As many as shards, where their order is shuffled."""
        return 0 if self.window is None else len(self.shards)

    def _window_bytes(self, lanes: int) -> int:
        """What a lane's window holds at most: together they have half of the memory, reading ahead has the other."""
        return window_bytes(lanes, self.source.network.memory // 2)

    def in_lanes(self, places: int, lanes: int) -> ShardSamples:
        """The same samples for so many lanes, of which ``places`` meet in a batch: a window that was not given follows
        from that.
        """
        return self._in(True, sensible_window(places), self._window_bytes(lanes))

    def _in(self, together: bool, window: int | None, most: int) -> ShardSamples:
        """The same samples for lanes that follow from the data, or for readers with a stream each."""
        found = copy(self)
        found.together, found.window_bytes = together, most
        if self.shuffle.chosen:
            found.shuffle = self.shuffle._replace(window=window)
        return found

    @property
    def numbers(self) -> dict[str, Any]:
        """How shards are dealt to lanes, and a lane's window."""
        return {"window": self.window, "bytes": self.window_bytes, "together": self.together}

    def as_saved(self, places: int, columns: int, numbers: Mapping[str, Any]) -> ShardSamples:
        """See ``Samples.as_saved``."""
        window, together = numbers.get("window"), bool(numbers.get("together"))
        most = numbers.get("bytes") or window_bytes(places * columns if together else 1)  # of an older release
        return self._in(together, self.window if window is None else window, most)

    def only(self, fields: frozenset[str]) -> ShardSamples:
        """See ``Samples.only``."""
        if fields not in self._narrow:
            given = self.given.only(fields) if isinstance(self.given, Columns) else None
            found = self
            if given is not None:
                found = copy(self)
                found.given, found.fields_read, found._datasets, found._narrow = given, fields, {}, {}
            self._narrow[fields] = found
        return self._narrow[fields]

    def dataset(
        self, keep: Keep | None = None, groups: Buckets | Packing | None = None
    ) -> Dataset | BucketDataset | PackDataset:
        """The samples of the shards that ``keep`` keeps, counted, by ``groups`` if they are given.

        The first call may have to look at every shard.

        Raises:
            Uncounted: they cannot be counted.
        """
        text = (keep.text if keep else "", groups)
        if text not in self._datasets:
            self._datasets[text] = self._counted(keep, groups)
        return self._datasets[text]

    def _counted(self, keep: Keep | None, groups: Buckets | Packing | None) -> Dataset | BucketDataset | PackDataset:
        given = self.given
        if isinstance(given, Counts) and keep is None and groups is None:
            numbers = given.counts()
            if numbers is not None:
                known = np.array(numbers, np.int64)
                indexed = isinstance(given, (Facts, RandomAccess))
                return Dataset(self.shards, self.finder, known, None, None, 0, None, self._forward, indexed, given)
        if not isinstance(given, Facts):
            what = (
                "the sizes of its images"
                if isinstance(groups, Buckets)
                else "facts of its samples"
                if keep or groups
                else "how many samples it has"
            )
            raise Uncounted(f"{type(given).__name__} does not know {what}")
        if isinstance(keep, ClipKeep) and self._forward:
            raise Uncounted(f"{type(given).__name__} is read forward, and clips of one video come at different times")
        counted: Any = count if groups is None else partial(count_groups, groups=groups)
        found: Dataset | BucketDataset | PackDataset = counted(self.shards, self.finder, keep=keep, job=None)
        for dataset in found.parts():
            dataset.given, dataset.forward = given, self._forward
        return found

    def counted(self) -> Dataset | BucketDataset | PackDataset:
        """All samples, where more was asked than the source knows.

        Raises:
            Uncounted: it does not count them either.
        """
        return self.dataset()

    @property
    def _forward(self) -> bool:
        return not isinstance(self.given, RandomAccess)

    def indexes(self) -> Iterator[ShardIndex]:
        """What is known of the shards, one after the other."""
        return filter(None, map(self.finder.find, self.shards))

    def lift(self, counted: bool) -> str:
        """The abilities of a source that it lacks."""
        return f"{'' if counted else 'counts() or '}facts() of its source would lift it"

    def identity(self) -> list[Any]:
        """The names of the shards."""
        names = self._names()
        return [f"{len(names)} shards, {names[0]} to {names[-1]} ({digest(names)})"]

    def _names(self) -> list[str]:
        return [redact(name) for name in self.shards]

    def __call__(self, run: Run, epoch: int, views: bool = False, at: Sequence[int] = ()) -> Iterator[Sample]:
        """One epoch of one consumer. Fields are bytes; with ``views`` they may be memoryviews of a shard.

        It leaves the mark (epoch, shard, sample, position): what stands from ``sample`` of ``shard`` on must be read to
        give the next one, which is number ``position`` where there is a window. ``at``: such a mark without its epoch.
        """
        if at and len(at) != (3 if self.window else 2):
            raise ConfigError(
                f"the state's mark {tuple(at)} is of another kind of stream; start a new epoch without it"
            )
        return self._shuffled(run, epoch, views, at) if self.window else self._listed(run, epoch, views, at)

    def __repr__(self) -> str:
        shuffle = "" if self.window is None else f", shuffle={self._asked or True}"
        return f"stream({self._named()}{shuffle})"

    def _named(self) -> str:
        """The source in words that are the same in every process."""
        return re.sub(r" at 0x[0-9a-f]+", "", f"{self.given!r}, {len(self.shards)} shards")

    def _listed(self, run: Run, epoch: int, views: bool, at: Sequence[int]) -> Iterator[Sample]:
        for sample in self._in_order(run, epoch, views, at):
            _, shard, number = sample["__position__"]
            run.trail.mark = (epoch, shard, number + 1)
            yield sample

    def _shuffled(self, run: Run, epoch: int, views: bool, at: Sequence[int]) -> Iterator[Sample]:
        # Each sample's own bytes: a view would hold the whole piece of a shard that it was cut from.
        items = self._in_order(run, epoch, False, at[:2])
        window, seed, start = self.window or 0, sample_seed(run.seed, epoch, run.consumer), at[2] if at else 0
        traffic = self.source.traffic if self.source.is_remote(self.shards[0]) else None
        held = 0

        def holds(sample: Sample, sign: int) -> None:
            nonlocal held
            if traffic is not None:
                more = sign * size_of(sample)
                traffic.hold(more)
                held += more

        def counted() -> Iterator[tuple[Sample, Any, Any]]:
            for sample in items:
                holds(sample, 1)
                yield sample, sample["__position__"], None

        def left(sample: Sample) -> None:
            holds(sample, -1)

        try:
            for sample, position, place in traceable(counted(), window, seed, start, size_of, self.window_bytes, left):
                run.trail.mark = (*place, position)
                yield sample
        finally:
            if traffic is not None:
                traffic.hold(-held)

    def _in_order(self, run: Run, epoch: int, views: bool, at: Sequence[int]) -> Iterator[Sample]:
        seed = None if self.window is None else shard_seed(run.seed, epoch)
        portions = deal(shard_order(len(self.shards), seed), run.consumer.number, run.consumer.total, not self.together)
        if at:
            portions = dropwhile(lambda portion: portion.shard != at[0], portions)
            begin = next(portions, None)
            if begin is None:
                raise ConfigError(f"the state goes on in shard {at[0]}, which this consumer does not read; start anew")
            portions = chain([begin], portions)
        some, urls = False, list[str]()
        try:
            for portion, coming in with_next(portions, _AHEAD):
                first = at[1] if at and portion.shard == at[0] else 0
                urls = [self.shards[each.shard] for each in (portion, *coming)]
                some |= yield from self._shard(run, epoch, portion, first, urls[1:], views)
            if run.consumer.total == 1 and not run.resumed:
                run.policy.end("reading")
                if not some:
                    raise none_there(self.shards)
        finally:
            self.source.close(urls)  # what others asked for ahead is theirs

    def _shard(
        self, run: Run, epoch: int, portion: Portion, first: int, coming: Sequence[str], views: bool
    ) -> Generator[Sample, None, bool]:
        """The samples of a shard, and at the end whether it was there."""
        try:
            yield from self._walk(run, epoch, portion, first, coming, views)
        except ShardMissing as error:
            self.finder.skip_missing(error)
            return False
        except ShardError as error:
            run.policy.failed(error, "reading")
        else:
            run.policy.passed("reading")
            counters.add("reading", "shards", 1 / portion.parts)
        return True

    def _walk(
        self, run: Run, epoch: int, portion: Portion, first: int, coming: Sequence[str], views: bool
    ) -> Iterator[Sample]:
        """The samples of a portion of a shard, from number ``first`` of the shard on."""
        number, part, parts = portion
        tally = counters.tally("reading")
        for sample in walk(self.given, number, epoch, first, lambda error: run.policy.failed(error, "reading")):
            if sample["__position__"].sample % parts == part:
                tally.given += 1
                yield sample


def walk(
    given: SampleSource, shard: int, epoch: int, first: int, failed: Callable[[SampleError], None] | None = None
) -> Generator[Sample, None, None]:
    """The samples of a shard of a source, from a number on, each with its place.

    Where each can be had by itself, ``failed`` is told of those that cannot, and the others follow.
    """
    name = given.shards[shard]
    if failed is None or not (isinstance(given, RandomAccess) and isinstance(given, Counts)):
        for number, sample in enumerate(given.read(shard, first), first):
            yield placed(sample, name, Position(epoch, shard, number))
        return
    for number in range(first, (given.counts() or ())[shard]):
        try:
            sample = given.sample(shard, number)
        except SampleError as error:
            failed(error)
        else:
            yield placed(sample, name, Position(epoch, shard, number))


def placed(sample: Sample, name: str, position: Position) -> Sample:
    """A sample of a source with what every sample has: its key, where it is from, and its place.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(sample, dict) or not isinstance(sample.get("__key__"), str):
        raise ConfigError(
            f"{redact(name)}, sample {position.sample}: a sample source gives dicts with a text as __key__, not "
            f"{sample!r:.80}"
        )
    own = {"__key__": sample["__key__"], "__url__": sample.get("__url__") or redact(name), "__position__": position}
    return own | {name: value for name, value in sample.items() if name not in own}


def with_next(items: Iterable[T], most: int) -> Iterator[tuple[T, list[T]]]:
    """Each item with those that come after it, at most so many.

    >>> list(with_next("abc", 2))
    [('a', ['b', 'c']), ('b', ['c']), ('c', [])]
    """
    coming: deque[T] = deque()
    for item in items:
        coming.append(item)
        if len(coming) > most:
            yield coming.popleft(), list(coming)
    while coming:
        yield coming.popleft(), list(coming)
