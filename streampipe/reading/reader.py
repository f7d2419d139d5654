"""From planned steps to their samples, in order: local shards are read when wanted, remote ones ahead of need."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TypeVar

from streampipe.context import Sample
from streampipe.counters import counters
from streampipe.errors import ShardError
from streampipe.plan.dataset import Dataset
from streampipe.plan.planned import Place
from streampipe.reading.forward import ForwardReader
from streampipe.reading.indexed import IndexedShard
from streampipe.reading.prefetch import Prefetch, Steps
from streampipe.source.local import LocalFile

T = TypeVar("T")


_FILES = 256


class OpenShards:
    """Local shards that stay open: at most so many, those that were used last. Several readers may share them.

    What the index of a shard says is held as long as the shard is; its file may be closed before, because a process has
    few descriptors, and opening a file again costs nothing beside reading an index.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._shards: OrderedDict[tuple[int, int], IndexedShard] = OrderedDict()
        self._files: OrderedDict[tuple[int, int], LocalFile] = OrderedDict()

    def sample(self, dataset: Dataset, place: Place, views: bool) -> Sample | ShardError:
        """The sample at a place, or the error that it is."""
        at = place.part, place.shard
        try:
            shard = self._shards.get(at)
            if shard is None:
                shard = IndexedShard(dataset, place.shard)
                counters.add("reading", "shards opened")
            _use(self._shards, at, shard, self._most)
            file = self._files.get(at) or dataset.finder.source.file(shard.url)
            assert file is not None  # it is local
            _use(self._files, at, file, _FILES)
            row = shard.row(place.number)
            return shard.sample(row, file.read(*shard.span(row)), place.epoch, views)
        except ShardError as error:
            return error


def _use(held: OrderedDict[tuple[int, int], T], at: tuple[int, int], value: T, most: int) -> None:
    """Hold a value as the one that was used last, and let go of the first ones."""
    held[at] = value
    held.move_to_end(at)
    while len(held) > most:
        held.popitem(last=False)


class Reader:
    """Reads the samples of steps. A place's ``part`` says of which of the datasets it is.

    Args:
        open_shards: how many shards stay open, those that were used last.
        window: of the shuffle, where shards are only counted.
        shared: the local shards that are open, where several readers share them.
        readers: of this process that share what it may hold.
    """

    def __init__(
        self,
        datasets: Sequence[Dataset],
        open_shards: int,
        window: int = 0,
        shared: OpenShards | None = None,
        readers: int = 1,
    ) -> None:
        self._datasets = datasets
        self._most = open_shards
        self._window = window
        self._readers = readers
        self._shards = shared or OpenShards(open_shards)

    def read(self, steps: Iterable[tuple[T, Sequence[Place]]], views: bool) -> Steps[T]:
        """Each step with its places and, in their order, their samples; an error stands where its sample would."""
        if any(dataset.forward for dataset in self._datasets):
            return self._forward(steps, views)
        if any(dataset.is_remote for dataset in self._datasets):
            return Prefetch(self._datasets, steps, self._readers).read(views)
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
        return self._shards.sample(self._datasets[place.part], place, views)
