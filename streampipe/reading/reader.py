"""From planned steps to their samples, in order: local shards are read when wanted, remote ones ahead of need."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from typing import NamedTuple, TypeVar

import numpy as np

from streampipe.context import Position, Sample
from streampipe.counters import counters
from streampipe.errors import SampleError, ShardError
from streampipe.plan.dataset import Dataset
from streampipe.plan.planned import Place
from streampipe.reading.forward import ForwardReader
from streampipe.reading.indexed import IndexedShard, kept_rows
from streampipe.reading.prefetch import Prefetch, Steps
from streampipe.reading.shards import placed
from streampipe.samplesource import RandomAccess
from streampipe.source.local import LocalFile

T = TypeVar("T")
Find = Callable[[Place], "Sample | ShardError | SampleError"]
"""The sample at a place, or the error that it is."""


class _Open(NamedTuple):
    shard: IndexedShard
    file: LocalFile


class Reader:
    """Reads the samples of steps. A place's ``part`` says of which of the datasets it is.

    Args:
        open_shards: how many local shards stay open, those that were used last.
        window: of the shuffle, where shards can only be read forward.
    """

    def __init__(self, datasets: Sequence[Dataset], open_shards: int, window: int = 0) -> None:
        self._datasets = datasets
        self._most = open_shards
        self._forward = ForwardReader(datasets, open_shards, 2 * window)
        self._open: OrderedDict[tuple[int, int], _Open] = OrderedDict()
        self._rows: OrderedDict[tuple[int, int], np.ndarray | None] = OrderedDict()

    def read(self, steps: Iterable[tuple[T, Sequence[Place]]], views: bool) -> Steps[T]:
        """Each step with its places and, in their order, their samples; an error stands where its sample would."""
        find = [self._how(dataset, views) for dataset in self._datasets]
        if all(each is None for each in find):
            return Prefetch(self._datasets, steps).read(views)
        return self._mixed(steps, find, views)

    def _how(self, dataset: Dataset, views: bool) -> Find | None:
        """How samples of a dataset are found; None: together, ahead of need."""
        if dataset.forward:
            return self._forward.sample
        if isinstance(dataset.given, RandomAccess):
            return self._given
        return None if dataset.is_remote else lambda place: self._sample(place, views)

    def _mixed(self, steps: Iterable[tuple[T, Sequence[Place]]], find: Sequence[Find | None], views: bool) -> Steps[T]:
        """Those that are not read ahead, and between them those that are."""
        ahead = [part for part, each in enumerate(find) if each is None]

        def one(place: Place, came: Iterator[Sample | ShardError | SampleError]) -> Sample | ShardError | SampleError:
            how = find[place.part]
            return next(came) if how is None else how(place)

        try:
            if not ahead:
                for at, places in steps:
                    yield at, places, (one(place, iter(())) for place in places)
                return
            split = (((at, places), [each for each in places if each.part in ahead]) for at, places in steps)
            with closing(Prefetch(self._datasets, split).read(views)) as found:
                for (at, places), _, came in found:
                    yield at, places, (one(place, came) for place in places)
        finally:
            self._forward.close()

    def _given(self, place: Place) -> Sample | ShardError | SampleError:
        """The sample of a source that gives any."""
        dataset = self._datasets[place.part]
        assert isinstance(dataset.given, RandomAccess)
        try:
            rows = self._rows_of(place)
            row = place.number if rows is None else int(rows[place.number])
            sample = dataset.given.sample(place.shard, row)
        except (ShardError, SampleError) as error:
            return error
        counters.add("reading", "samples")
        return placed(sample, dataset.shards[place.shard], Position(place.epoch, place.shard, row))

    def _rows_of(self, place: Place) -> np.ndarray | None:
        at = place.part, place.shard
        if at not in self._rows:
            self._rows[at] = kept_rows(self._datasets[place.part], place.shard)
            while len(self._rows) > self._most:
                self._rows.popitem(last=False)
        self._rows.move_to_end(at)
        return self._rows[at]

    def _sample(self, place: Place, views: bool) -> Sample | ShardError:
        try:
            shard, file = self._opened(place)
            row = shard.row(place.number)
            return shard.sample(row, file.read(*shard.span(row)), place.epoch, views)
        except ShardError as error:
            return error

    def _opened(self, place: Place) -> _Open:
        at = place.part, place.shard
        opened = self._open.get(at)
        if opened is None:
            dataset = self._datasets[place.part]
            shard = IndexedShard(dataset, place.shard)
            file = dataset.finder.source.file(shard.url)
            assert file is not None  # it is local
            opened = self._open[at] = _Open(shard, file)
            counters.add("reading", "shards opened")
            while len(self._open) > self._most:
                self._open.popitem(last=False)
        else:
            self._open.move_to_end(at)
        return opened
