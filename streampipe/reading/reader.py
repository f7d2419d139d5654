"""From planned steps to their samples, in order: local shards are read when wanted, remote ones ahead of need."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import TypeVar

import numpy as np

from streampipe.context import Position, Sample
from streampipe.counters import counters
from streampipe.errors import SampleError, ShardError
from streampipe.plan.clips import PIECE
from streampipe.plan.dataset import Dataset
from streampipe.plan.planned import Place
from streampipe.reading.forward import ForwardReader
from streampipe.reading.indexed import IndexedShard, kept_rows, pieces_of
from streampipe.reading.prefetch import Prefetch, Steps
from streampipe.reading.shards import placed
from streampipe.reading.sliced import OfStep, Part, Parts, as_sample
from streampipe.samplesource import RandomAccess
from streampipe.source.local import DISK, LocalFile

T = TypeVar("T")
Find = Callable[[Sequence[Place]], Part]
"""The samples at the first of some places, one or more, or the errors that they are."""
_PLACES = 64  # that are looked at together, where steps have fewer
_AT_ONCE = 1 << 20
"""Bytes that are read at once where samples lie one behind the other: with half of it a sample of 40 kB costs a tenth
more, with twice as many as much."""
_LARGE = 128 << 10  # bytes of a sample whose fields are read one by one: smaller ones are copied sooner than asked for
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
        self._disk, self._reading = counters.tally(DISK), counters.tally("reading")

    def samples(self, dataset: Dataset, places: Sequence[Place], views: bool) -> Part:
        """The samples of the first of some places of a shard, or of several that can be read at once.

        An error stands where its sample would. Who keeps a view keeps all that was read at once.
        """
        epoch = places[0].epoch
        try:
            shard, file = self._opened(dataset, places[0])
            row, rows = shard.following(places, _AT_ONCE, _AT_ONCE if views else _LARGE)
            start, end = rows[0][0], rows[-1][1]
            if end - start >= _LARGE and len(rows) == 1 and not views and not shard.of_clips:
                alone = shard.by_field(row, rows[0], partial(file.watched, tally=self._disk), epoch)
                if alone is not None:
                    self._reading.given += 1
                    return [alone]
            data = file.watched(start, end, self._disk)
        except ShardError as error:
            return [error] if len(places) == 1 else self.samples(dataset, places[:1], views)
        run = shard.run(row, rows, data, epoch, views) if len(rows) > 1 and not shard.of_clips else None
        if run is not None:
            self._reading.given += len(rows)
            return run
        found = shard.slices(row, rows, data, epoch, views)
        self._reading.given += sum([not isinstance(each, ShardError) for each in found])
        if not shard.of_clips:
            return found
        return [
            each if isinstance(each, ShardError) else shard.named(place.number, as_sample(each))
            for place, each in zip(places, found, strict=False)
        ]

    def _opened(self, dataset: Dataset, place: Place) -> tuple[IndexedShard, LocalFile]:
        """The shard of a place."""
        at = place.part, place.shard
        held, file = self._shards.get(at), self._files.get(at)
        shard = IndexedShard(dataset, place.shard) if held is None else held
        if file is None:
            file = dataset.finder.source.file(shard.url)
            assert file is not None  # it is local
        if held is None:
            shard.check_end(file)
            counters.add("reading", "shards opened")
        _use(self._shards, at, shard, self._most)
        _use(self._files, at, file, _FILES)
        return shard, file


def _use(held: OrderedDict[tuple[int, int], T], at: tuple[int, int], value: T, most: int) -> None:
    """Hold a value as the one that was used last, and let go of the first ones."""
    if at in held:
        held.move_to_end(at)
        return
    held[at] = value
    while len(held) > most:
        held.popitem(last=False)


class Reader:
    """Reads the samples of steps. A place's ``part`` says of which of the datasets it is.

    Args:
        open_shards: how many shards stay open, those that were used last.
        window: of the shuffle, where shards can only be read forward.
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
        self._readers = readers
        self._forward = ForwardReader(datasets, open_shards, 2 * window)
        self._shards = shared or OpenShards(open_shards)
        self._rows: OrderedDict[tuple[int, int], tuple[np.ndarray | None, np.ndarray | None]] = OrderedDict()

    def read(self, steps: Iterable[tuple[T, Sequence[Place]]], views: bool) -> Steps[T]:
        """Each step with its places and, in their order, their samples; an error stands where its sample would."""
        find = [self._how(dataset, views) for dataset in self._datasets]
        if all(each is None for each in find):
            return Prefetch(self._datasets, steps, self._readers).read(views)
        return self._mixed(steps, find, views)

    def _how(self, dataset: Dataset, views: bool) -> Find | None:
        """How samples of a dataset are found; None: together, ahead of need."""
        if dataset.forward:
            return lambda places: [self._forward.sample(places[0])]
        if isinstance(dataset.given, RandomAccess):
            return lambda places: [self._given(places[0])]
        return None if dataset.is_remote else lambda places: self._shards.samples(dataset, places, views)

    def _mixed(self, steps: Iterable[tuple[T, Sequence[Place]]], find: Sequence[Find | None], views: bool) -> Steps[T]:
        """Those that are not read ahead, and between them those that are."""
        ahead = [part for part, each in enumerate(find) if each is None]
        try:
            if not ahead:
                for several in _together(steps):
                    parts = Parts(_parts([place for _, places in several for place in places], find, iter(())))
                    for at, places in several:
                        own = OfStep(parts, len(places))
                        yield at, places, own
                        deque(own, 0)  # what nobody asked for
                return
            split = (((at, places), [each for each in places if each.part in ahead]) for at, places in steps)
            with closing(Prefetch(self._datasets, split, self._readers).read(views)) as found:
                for (at, places), _, came in found:
                    yield at, places, OfStep(Parts(_parts(places, find, came)), len(places))
        finally:
            self._forward.close()

    def _given(self, place: Place) -> Sample | ShardError | SampleError:
        """The sample of a source that gives any."""
        dataset = self._datasets[place.part]
        assert isinstance(dataset.given, RandomAccess)
        try:
            rows, pieces = self._rows_of(place)
            row = place.number if rows is None else int(rows[place.number])
            sample = dataset.given.sample(place.shard, row)
        except (ShardError, SampleError) as error:
            return error
        counters.tally("reading").given += 1
        sample = placed(sample, dataset.shards[place.shard], Position(place.epoch, place.shard, row))
        return sample if pieces is None else {**sample, PIECE: int(pieces[place.number])}

    def _rows_of(self, place: Place) -> tuple[np.ndarray | None, np.ndarray | None]:
        """The rows of a shard that are kept, and which clip of each is meant, as ``IndexedShard`` has them."""
        at, dataset = (place.part, place.shard), self._datasets[place.part]
        if at not in self._rows:
            rows = kept_rows(dataset, place.shard)
            self._rows[at] = rows, pieces_of(dataset, rows)
            while len(self._rows) > self._most:
                self._rows.popitem(last=False)
        self._rows.move_to_end(at)
        return self._rows[at]


def _together(steps: Iterable[tuple[T, Sequence[Place]]]) -> Iterator[list[tuple[T, Sequence[Place]]]]:
    """Steps of few places, several at once."""
    found: list[tuple[T, Sequence[Place]]] = []
    number = 0
    for step in steps:
        found.append(step)
        number += len(step[1])
        if number >= _PLACES:
            yield found
            found, number = [], 0
    if found:
        yield found


def _parts(
    places: Sequence[Place], find: Sequence[Find | None], came: Iterator[Sample | ShardError | SampleError]
) -> Iterator[Part]:
    """The samples at places: as each one's dataset finds it, or the next one that ``came``."""
    at = 0
    while at < len(places):
        how = find[places[at].part]
        found = [next(came)] if how is None else how(places[at:] if at else places)
        at += len(found)
        yield found
