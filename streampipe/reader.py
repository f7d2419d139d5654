"""From planned steps to their samples, in order."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from streampipe.context import Sample
from streampipe.counters import counters
from streampipe.dataset import Dataset
from streampipe.errors import ShardError
from streampipe.indexed import IndexedShard
from streampipe.planned import Place
from streampipe.source import local_path
from streampipe.threads import ordered

T = TypeVar("T")

_REMOTE_READS = 16


class _Open(NamedTuple):
    shard: IndexedShard
    data: memoryview | None  # all of its bytes, where they are mapped


class Reader:
    """Reads the samples of steps. A place's ``part`` says of which of the datasets it is.

    Args:
        open_shards: how many stay open, those that were used last.
    """

    def __init__(self, datasets: Sequence[Dataset], open_shards: int) -> None:
        self._datasets = datasets
        self._most = open_shards
        self._open: OrderedDict[tuple[int, int], _Open] = OrderedDict()
        self._remote = any(local_path(dataset.shards[0]) is None for dataset in datasets)

    def read(
        self, steps: Iterable[tuple[T, Sequence[Place]]], views: bool
    ) -> Iterator[tuple[T, Sequence[Place], Iterator[Sample | ShardError]]]:
        """Each step with its places and, in their order, their samples; an error stands where its sample would."""
        for at, places in steps:
            if self._remote:
                for place in places:
                    self._opened(place)  # here, because the threads only read

            def one(place: Place) -> Sample | ShardError:
                try:
                    return self._sample(place, views)
                except ShardError as error:
                    return error

            yield at, places, ordered(one, places, _REMOTE_READS if self._remote else 0)

    def _sample(self, place: Place, views: bool) -> Sample:
        shard, mapped = self._opened(place)
        row = shard.row(place.number)
        start, end = shard.span(row)
        data: bytes | memoryview
        if mapped is None:
            data = self._datasets[place.part].finder.source.read(shard.url, start, end)
        else:
            data = mapped[start:end]
        return shard.sample(row, data, place.epoch, views)

    def _opened(self, place: Place) -> _Open:
        at = place.part, place.shard
        opened = self._open.get(at)
        if opened is None:
            dataset = self._datasets[place.part]
            shard = IndexedShard(dataset, place.shard)
            opened = self._open[at] = _Open(shard, dataset.finder.source.buffer(shard.url))
            counters.add("reading", "shards opened")
            while len(self._open) > self._most:
                self._open.popitem(last=False)
        else:
            self._open.move_to_end(at)
        return opened
