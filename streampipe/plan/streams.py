"""Lanes of shards that are read forward, because their samples are not indexed, or a stage keeps too much to jump.

There are as many lanes as the shards and the global batch allow, whatever the ranks and workers. A lane's share of an
epoch is a list of portions of shards, one after the other. Where samples are not counted, whole shards are dealt to the
lanes (``deal``). Where they are, lanes are those of an indexed plan: lane v of V covers the positions [vN/V, (v+1)N/V)
of the epoch's stream. So they end together to the sample, the batches are an indexed plan's (``Lanes``, ``Cut``), and
a dataset whose index is made later goes on as it was. Only numbers by shard are held, for the epochs in use.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import numpy as np

from streampipe.plan.dataset import EpochStream, within
from streampipe.plan.deal import Order, Portion, deal, shard_order, shard_seed
from streampipe.plan.lanes import batch_seed, lane_seed
from streampipe.plan.order import window_slice, window_start
from streampipe.plan.rotation import Rotation

T = TypeVar("T")
LEAST_LANES = 64
"""So many lanes there may be for the smallest batch."""
_COLUMNS = 4  # at least, where there are lanes enough: so many workers of a rank are used
_MOST_COLUMNS = 12
_SHARE = 16
_EPOCHS = 2  # whose orders are kept: lanes of an endless pass go on to their next epoch each by itself


def choose_streams(size: int, shards: int) -> Rotation:
    """The lanes of a new run: they follow from the global batch and the number of shards alone.

    Each lane has a shard open, so there are at most 64 (of batches from 96 samples on, 12 for every 16 of them), and no
    more than shards. Places divide the batch, and a quarter of the lanes at most, so that four workers have a column
    each; of those the number with the most divisors, so that they can be divided among many numbers of ranks. Columns
    are a divisor of 12.

    >>> [(r.places, r.columns) for r in (choose_streams(size, 10_000) for size in (1, 8, 16, 48, 256, 1024))]
    [(1, 12), (8, 6), (16, 4), (12, 4), (32, 6), (128, 6)]
    >>> [(r.places, r.columns) for r in (choose_streams(256, shards) for shards in (1, 3, 10, 100))]
    [(1, 1), (1, 3), (2, 4), (16, 6)]
    """
    most = max(1, min(shards, max(LEAST_LANES, _MOST_COLUMNS * max(1, size // _SHARE))))
    fitting = (a for a in range(1, max(1, most // _COLUMNS) + 1) if size % a == 0)
    places = max(fitting, key=lambda a: (_divisors(a), a))
    columns = max(t for t in range(1, _MOST_COLUMNS + 1) if _MOST_COLUMNS % t == 0 and places * t <= most)
    return Rotation(size, places, columns)


def _divisors(number: int) -> int:
    return sum(number % d == 0 for d in range(1, number + 1))


class Streams:
    """What each of a number of lanes reads in an epoch: whole shards, and of the few that remain a share each.

    Args:
        shards: how many shards there are.
        lanes: how many lanes.
        seed: the run's; the same seed gives the order of an indexed plan.
        window: of each lane's shuffle; 0: shards are permuted, samples are not; None: all as listed.

    >>> [[(each.shard, each.part, each.parts) for each in Streams(3, 2, 0).portions(0, lane)] for lane in (0, 1)]
    [[(0, 0, 1), (2, 0, 2)], [(1, 0, 1), (2, 1, 2)]]
    """

    def __init__(self, shards: int, lanes: int, seed: int, window: int | None = None) -> None:
        self.shards = shards
        self.lanes = lanes
        self.seed = seed
        self.window = window
        self._order = Recent(self._order_of, _EPOCHS)

    def portions(self, epoch: int, lane: int, first: int = 0) -> Iterator[Portion]:
        """What a lane reads in an epoch, in order, from its ``first``-th portion on."""
        return deal(self._order(epoch), lane, self.lanes, first)

    def order_seed(self, epoch: int, lane: int) -> int:
        """The seed of a lane's windowed shuffle."""
        return lane_seed(batch_seed(self.seed, epoch), lane)

    def _shard_seed(self, epoch: int) -> int | None:
        return None if self.window is None else shard_seed(self.seed, epoch)

    def _order_of(self, epoch: int) -> Order:
        return shard_order(self.shards, self._shard_seed(epoch))


class CountedStreams(Streams):
    """The same where it is known how many samples each shard has: lanes of equal numbers of samples.

    Of every epoch's stream they have the samples [first, last), all by default (see ``Dataset.limited``).

    >>> streams = CountedStreams(np.array([3, 1, 0, 2]), 2, seed=0)
    >>> [[(each.shard, each.first, each.last) for each in streams.portions(0, lane)] for lane in (0, 1)]
    [[(0, 0, 3)], [(1, 0, 1), (2, 0, 0), (3, 0, 2)]]
    """

    def __init__(
        self,
        counts: np.ndarray,
        lanes: int,
        seed: int,
        window: int | None = None,
        first: int = 0,
        last: int | None = None,
    ) -> None:
        super().__init__(len(counts), lanes, seed, window)
        self.counts = counts
        self.first, self.last = within(int(counts.sum()), first, last)
        self.samples = self.last - self.first
        self._stream = Recent(self._stream_of, _EPOCHS)

    def portions(self, epoch: int, lane: int, first: int = 0) -> Iterator[Portion]:
        """What a lane reads in an epoch, in order, from its ``first``-th portion on."""
        start, end = self.bounds(lane)
        stream = self._stream(epoch)
        turn, before = stream.turn(start)
        while before < end:
            shard = int(stream.shards[turn])
            count = int(self.counts[shard])
            if first <= 0:
                yield Portion(shard, first=max(0, start - before), last=min(count, end - before))
            turn, before, first = turn + 1, before + count, first - 1

    def bounds(self, lane: int) -> tuple[int, int]:
        """The positions of the epoch's stream that a lane covers: first and one past the last."""
        return lane * self.samples // self.lanes, (lane + 1) * self.samples // self.lanes

    def mark(self, epoch: int, lane: int, item: int) -> tuple[int, int]:
        """Where a lane is read from to give its items from number ``item`` on: the number of a portion, and that of a
        sample in its shard.

        With a window, reading begins before the item: ``windowed(..., position=item)`` passes over those before it.

        >>> CountedStreams(np.array([3, 4]), 1, seed=0).mark(0, 0, 4)
        (1, 1)
        """
        start, end = self.bounds(lane)
        stream = self._stream(epoch)
        at = start + window_start(item, self.window or 0)
        if at >= end:
            return (stream.turn(end - 1)[0] - stream.turn(start)[0] + 1 if end > start else 0), 0
        turn, before = stream.turn(at)
        return turn - stream.turn(start)[0], at - before

    def find(self, epoch: int, lane: int, item: int) -> tuple[int, int]:
        """Shard and number in the shard of a lane's item."""
        start, end = self.bounds(lane)
        if self.window:
            seed = self.order_seed(epoch, lane)
            item = int(window_slice(end - start, self.window, seed, item, item + 1)[0])
        return self._stream(epoch).find(np.array([start + item]))[0]

    def _stream_of(self, epoch: int) -> EpochStream:
        return EpochStream(self.counts, self._shard_seed(epoch), self.first)


class Recent(Generic[T]):
    """A function of an epoch that remembers what it said of the last few. A pickle of it remembers nothing."""

    def __init__(self, make: Callable[[int], T], most: int) -> None:
        self._make = make
        self._most = most
        self._known: OrderedDict[int, T] = OrderedDict()

    def __call__(self, epoch: int) -> T:
        found = self._known.get(epoch)
        if found is None:
            found = self._known[epoch] = self._make(epoch)
            while len(self._known) > self._most:
                self._known.popitem(last=False)
        return found

    def __reduce__(self) -> tuple[type[Recent[T]], tuple[Callable[[int], T], int]]:
        return Recent, (self._make, self._most)
