"""From planned steps to their samples, in order: local shards are read when wanted, remote ones ahead of need."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

from streampipe.context import Sample
from streampipe.counters import counters
from streampipe.errors import ShardError
from streampipe.plan.dataset import Dataset
from streampipe.plan.planned import Place
from streampipe.reading.forward import ForwardReader
from streampipe.reading.indexed import IndexedShard
from streampipe.reading.prefetch import Prefetch, Steps
from streampipe.source.buffers import Buffers
from streampipe.source.local import LocalFile

T = TypeVar("T")
_LARGE = 64 << 10
"""Bytes of a sample from which on new memory for each costs more than to look for some that can be used again."""
_KEPT = 256 << 20  # bytes of memory that is used again


class _Open(NamedTuple):
    shard: IndexedShard
    file: LocalFile


class Reader:
    """Reads the samples of steps. A place's ``part`` says of which of the datasets it is.

    Args:
        open_shards: how many local shards stay open, those that were used last.
        window: of the shuffle, where shards are only counted.
    """

    def __init__(self, datasets: Sequence[Dataset], open_shards: int, window: int = 0) -> None:
        self._datasets = datasets
        self._most = open_shards
        self._window = window
        self._buffers = Buffers(_KEPT)
        self._open: OrderedDict[tuple[int, int], _Open] = OrderedDict()

    def read(self, steps: Iterable[tuple[T, Sequence[Place]]], views: bool) -> Steps[T]:
        """Each step with its places and, in their order, their samples; an error stands where its sample would."""
        if any(dataset.forward for dataset in self._datasets):
            return self._forward(steps, views)
        if any(dataset.is_remote for dataset in self._datasets):
            return Prefetch(self._datasets, steps).read(views)
        return ((at, places, (self._sample(place, views) for place in places)) for at, places in steps)

    def _forward(self, steps: Iterable[tuple[T, Sequence[Place]]], views: bool) -> Steps[T]:
        """Those of counted shards are read forward, and so are remote ones beside them."""
        reader = ForwardReader(self._datasets, self._most, 2 * self._window)
        forward = [dataset.forward or dataset.is_remote for dataset in self._datasets]

        def one(place: Place) -> Sample | ShardError:
            return reader.sample(place) if forward[place.part] else self._sample(place, views)

        try:
            for at, places in steps:
                yield at, places, map(one, places)
        finally:
            reader.close()

    def _sample(self, place: Place, views: bool) -> Sample | ShardError:
        try:
            shard, file = self._opened(place.part, place.shard)
            row = shard.row(place.number)
            start, end = shard.span(row)
            if not views or end - start < _LARGE or end > file.size:
                return shard.sample(row, file.read(start, end), place.epoch, views)
            memory = self._buffers.take(end - start)
            file.read_into(memory, start)
            return shard.sample(row, memory, place.epoch, views)
        except ShardError as error:
            return error

    def _opened(self, part: int, number: int) -> _Open:
        at = part, number
        opened = self._open.get(at)
        if opened is None:
            dataset = self._datasets[part]
            shard = IndexedShard(dataset, number)
            file = dataset.finder.source.file(shard.url)
            assert file is not None  # it is local
            opened = self._open[at] = _Open(shard, file)
            counters.add("reading", "shards opened")
            while len(self._open) > self._most:
                self._open.popitem(last=False)
        else:
            self._open.move_to_end(at)
        return opened
