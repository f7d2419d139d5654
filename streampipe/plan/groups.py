"""Which samples of which bucket are batched together, for every epoch, in integers.

A bucket's samples are drawn in an order of their own, epoch after epoch, and its draws are numbered over all epochs. A
group is what one batch is made of: a run of draws of one bucket, or, of leftovers that were merged, of several. An
epoch's groups follow from how many samples each bucket has; whose turn it is, from an even spread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from streampipe.errors import ConfigError
from streampipe.plan.buckets import Buckets, merge
from streampipe.plan.spread import Spread
from streampipe.rng import derive

LEFTOVERS = ("carry", "merge", "drop")


class Draws(NamedTuple):
    """Draws [first, first + samples) of a bucket, numbered over all epochs."""

    bucket: int
    first: int
    samples: int


class Group(NamedTuple):
    """The samples of one batch, all brought to the size of bucket ``target``."""

    target: int
    draws: tuple[Draws, ...]

    @property
    def samples(self) -> int:
        """How many samples."""
        return sum(each.samples for each in self.draws)


@dataclass(frozen=True)
class Groups:
    """The groups of every epoch.

    Args:
        samples: of each bucket, in an epoch.
        sizes: samples in a batch of each bucket.
        leftover: ``carry``: what does not fill a batch goes into the first one of the next epoch. ``merge``: leftovers
            of neighbouring buckets share batches at the end of the epoch. ``drop``: they are left out.
        together: so many groups make a step; every epoch has whole steps.
    """

    buckets: Buckets
    samples: tuple[int, ...]
    sizes: tuple[int, ...]
    leftover: str = "carry"
    together: int = 1

    def __post_init__(self) -> None:
        check_leftover(self.leftover, self.buckets)

    @property
    def is_empty(self) -> bool:
        """Whether no epoch ever has a step."""
        return not any(self.samples) or (self.leftover == "drop" and not self._each)

    def steps_before(self, epoch: int) -> int:
        """Steps of all epochs before this one."""
        return self.before(epoch) // self.together

    def before(self, epoch: int) -> int:
        """Groups of all epochs before this one."""
        if self.leftover == "carry":
            return sum(epoch * n // size for n, size in zip(self.samples, self.sizes, strict=True))
        return epoch * self._each

    def full(self, epoch: int) -> list[int]:
        """Full batches of each bucket in an epoch."""
        if self.leftover == "carry":
            pairs = zip(self.samples, self.sizes, strict=True)
            return [(epoch + 1) * n // size - epoch * n // size for n, size in pairs]
        return self._full

    @property
    def left_over(self) -> list[int]:
        """Samples of each bucket that an epoch's own full batches leave over."""
        return [n % size for n, size in zip(self.samples, self.sizes, strict=True)]

    @cached_property
    def merged(self) -> tuple[Group, ...]:
        """The batches of leftovers that end an epoch, for the epoch 0."""
        if self.leftover != "merge":
            return ()
        found = merge(self.buckets, self.left_over, self.sizes)
        used = [full * size for full, size in zip(self._full, self.sizes, strict=True)]
        return tuple(
            Group(each.target, tuple(Draws(b, used[b] + first, count) for b, first, count in each.pieces))
            for each in found
        )

    @cached_property
    def _full(self) -> list[int]:
        return [n // size for n, size in zip(self.samples, self.sizes, strict=True)]

    @cached_property
    def _each(self) -> int:
        """Groups of an epoch where nothing is carried: whole steps."""
        total = sum(self._full) + len(self.merged)
        return total // self.together * self.together if self.leftover == "drop" else total + -total % self.together


class GroupOrder:
    """The groups in the order of an epoch, by number. It remembers what the epoch asked for last needs."""

    def __init__(self, groups: Groups, seed: int) -> None:
        self._groups = groups
        self._seed = seed
        self._first = self._end = 0

    def at(self, number: int, epoch: int) -> Group:
        """The group of a number, counted over all epochs; it is of ``epoch`` or one near it."""
        if not self._first <= number < self._end:
            while self._groups.before(epoch) > number:
                epoch -= 1
            while self._groups.before(epoch + 1) <= number:
                epoch += 1
            self._begin(epoch)
        within = number - self._first
        return self._turn(within) if within < self._body else self._ends[within - self._body]

    def _begin(self, epoch: int) -> None:
        """Lay out an epoch: full batches, spread evenly, then those of leftovers, as many as the last step needs."""
        groups = self._groups
        self._epoch = epoch
        self._first, self._end = groups.before(epoch), groups.before(epoch + 1)
        self._spread = Spread(groups.full(epoch), derive(self._seed, "buckets", epoch))
        self._body = self._spread.total
        self._ends: list[Group] = []
        if groups.leftover != "merge":
            return
        ends = [_later(each, epoch, groups.samples) for each in groups.merged]
        over = (self._body + len(ends)) % groups.together
        while len(ends) < over:  # then the last full ones must be shared out too
            self._body -= 1
            ends.insert(0, self._turn(self._body))
        self._ends = ends[: len(ends) - over] + (share_out(ends[len(ends) - over :], groups.together) if over else [])

    def _turn(self, turn: int) -> Group:
        groups = self._groups
        bucket, number = self._spread.at(turn)
        size, n = groups.sizes[bucket], groups.samples[bucket]
        if groups.leftover == "carry":
            first = (self._epoch * n // size + number) * size
        else:
            first = self._epoch * n + number * size
        return Group(bucket, (Draws(bucket, first, size),))


def share_out(groups: Sequence[Group], parts: int) -> list[Group]:
    """The same samples as ``parts`` groups, the largest halved until there are as many; single samples are repeated.

    >>> share_out([Group(0, (Draws(0, 10, 3),))], 2)
    [Group(target=0, draws=(Draws(bucket=0, first=10, samples=2),)),
     Group(target=0, draws=(Draws(bucket=0, first=12, samples=1),))]
    """
    out = list(groups)
    while len(out) < parts:
        i = max(range(len(out)), key=lambda k: out[k].samples)
        half = -(-out[i].samples // 2)
        if out[i].samples < 2:
            out.append(out[len(out) % len(groups)])
        else:
            out[i : i + 1] = [_cut(out[i], 0, half), _cut(out[i], half, out[i].samples)]
    return out


def check_leftover(leftover: str, buckets: Buckets | None = None) -> None:
    """There are three policies, and one of them may enlarge images."""
    if leftover not in LEFTOVERS:
        raise ConfigError(f"leftover is one of {', '.join(LEFTOVERS)}, not {leftover!r}")
    if leftover == "merge" and buckets is not None and not buckets.upscale:
        raise ConfigError(
            "leftover='merge' brings images to other buckets' sizes, which upscale=False forbids: choose carry"
        )


def _cut(group: Group, start: int, end: int) -> Group:
    draws = []
    for bucket, first, count in group.draws:
        a, b = max(0, start), min(count, end)
        if a < b:
            draws.append(Draws(bucket, first + a, b - a))
        start, end = start - count, end - count
    return Group(group.target, tuple(draws))


def _later(group: Group, epoch: int, samples: Sequence[int]) -> Group:
    return Group(group.target, tuple(Draws(b, epoch * samples[b] + first, count) for b, first, count in group.draws))
