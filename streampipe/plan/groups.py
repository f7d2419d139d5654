"""Which samples of which bucket are batched together, for every epoch, in integers.

A bucket's samples are drawn in an order of their own, epoch after epoch, and its draws are numbered over all epochs. A
group is what one batch is made of: a run of draws of one bucket, or, of leftovers that were merged, of several. An
epoch's groups follow from how many samples each bucket has; whose turn it is, from an even spread.

Other batch sizes go on where those before them stopped (``Origin``): each bucket's draws in their order, from the first
that no group had.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from streampipe.errors import ConfigError
from streampipe.plan.buckets import Buckets
from streampipe.plan.leftovers import merge
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


class Origin(NamedTuple):
    """Where groups of other sizes stopped: behind ``steps`` steps of ``epoch``, and so many draws of each bucket.

    ``turn`` is the epoch whose groups come next: where an epoch's groups are no whole steps, the last of them are in
    the next one's first step.
    """

    epoch: int
    steps: int
    turn: int
    draws: tuple[int, ...]


@dataclass(frozen=True)
class Groups:
    """The groups of every epoch.

    Args:
        samples: of each bucket, in an epoch.
        sizes: samples in a batch of each bucket.
        leftover: ``carry``: what does not fill a batch goes into the first one of the next epoch. ``merge``: leftovers
            of neighbouring buckets share batches at the end of the epoch. ``drop``: they are left out.
        together: so many groups make a step; every epoch has whole steps.
        origin: where they begin; groups are counted from there.
    """

    buckets: Buckets
    samples: tuple[int, ...]
    sizes: tuple[int, ...]
    leftover: str = "carry"
    together: int = 1
    origin: Origin | None = None

    def __post_init__(self) -> None:
        check_leftover(self.leftover, self.buckets)

    @property
    def is_empty(self) -> bool:
        """Whether no epoch ever has a step."""
        return not any(self.samples) or (self.leftover == "drop" and not self._each)

    def steps_before(self, epoch: int) -> int:
        """Steps of all epochs before this one, from the origin on."""
        return self.before(epoch) // self.together

    def steps_in(self, epoch: int) -> int:
        """Steps of an epoch; those before the origin too."""
        if self.origin and epoch == self.origin.epoch:
            return self.origin.steps + self.steps_before(epoch + 1)
        return self.steps_before(epoch + 1) - self.steps_before(epoch)

    def first(self, epoch: int, step: int) -> int:
        """The number of a step's first group."""
        if self.origin and epoch == self.origin.epoch:
            return (step - self.origin.steps) * self.together
        return (self.steps_before(epoch) + step) * self.together

    def before(self, epoch: int) -> int:
        """Groups of all epochs before this one."""
        if self.leftover == "carry":
            start = self.origin.draws if self.origin else (0,) * len(self.samples)
            ends = zip(self.taken(epoch), start, self.sizes, strict=True)
            return sum((end - first) // size for end, first, size in ends)
        if self.origin is None:
            return epoch * self._each
        if epoch <= self.origin.turn:
            return 0
        return self._whole(self.full(self.origin.turn), self._rest) + (epoch - self.origin.turn - 1) * self._each

    def taken(self, epoch: int) -> list[int]:
        """The draws of each bucket, over all epochs, that come before an epoch's groups."""
        start = self.origin
        if start and epoch <= start.turn:
            return list(start.draws)
        if self.leftover != "carry":
            return [epoch * n for n in self.samples]
        firsts = start.draws if start else (0,) * len(self.samples)
        return [
            first + (epoch * n - first) // size * size
            for n, size, first in zip(self.samples, self.sizes, firsts, strict=True)
        ]

    def full(self, epoch: int) -> list[int]:
        """Full batches of each bucket in an epoch."""
        ends = zip(self.samples, self.taken(epoch), self.sizes, strict=True)
        return [((epoch + 1) * n - first) // size for n, first, size in ends]

    @property
    def left_over(self) -> list[int]:
        """Samples of each bucket that a whole epoch's own full batches leave over."""
        return [n % size for n, size in zip(self.samples, self.sizes, strict=True)]

    def left_over_in(self, epoch: int) -> list[int]:
        """Samples of each bucket that this epoch's full batches leave over."""
        ends = zip(self.samples, self.taken(epoch), self.sizes, strict=True)
        return [((epoch + 1) * n - first) % size for n, first, size in ends]

    def ends(self, epoch: int) -> list[Group]:
        """The batches of leftovers that end an epoch."""
        begun = zip(self.taken(epoch), self.full(epoch), self.sizes, strict=True)
        used = [first + full * size for first, full, size in begun]
        found = self._rest if self.origin and epoch == self.origin.turn else self.merged
        return [
            Group(each.target, tuple(Draws(b, used[b] + first, count) for b, first, count in each.draws))
            for each in found
        ]

    @cached_property
    def merged(self) -> tuple[Group, ...]:
        """The batches of leftovers that end a whole epoch; draws are counted from the first that is left over."""
        return self._merge(self.left_over)

    @cached_property
    def _rest(self) -> tuple[Group, ...]:
        """Those that end the epoch of the origin."""
        return self._merge(self.left_over_in(self.origin.turn)) if self.origin else ()

    def _merge(self, left: Sequence[int]) -> tuple[Group, ...]:
        if self.leftover != "merge":
            return ()
        found = merge(self.buckets, left, self.sizes)
        return tuple(Group(each.target, tuple(Draws(*piece) for piece in each.pieces)) for each in found)

    @cached_property
    def _each(self) -> int:
        """Groups of a whole epoch where nothing is carried."""
        return self._whole([n // size for n, size in zip(self.samples, self.sizes, strict=True)], self.merged)

    def _whole(self, full: Sequence[int], merged: Sequence[Group]) -> int:
        """Groups of an epoch where nothing is carried: whole steps."""
        total = sum(full) + len(merged)
        return total // self.together * self.together if self.leftover == "drop" else total + -total % self.together


class GroupOrder:
    """The groups in the order of an epoch, by number. It remembers what the epoch asked for last needs."""

    def __init__(self, groups: Groups, seed: int) -> None:
        self._groups = groups
        self._seed = seed
        self._first = self._end = 0

    def at(self, number: int, epoch: int) -> Group:
        """The group of a number, counted over all epochs; it is of ``epoch`` or one near it."""
        self._find(number, epoch)
        within = number - self._first
        return self._turn(within) if within < self._body else self._ends[within - self._body]

    def origin(self, epoch: int, step: int) -> Origin:
        """Where other sizes go on in the place of this step."""
        groups = self._groups
        number = groups.first(epoch, step)
        self._find(number, epoch)
        within = number - self._first
        had = self._spread.before(min(within, self._body))
        begun = zip(groups.taken(self._epoch), had, groups.sizes, strict=True)
        draws = [first + turns * size for first, turns, size in begun]
        for group in self._ends[: max(0, within - self._body)]:
            for bucket, first, count in group.draws:  # they are in order, but some may be repeated
                draws[bucket] = max(draws[bucket], first + count)
        return Origin(epoch, step, self._epoch, tuple(draws))

    def _find(self, number: int, epoch: int) -> None:
        """Lay out the epoch that a group is of: ``epoch`` or one near it."""
        if self._first <= number < self._end:
            return
        if number < 0:
            raise ConfigError(
                f"the place lies {-number} batches before the one from which this run went on with other batch sizes: "
                f"give a state from before that"
            )
        while self._groups.before(epoch) > number:
            epoch -= 1
        while self._groups.before(epoch + 1) <= number:
            epoch += 1
        self._begin(epoch)

    def _begin(self, epoch: int) -> None:
        """Lay out an epoch: full batches, spread evenly, then those of leftovers, as many as the last step needs."""
        groups = self._groups
        self._epoch, self._taken = epoch, groups.taken(epoch)
        self._first, self._end = groups.before(epoch), groups.before(epoch + 1)
        self._spread = Spread(groups.full(epoch), derive(self._seed, "buckets", epoch))
        self._body = self._spread.total
        self._ends: list[Group] = []
        if groups.leftover != "merge":
            return
        ends = groups.ends(epoch)
        over = (self._body + len(ends)) % groups.together
        while len(ends) < over:  # then the last full ones must be shared out too
            self._body -= 1
            ends.insert(0, self._turn(self._body))
        self._ends = ends[: len(ends) - over] + (share_out(ends[len(ends) - over :], groups.together) if over else [])

    def _turn(self, turn: int) -> Group:
        bucket, number = self._spread.at(turn)
        size = self._groups.sizes[bucket]
        return Group(bucket, (Draws(bucket, self._taken[bucket] + number * size, size),))


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
    if leftover == "merge" and buckets is not None and buckets.areas:
        raise ConfigError("leftover='merge' could bring small images to the size of a larger area: choose carry")
    if leftover == "merge" and buckets is not None and not buckets.upscale:
        raise ConfigError(
            "leftover='merge' brings images to other buckets' sizes, which upscale=False forbids: choose carry"
        )
    if leftover == "merge" and buckets is not None and len(buckets.frames or ()) > 1:
        raise ConfigError(
            "leftover='merge' would put clips of several numbers of frames into one batch: choose carry or drop"
        )


def _cut(group: Group, start: int, end: int) -> Group:
    draws = []
    for bucket, first, count in group.draws:
        a, b = max(0, start), min(count, end)
        if a < b:
            draws.append(Draws(bucket, first + a, b - a))
        start, end = start - count, end - count
    return Group(group.target, tuple(draws))
