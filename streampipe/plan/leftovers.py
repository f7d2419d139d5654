"""What full batches leave over of each bucket, merged into batches of neighbouring buckets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from streampipe.plan.buckets import Buckets
from streampipe.plan.ratios import cut_away_between


class Leftover(NamedTuple):
    """Neighbours in aspect ratio that share a batch: of ``bucket`` the ``first``-th to last left-over sample."""

    bucket: int
    first: int
    samples: int


class Merged(NamedTuple):
    """A batch of leftovers, at the size of bucket ``target``."""

    target: int
    pieces: tuple[Leftover, ...]

    @property
    def samples(self) -> int:
        """How many there are in it."""
        return sum(piece.samples for piece in self.pieces)


def merge(buckets: Buckets, left: Sequence[int], batch: Sequence[int]) -> list[Merged]:
    """Batches for the samples that full batches leave over: ``left[b]`` of bucket b, ``batch[b]`` to a batch of it.

    The leftovers stand sorted by their buckets' aspect ratio. From the front so many are taken as the best bucket has
    in a batch; best is the one at which the least of them is cut away. All batches but the last are full.

    >>> merge(Buckets([(2, 1), (1, 1), (1, 2)]), [1, 0, 3], [4, 4, 4])
    [Merged(target=2, pieces=(Leftover(bucket=0, first=0, samples=1), Leftover(bucket=2, first=0, samples=3)))]
    """
    cut = cut_away_between(buckets.sizes)
    kinds = np.repeat(np.arange(len(left)), left)
    merged: list[Merged] = []
    at, given = 0, [0] * len(left)
    while at < len(kinds):
        costs = [cut[kinds[at : at + size], target].mean() for target, size in enumerate(batch)]
        target = int(np.argmin(costs))
        mine = kinds[at : at + batch[target]]
        at += len(mine)
        pieces = []
        for bucket, count in zip(*np.unique(mine, return_counts=True), strict=True):
            pieces.append(Leftover(int(bucket), given[bucket], int(count)))
            given[bucket] += int(count)
        merged.append(Merged(target, tuple(pieces)))
    return merged
