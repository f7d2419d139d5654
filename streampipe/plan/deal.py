"""Who reads what, where sample counts are not known: shards are dealt to consumers, in integers, before a byte is read.

Whole shards are dealt first, the same number to every consumer. The few that remain (or all, when there are fewer
shards than consumers) are each read by several consumers, who share the shard's samples by their number. So every
sample goes to exactly one consumer, nobody is left without work, and a consumer reads at most one shard in part.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from streampipe.context import Consumer
from streampipe.rng import derive, permutation


class Portion(NamedTuple):
    """The samples of a shard whose number is ``part`` modulo ``parts``."""

    shard: int
    part: int = 0
    parts: int = 1


def deal(shards: int, consumer: Consumer, shuffle_seed: int | None = None) -> Iterator[Portion]:
    """The portions of ``shards`` shards that ``consumer`` reads, in order; shuffled by ``shuffle_seed`` if given.

    >>> [list(deal(3, Consumer(worker=w, num_workers=2))) for w in (0, 1)]  # doctest: +NORMALIZE_WHITESPACE
    [[Portion(shard=0, part=0, parts=1), Portion(shard=2, part=0, parts=2)],
     [Portion(shard=1, part=0, parts=1), Portion(shard=2, part=1, parts=2)]]
    """
    order = range(shards) if shuffle_seed is None else permutation(shards, shuffle_seed)
    total, me = consumer.total, consumer.number
    whole = shards - shards % total
    for i in range(me, whole, total):
        yield Portion(int(order[i]))
    rest = shards - whole
    if rest:
        mine = me % rest
        sharers = len(range(mine, total, rest))
        yield Portion(int(order[whole + mine]), me // rest, sharers)


def shard_seed(seed: int, epoch: int) -> int:
    """The seed of an epoch's shard order."""
    return derive(seed, "shards", epoch)


def sample_seed(seed: int, epoch: int, consumer: Consumer) -> int:
    """The seed of the order of one consumer's samples in an epoch."""
    return derive(seed, "samples", epoch, consumer.number, consumer.total)
