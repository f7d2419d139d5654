"""Tar shards as a source of samples: indexed, counted by other tools, or only read."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa

from streampipe.context import Run, Sample
from streampipe.errors import IndexMismatch, ShardError
from streampipe.index import Finder
from streampipe.index.beside import Beside
from streampipe.index.learn import Learn, LearningFinder
from streampipe.index.table import BYTES
from streampipe.plan.ask import counted_by_others
from streampipe.plan.bucketed import BucketDataset
from streampipe.plan.buckets import Buckets
from streampipe.plan.dataset import Dataset, count
from streampipe.plan.deal import Portion
from streampipe.plan.lanes import Shuffle
from streampipe.plan.packed import PackDataset, count_groups
from streampipe.plan.packing import Packing
from streampipe.query.condition import Keep
from streampipe.reading.indexed import IndexedShard
from streampipe.reading.members import samples_of
from streampipe.reading.shards import ShardSamples
from streampipe.source import Source, redact
from streampipe.tar import Limits
from streampipe.urls import ShardList

_OPEN = 256  # shards whose indexes are held


class Tars:
    """The samples of tar shards. Where ``finder`` learns their indexes, they are learnt as they are read."""

    def __init__(self, shards: ShardList, finder: Finder) -> None:
        self.shards: Sequence[str] = shards
        self.source = finder.source
        self.finder = finder

    def read(self, shard: int, first: int = 0) -> Iterator[Sample]:
        """The samples of a shard, from a number on."""
        return samples_of(self.finder, self.shards[shard], shard=shard, first=first, place=None)


class IndexedTars(Tars):
    """Tars whose samples are known one by one, by their indexes: each can be had by itself. Several threads may ask.

    A shard without an index has no facts, and is read front to back.
    """

    def __init__(self, shards: ShardList, finder: Finder) -> None:
        super().__init__(shards, finder)
        self._dataset = Dataset(shards, finder, np.zeros(len(shards), np.int64))
        self._open: OrderedDict[int, IndexedShard] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}

    def __repr__(self) -> str:
        names = [redact(self.shards[i]).rpartition("/")[2] for i in (0, len(self.shards) - 1)]
        return f"{len(self.shards)} shards, {names[0]} to {names[1]}"

    def facts(self, shard: int, columns: Collection[str] | None) -> pa.Table | None:
        """The index of a shard; None if it has none."""
        found = self.finder.find(self.shards[shard], columns=columns)
        return None if found is None else found.table

    def sample(self, shard: int, number: int) -> Sample:
        """A sample, by its index.

        Raises:
            IndexMismatch, CorruptShard: it is not what the index says.
        """
        found = self._open.get(shard)
        if found is None:
            index = self.finder.find(self.shards[shard], columns=BYTES)
            if index is None:
                raise IndexMismatch(f"{redact(self.shards[shard])}: its index is gone; run streampipe index again")
            self._dataset.counts[shard] = len(index)
            found = self._open[shard] = IndexedShard(self._dataset, shard, index)
            while len(self._open) > _OPEN:
                self._open.popitem(last=False)
        start, end = found.span(number)
        return found.sample(number, self.source.read(self.shards[shard], start, end), 0)


class TarSamples(ShardSamples):
    """The samples of tars, which can do more than other sources: views of a shard, and shards ahead of need."""

    def __init__(
        self,
        shards: ShardList,
        source: Source,
        shuffle: Shuffle,
        limits: Limits,
        index: str | Learn | None = None,
        tier: str | None = None,
        missing_shards: str = "error",
    ) -> None:
        finder = _finder(source, limits, index, missing_shards)
        super().__init__(Tars(shards, finder), shuffle, tier, finder)
        self.limits = limits
        self._by_others: Dataset | None = None

    def _counted(self, keep: Keep | None, groups: Buckets | Packing | None) -> Dataset | BucketDataset | PackDataset:
        """By their manifest, their indexes, or a scan."""
        if groups is not None:
            return count_groups(self.shards, self.finder, groups, keep, self._job)
        return count(self.shards, self.finder, keep, self._job)

    def counted(self) -> Dataset:
        """The samples of the shards by the counts that another tool left beside them: they can only be read forward.

        Raises:
            Uncounted: nobody counted them.
        """
        if self._by_others is None:
            counts = counted_by_others(self.shards, self.finder, self._job)
            self._learn_empty(counts)
            self._by_others = Dataset(self.shards, self.finder, counts, forward=True, indexed=False, given=self.given)
        return self._by_others

    def _learn_empty(self, counts: np.ndarray) -> None:
        """Shards that are counted as empty are never read for their samples: what is to be learnt of them is, now."""
        if self.learning is not None:
            for number in np.flatnonzero(counts == 0):
                with suppress(ShardError):  # who reads the others will hear of it
                    next(samples_of(self.finder, self.shards[int(number)]), None)

    @property
    def learning(self) -> tuple[LearningFinder, ShardList] | None:
        """Their finder, with ``index="learn"``."""
        return (self.finder, self.shards) if isinstance(self.finder, LearningFinder) else None

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
        return samples_of(
            self.finder,
            self.shards[portion.shard],
            coming,
            learn=portion.part == 0,
            epoch=epoch,
            shard=portion.shard,
            part=portion.part,
            parts=portion.parts,
            first=first,
            views=views,
        )


def _finder(source: Source, limits: Limits, index: str | Learn | None, missing_shards: str) -> Finder:
    index = Learn() if index == "learn" else index
    if isinstance(index, Learn):
        return LearningFinder(source, limits, index, missing_shards)
    return Finder(source, limits, index, missing_shards)
