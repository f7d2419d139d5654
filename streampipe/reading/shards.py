"""Shards as a source of samples: what one consumer reads in one epoch, in order; or, for a plan, their counts."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from copy import copy
from functools import partial
from itertools import chain, dropwhile
from typing import TypeVar

from streampipe.atomic import unique
from streampipe.context import Run, Sample
from streampipe.counters import counters
from streampipe.errors import ConfigError, ShardError, ShardMissing
from streampipe.index import Finder
from streampipe.plan.ask import counted_by_others, none_there
from streampipe.plan.bucketed import BucketDataset, count_buckets
from streampipe.plan.buckets import Buckets
from streampipe.plan.dataset import Dataset, count
from streampipe.plan.deal import Portion, deal, sample_seed, shard_order, shard_seed
from streampipe.plan.lanes import sensible_window
from streampipe.plan.order import traceable
from streampipe.query.condition import Keep
from streampipe.samples import group, size_of
from streampipe.source import Source, redact
from streampipe.tar import Limits, Member, compression_of, decompress, stream_members
from streampipe.urls import ShardList

T = TypeVar("T")

_AHEAD = 3  # shards that a source is told of before they are wanted


class ShardSamples:
    """The samples of a list of shards. Calling it reads an epoch of one lane: ``run.consumer`` says which."""

    leaves_marks = True

    def __init__(
        self,
        shards: ShardList,
        source: Source,
        window: int | None,
        limits: Limits,
        index: str | None = None,
        tier: str | None = None,
        sensible: bool = False,
        missing_shards: str = "error",
    ) -> None:
        self.shards = shards
        self.source = source
        self.window = window  # None: shard order; 0: shards shuffled, samples not; else the shuffle's window
        self.sensible = sensible  # a plan chooses the window by its lanes
        self.limits = limits
        self.tier = tier  # None: planned if it can be
        self.finder = Finder(source, limits, index, missing_shards)
        self._datasets: dict[tuple[str, Buckets | None], Dataset | BucketDataset] = {}  # by filter and buckets
        self._by_others: Dataset | None = None
        self._job = unique()  # as long as this lives, it means the same data: in its copies in workers, too
        self._shared = True  # the shards that are left over are shared by readers, sample by sample

    def in_lanes(self, places: int) -> ShardSamples:
        """The same samples for lanes of which so many meet in a batch: a window that was not given follows from it."""
        found = copy(self)
        found._shared = False
        if self.sensible:
            found.window = sensible_window(places)
        return found

    def counted(self) -> Dataset:
        """The samples of the shards by the counts that another tool left beside them: they can only be read forward.

        Raises:
            Uncounted: nobody counted them.
        """
        if self._by_others is None:
            counts = counted_by_others(self.shards, self.finder, self._job)
            self._by_others = Dataset(self.shards, self.finder, counts, forward=True)
        return self._by_others

    def dataset(self, keep: Keep | None = None, buckets: Buckets | None = None) -> Dataset | BucketDataset:
        """The samples of the shards that ``keep`` keeps, counted, by bucket if ``buckets`` are given.

        The first call may have to look at every shard.

        Raises:
            Uncounted: they cannot be counted.
        """
        text = (keep.text if keep else "", buckets)
        if text not in self._datasets:
            counted = count if buckets is None else partial(count_buckets, buckets=buckets)
            self._datasets[text] = counted(self.shards, self.finder, keep=keep, job=self._job)
        return self._datasets[text]

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
        names = [redact(self.shards[i]).rpartition("/")[2] for i in (0, len(self.shards) - 1)]
        shuffle = "" if self.window is None else f", shuffle={self.window or True}"
        return f"stream({len(self.shards)} shards, {names[0]} to {names[1]}{shuffle})"

    def _listed(self, run: Run, epoch: int, views: bool, at: Sequence[int]) -> Iterator[Sample]:
        for sample in self._in_order(run, epoch, views, at):
            _, shard, number = sample["__position__"]
            run.trail.mark = (epoch, shard, number + 1)
            yield sample

    def _shuffled(self, run: Run, epoch: int, views: bool, at: Sequence[int]) -> Iterator[Sample]:
        # Each sample's own bytes: a view would hold the whole piece of a shard that it was cut from.
        items = ((sample, sample["__position__"], None) for sample in self._in_order(run, epoch, False, at[:2]))
        window, seed, start = self.window or 0, sample_seed(run.seed, epoch, run.consumer), at[2] if at else 0
        for sample, position, place in traceable(items, window, seed, start, size_of):
            run.trail.mark = (*place, position)
            yield sample

    def _in_order(self, run: Run, epoch: int, views: bool, at: Sequence[int]) -> Iterator[Sample]:
        seed = None if self.window is None else shard_seed(run.seed, epoch)
        portions = deal(shard_order(len(self.shards), seed), run.consumer.number, run.consumer.total, self._shared)
        if at:
            portions = dropwhile(lambda portion: portion.shard != at[0], portions)
            begin = next(portions, None)
            if begin is None:
                raise ConfigError(f"the state goes on in shard {at[0]}, which this consumer does not read; start anew")
            portions = chain([begin], portions)
        some = False
        try:
            for portion, coming in with_next(portions, _AHEAD):
                first = at[1] if at and portion.shard == at[0] else 0
                urls = [self.shards[each.shard] for each in coming]
                some |= yield from self._shard(run, epoch, portion, first, urls, views)
            if run.consumer.total == 1 and not run.resumed:
                run.policy.end("reading")
                if not some:
                    raise none_there(self.shards)
        finally:
            self.source.close()

    def _shard(
        self, run: Run, epoch: int, portion: Portion, first: int, coming: Sequence[str], views: bool
    ) -> Generator[Sample, None, bool]:
        """The samples of a shard, and at the end whether it was there."""
        url = self.shards[portion.shard]
        shown = redact(url)
        try:
            yield from group(
                members_of(self.source, self.limits, url, coming),
                shown,
                epoch=epoch,
                shard=portion.shard,
                part=portion.part,
                parts=portion.parts,
                first=first,
                views=views,
                limits=self.limits,
            )
        except ShardMissing as error:
            self.finder.skip_missing(error)
            return False
        except ShardError as error:
            run.policy.failed(error, "reading")
        else:
            run.policy.passed("reading")
            counters.add("reading", "shards", 1 / portion.parts)
        return True


def members_of(source: Source, limits: Limits, url: str, coming: Sequence[str] = ()) -> Iterator[Member]:
    """The members of a shard, front to back. ``coming``: the URLs of the shards that will be read after it."""
    shown = redact(url)
    chunks = source.chunks(url, coming)
    head = next(chunks, b"")
    whole: Iterator[bytes] = chain([head] if head else [], chunks)
    kind = compression_of(url, bytes(head[:8]))
    if kind is not None:
        whole = decompress(whole, shard=shown, kind=kind, limits=limits)
    return stream_members(whole, shard=shown, limits=limits)


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
