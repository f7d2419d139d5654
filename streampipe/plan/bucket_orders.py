"""The order of each bucket's samples: every bucket of a dataset is a dataset of its own.

The counts of a bucket are a column of the matrix shards x buckets that the indexes give. Its order is that of any
planned dataset: the shards permuted (in the same way for all buckets, so that they are in use together), lanes, a
windowed shuffle. The classes of cost that packs are made of are ordered in the same way.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from streampipe.plan.dataset import EpochStream
from streampipe.plan.deal import shard_seed
from streampipe.plan.lanes import EpochOrder, Lanes, Shuffle, batch_seed
from streampipe.plan.planned import Place
from streampipe.rng import derive

MOST_PLACES = 48
_FORWARD_PLACES = 8  # where shards are read front to back: what is passed of each waits for its bucket


def choose_lanes(dataset: Any, shuffle: Shuffle) -> Lanes:
    """Lanes for all buckets of a dataset alike. They take turns draw by draw, whatever a bucket's batches hold."""
    deserved = max(1, min(len(dataset.shards), dataset.samples // (4 * MOST_PLACES)))
    if any(part.forward for part in dataset.parts()):
        deserved = min(deserved, _FORWARD_PLACES)
    allowed = (a for a in range(1, MOST_PLACES + 1) if MOST_PLACES % a == 0 and a <= deserved)
    places = max(allowed) if shuffle.is_on else 1
    window = shuffle.in_lanes(places, places * len(dataset.by_bucket), dataset.sample_bytes)
    return Lanes(dataset.samples, places, places, 1, window)


class ByBucket(Protocol):
    """Samples by what they are batched by: ``counts``, shards x buckets, and their sums."""

    counts: np.ndarray
    by_bucket: tuple[int, ...]


class BucketOrders:
    """The samples of each bucket of a dataset in their order, epoch after epoch. ``part``: which dataset of several."""

    def __init__(self, dataset: ByBucket, lanes: Lanes, seed: int, shuffled: bool, part: int = 0) -> None:
        self._dataset = dataset
        self._lanes = lanes
        self._seed = seed
        self._shuffled = shuffled
        self._part = part
        self._orders: OrderedDict[tuple[int, int], tuple[EpochStream, EpochOrder]] = OrderedDict()
        self._shards: dict[int, np.ndarray] = {}  # by epoch: the order of its shards, which all buckets have

    def find(self, bucket: int, draws: np.ndarray, size: tuple[int, ...] | None = None) -> list[Place]:
        """Where the draws of a bucket are, numbered over all epochs, ascending."""
        if not len(draws):
            return []
        epochs, numbers = np.divmod(draws, self._dataset.by_bucket[bucket])
        places = []
        for epoch in np.unique(epochs).tolist():
            stream, order = self._order(bucket, epoch)
            for shard, number in stream.find(order.draws(numbers[epochs == epoch])):
                before = int(self._dataset.counts[shard, :bucket].sum())  # a shard's samples are sorted by bucket
                places.append(Place(shard, before + number, epoch, self._part, size))
        return places

    def _order(self, bucket: int, epoch: int) -> tuple[EpochStream, EpochOrder]:
        """A bucket's shards and samples in an epoch. The two epochs that a bucket is in at most are remembered."""
        known = self._orders.get((bucket, epoch))
        if known is None:
            seed = shard_seed(self._seed, epoch) if self._shuffled else None
            own = derive(batch_seed(self._seed, epoch), "bucket", bucket)
            counts = self._dataset.counts[:, bucket].astype(np.int64)
            stream = EpochStream(counts, seed, 0, self._shards.get(epoch))
            known = stream, EpochOrder(self._lanes_of(bucket), own)
            self._shards = {e: each for e, each in self._shards.items() if e >= epoch - 1} | {epoch: stream.shards}
            self._orders[bucket, epoch] = known
            while len(self._orders) > 2 * len(self._dataset.by_bucket):
                self._orders.popitem(last=False)
        else:
            self._orders.move_to_end((bucket, epoch))
        return known

    def _lanes_of(self, bucket: int) -> Lanes:
        """The lanes of one bucket: its share of the window, so that all buckets use the same shards at a time."""
        n, whole = self._dataset.by_bucket[bucket], self._lanes
        return replace(whole, samples=n, window=-(-whole.window * n // max(1, whole.samples)))
