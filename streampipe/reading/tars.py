"""Tar shards as a source of samples: indexed, counted by other tools, or only read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import chain

from streampipe.context import Run, Sample
from streampipe.index import Finder
from streampipe.index.beside import Beside
from streampipe.index.known import known_counts
from streampipe.plan.bucketed import BucketDataset, count_buckets
from streampipe.plan.buckets import Buckets
from streampipe.plan.dataset import Dataset, Uncounted, count
from streampipe.plan.deal import Portion
from streampipe.query.condition import Keep
from streampipe.reading.shards import ShardSamples
from streampipe.samples import group
from streampipe.source import Source, redact
from streampipe.tar import Limits, Member, compression_of, decompress, stream_members
from streampipe.urls import ShardList


class Tars:
    """The samples of tar shards."""

    def __init__(self, shards: ShardList, source: Source, limits: Limits) -> None:
        self.shards: Sequence[str] = shards
        self.source = source
        self.limits = limits

    def read(self, shard: int, first: int = 0) -> Iterator[Sample]:
        """The samples of a shard, from a number on."""
        url = self.shards[shard]
        members = members_of(self.source, self.limits, url)
        return group(members, redact(url), shard=shard, first=first, limits=self.limits, place=None)


class TarSamples(ShardSamples):
    """The samples of tars, which can do more than other sources: views of a shard, and shards ahead of need."""

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
        finder = Finder(source, limits, index, missing_shards)
        super().__init__(Tars(shards, source, limits), window, tier, sensible, finder)
        self.limits = limits
        self._by_others: Dataset | None = None

    def _counted(self, keep: Keep | None, buckets: Buckets | None) -> Dataset | BucketDataset:
        """By their manifest, their indexes, or a scan."""
        if buckets is not None:
            return count_buckets(self.shards, self.finder, buckets, keep)
        return count(self.shards, self.finder, keep)

    def counted(self) -> Dataset:
        """The samples of the shards by the counts that another tool left beside them: they can only be read forward.

        Raises:
            Uncounted: nobody counted them.
        """
        if self._by_others is None:
            counts = known_counts(self.shards, self.source) if self.source.opener is None else None
            if counts is None:
                raise Uncounted("nobody counted the samples of its shards")
            self._by_others = Dataset(self.shards, self.finder, counts, forward=True, indexed=False, given=self.given)
        return self._by_others

    def lift(self, counted: bool) -> str:
        """An index."""
        known = "samples known one by one" if counted else "it indexed"
        return f"an index (streampipe index, or index='learn') would make {known}"

    def beside(self) -> Beside:
        """Beside the shards."""
        return Beside(self.shards, self.source, self.limits)

    def _named(self) -> str:
        names = [redact(self.shards[i]).rpartition("/")[2] for i in (0, len(self.shards) - 1)]
        return f"{len(self.shards)} shards, {names[0]} to {names[1]}"

    def _names(self) -> list[str]:
        return [redact(url) if "://" in url else os.path.abspath(url) for url in self.shards]

    def _walk(
        self, run: Run, epoch: int, portion: Portion, first: int, coming: Sequence[str], views: bool
    ) -> Iterator[Sample]:
        url = self.shards[portion.shard]
        return group(
            members_of(self.source, self.limits, url, coming),
            redact(url),
            epoch=epoch,
            shard=portion.shard,
            part=portion.part,
            parts=portion.parts,
            first=first,
            views=views,
            limits=self.limits,
        )


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
