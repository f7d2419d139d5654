"""Who reads what of shards whose samples are not counted, in integers, before a byte is read.

Whole shards are dealt first, the same number to every reader. The few that remain (or all, when there are fewer shards
than readers) are each read by several, who share the shard's samples by their number. So every sample goes to exactly
one reader, nobody is left without work, and a reader reads at most one shard in part. A reader is a lane, or a consumer
where streams have no lanes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from streampipe.context import Consumer
from streampipe.rng import derive, permutation

Order = Sequence[int] | np.ndarray
"""The numbers of all shards, in the order of an epoch."""


class Portion(NamedTuple):
    """The samples of a shard whose number is ``part`` modulo ``parts``."""

    shard: int
    part: int = 0
    parts: int = 1


def shard_order(shards: int, seed: int | None) -> Order:
    """The shards as listed, or shuffled by ``seed``."""
    return range(shards) if seed is None else permutation(shards, seed)


def deal(order: Order, number: int, total: int, share: bool = True) -> Iterator[Portion]:
    """What reader ``number`` of ``total`` reads of the shards, in order.

    Without ``share`` shards that are left over are whole too, one more for some readers: so no shard is read twice.
    Only where there are fewer shards than readers they are shared all the same.

    >>> [list(deal(range(3), reader, 2)) for reader in (0, 1)]  # doctest: +NORMALIZE_WHITESPACE
    [[Portion(shard=0, part=0, parts=1), Portion(shard=2, part=0, parts=2)],
     [Portion(shard=1, part=0, parts=1), Portion(shard=2, part=1, parts=2)]]
    """
    shards = len(order)
    whole = shards - shards % total
    if not share and whole:
        whole = shards
    for i in range(number, whole, total):
        yield Portion(int(order[i]))
    rest = shards - whole
    if rest:
        mine = number % rest
        sharers = len(range(mine, total, rest))
        yield Portion(int(order[whole + mine]), number // rest, sharers)


def shard_seed(seed: int, epoch: int) -> int:
    """The seed of an epoch's shard order."""
    return derive(seed, "shards", epoch)


def sample_seed(seed: int, epoch: int, consumer: Consumer) -> int:
    """The seed of the order of one consumer's samples in an epoch."""
    return derive(seed, "samples", epoch, consumer.number, consumer.total)
