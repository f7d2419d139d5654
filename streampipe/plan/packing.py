"""Packs to a budget, in integers: which costs share a pack, how many packs an epoch has, and in which order they come.

Costs are put into classes of nearly equal ones, and a class counts as its dearest sample. How many samples each class
has is all that packs depend on, so they are the same in every epoch, and their number does not grow with the data's:
first-fit decreasing over the histogram of all samples gives patterns ("3 of class 40, 1 of class 12") and how often
each is used. It is what first-fit decreasing gives over a window of the whole epoch.

Packs come in rounds of ``ROUND`` (or a multiple), so that whole rounds make whole steps on 1, 2, 3, 4, 6, 8, 12 or 24
ranks. The packs of a round have nearly equal costs. What fills no round is shared out evenly over the packs of the
last rounds.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from heapq import heapify, heappop, heapreplace
from typing import Any, NamedTuple

import numpy as np

from streampipe.plan.spread import Spread
from streampipe.rng import derive

ROUND = 24
_FINE = 6  # bits of a cost that tell fine classes apart: 64 to 128 in every octave
_LOSS = 0.01  # of all costs: what may be lost because a class counts as its dearest sample
_WIDEST = 1.02  # the dearest sample of a class, in parts of its cheapest
_MOST_CLASSES, _FEW_CLASSES = 512, 128
_MOST_NUMBERS = 1 << 24  # of a matrix, shards x classes
_ALIKE = 0.995  # the cheapest pack of a band, in parts of its dearest
_ROUNDS = 256  # an epoch has so many rounds, before rounds have more packs


@dataclass(frozen=True)
class Packing:
    """What is to be packed: samples by ``cost``, so that a pack costs ``budget`` at most.

    ``limit``: samples that cost more are left out, counted; None: one that costs more than the budget is an error.
    ``classes``: of each class the last fine class and what it counts as, where they do not follow from one dataset.
    """

    budget: int
    cost: Any  # a streampipe.query.cost.Cost, or a function of the sample
    limit: int | None = None
    classes: tuple[tuple[int, int], ...] = ()

    @property
    def most(self) -> int:
        """What a sample may cost."""
        return self.budget if self.limit is None else self.limit

    @property
    def text(self) -> str:
        """All that decides, in words."""
        return f"{self.budget} by {getattr(self.cost, 'text', self.cost)}" + (
            "" if self.limit is None else f", at most {self.limit}"
        )


def fine_class(costs: np.ndarray) -> np.ndarray:
    """The fine class of each cost (1 or more): every cost up to 127 has its own, above it those of equal leading bits.

    >>> fine_class(np.array([1, 127, 128, 129, 130, 36864])).tolist()
    [1, 127, 128, 128, 129, 648]
    """
    shift = np.maximum(np.frexp(costs.astype(float))[1] - 1 - _FINE, 0)
    return np.asarray((shift << _FINE) + (costs >> shift))


def most_classes(shards: int) -> int:
    """How many classes there may be: every process holds a matrix, shards x classes.

    >>> most_classes(1000), most_classes(100_000)
    (512, 167)
    """
    return max(_FEW_CLASSES, min(_MOST_CLASSES, _MOST_NUMBERS // max(1, shards)))


def merge_classes(counts: np.ndarray, sums: np.ndarray, most: np.ndarray, classes: int = _MOST_CLASSES) -> np.ndarray:
    """Neighbouring fine classes put together, as long as little is lost by it: the last fine class of each, ascending.

    Args:
        counts: samples of each fine class.
        sums: their costs together.
        most: the dearest of them.
        classes: so many may be left, whatever is lost.

    >>> merge_classes(np.array([0, 5, 90, 5]), np.array([0, 5, 180, 15]), np.array([0, 1, 2, 3])).tolist()
    [1, 2, 3]
    """
    ends = np.flatnonzero(counts)
    n, top = counts[ends].astype(np.int64), most[ends].astype(np.int64)
    whole = float(sums.sum())
    lost = float((n * top).sum()) - whole
    low = _least(ends)
    while len(ends) > 1:
        many = len(ends) > classes
        more = n[:-1] * (top[1:] - top[:-1])
        narrow = top[1:] <= _WIDEST * low[:-1]
        if not narrow.any() and not many:
            break
        i = int(np.where(narrow | (not narrow.any()), more, more.max() + 1).argmin())
        if lost + more[i] > _LOSS * whole and not many:
            break
        lost += float(more[i])
        n[i + 1] += n[i]
        low[i + 1] = low[i]
        ends, n, top, low = (np.delete(each, i) for each in (ends, n, top, low))
    return ends


def _least(classes: np.ndarray) -> np.ndarray:
    """The least cost of each fine class.

    >>> _least(np.array([1, 127, 128, 129, 648])).tolist(), fine_class(np.array([36864])).tolist()
    ([1, 127, 128, 130, 36864], [648])
    """
    shift = np.maximum((classes >> _FINE) - 1, 0)
    return np.asarray((classes - (shift << _FINE)) << shift)


class Pattern(NamedTuple):
    """Packs of one composition: ``uses[i]`` samples of class ``classes[i]``; there are ``times`` of them."""

    classes: tuple[int, ...]
    uses: tuple[int, ...]
    times: int

    def cost(self, costs: Sequence[int]) -> int:
        """What such a pack costs at most."""
        return sum(costs[c] * n for c, n in zip(self.classes, self.uses, strict=True))


def first_fit_decreasing(costs: Sequence[int], counts: Sequence[int], budget: int) -> list[Pattern]:
    """First-fit decreasing over a histogram: ``counts[c]`` samples that cost ``costs[c]`` (ascending) each.

    Pack after pack takes the dearest samples that still fit; so many packs alike are made at once.

    >>> first_fit_decreasing([1, 3, 4], [5, 3, 2], 8)
    [Pattern(classes=(2,), uses=(2,), times=1), Pattern(classes=(1, 0), uses=(2, 2), times=1),
     Pattern(classes=(1, 0), uses=(1, 3), times=1)]
    """
    left = list(counts)
    there = [c for c, n in enumerate(left) if n]
    found = []
    while there:
        room, at, taken = budget, len(there), {}
        while at and room >= costs[there[0]]:
            at = bisect_right(there, room, 0, at, key=costs.__getitem__)
            if not at:
                break
            at -= 1
            each = there[at]
            taken[each] = min(left[each], room // costs[each])
            room -= taken[each] * costs[each]
        times = min(left[c] // n for c, n in taken.items())
        for c, n in taken.items():
            left[c] -= n * times
        there = [c for c in there if left[c]]
        found.append(Pattern(tuple(taken), tuple(taken.values()), times))
    return found


def fit(costs: Sequence[int], budget: int) -> list[list[int]]:
    """First-fit decreasing over single samples: packs of their numbers, in the order in which they came.

    >>> fit([5, 1, 3, 4], 8)
    [[0, 2], [1, 3]]
    """
    packs: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(costs)), key=lambda i: -costs[i]):
        found = next((p for p, left in enumerate(room) if left >= costs[i]), len(packs))
        if found == len(packs):
            packs.append([])
            room.append(budget)
        packs[found].append(i)
        room[found] -= costs[i]
    return sorted(sorted(pack) for pack in packs)


def share_evenly(costs: Sequence[int], counts: Sequence[int], budget: int, rounds: int) -> list[Pattern]:
    """The samples in whole rounds of packs of nearly equal costs: the dearest first, each into the cheapest pack.

    Where there are fewer samples than packs of a round, every sample is a pack.

    >>> share_evenly([1, 3], [3, 2], 8, rounds=2)
    [Pattern(classes=(1, 0), uses=(1, 2), times=1), Pattern(classes=(1, 0), uses=(1, 1), times=1)]
    """
    samples = sum(counts)
    whole = sum(c * n for c, n in zip(costs, counts, strict=True))
    packs = -(-whole // (budget * rounds)) * rounds
    while packs < samples:
        found = _into(costs, counts, budget, packs)
        if found is not None:
            return found
        packs += rounds
    return _into(costs, counts, budget, samples) or []


def _into(costs: Sequence[int], counts: Sequence[int], budget: int, packs: int) -> list[Pattern] | None:
    """The samples in so many packs; None if that does not fit."""
    loads = [(0, i) for i in range(packs)]
    heapify(loads)
    held: list[dict[int, int]] = [{} for _ in range(packs)]
    for c in reversed(range(len(costs))):
        for _ in range(counts[c]):
            load, i = loads[0]
            if load + costs[c] > budget:
                return None
            heapreplace(loads, (load + costs[c], i))
            held[i][c] = held[i].get(c, 0) + 1
    order = [heappop(loads)[1] for _ in range(packs)][::-1]
    return [Pattern(tuple(held[i]), tuple(held[i].values()), 1) for i in order]


class Band(NamedTuple):
    """Patterns of nearly equal cost. Their packs make whole rounds, the ``ends`` excepted, which come last."""

    patterns: tuple[Pattern, ...]

    @property
    def packs(self) -> int:
        """How many packs."""
        return sum(each.times for each in self.patterns)


class Packs:
    """The packs of an epoch.

    Args:
        costs: what each class counts as, ascending.
        counts: how many samples it has.
        budget: what a pack may cost.
    """

    def __init__(self, costs: Sequence[int], counts: Sequence[int], budget: int) -> None:
        self.costs, self.counts, self.budget = tuple(costs), tuple(counts), budget
        patterns = first_fit_decreasing(self.costs, self.counts, budget)
        patterns.sort(key=lambda each: -each.cost(self.costs))
        packs = sum(each.times for each in patterns)
        self.round = ROUND
        while 2 * self.round * _ROUNDS <= packs:
            self.round *= 2
        self.bands: list[Band] = []
        rest = [0] * len(self.costs)
        for alike in _alike(patterns, self.costs):
            whole, over = _whole(alike, self.round)
            if whole:
                self.bands.append(Band(tuple(whole)))
            for each in over:
                for c, n in zip(each.classes, each.uses, strict=True):
                    rest[c] += n * each.times
        self.ends = tuple(share_evenly(self.costs, rest, budget, self.round))

    @cached_property
    def body(self) -> int:
        """Packs before the ``ends``."""
        return sum(band.packs for band in self.bands)

    @property
    def number(self) -> int:
        """Packs of an epoch."""
        return self.body + len(self.ends)

    @cached_property
    def text(self) -> str:
        """A digest of all that an order depends on."""
        every = [tuple(each) for band in self.bands for each in band.patterns] + [tuple(each) for each in self.ends]
        return f"{self.number} in rounds of {self.round}, {zlib.crc32(repr(every).encode()):08x}"


def _alike(patterns: Sequence[Pattern], costs: Sequence[int]) -> list[list[Pattern]]:
    """Patterns from dear to cheap, in groups of nearly equal costs."""
    found: list[list[Pattern]] = []
    dearest = 0
    for each in patterns:
        cost = each.cost(costs)
        if not found or cost < _ALIKE * dearest:
            found.append([])
            dearest = cost
        found[-1].append(each)
    return found


def _whole(patterns: Sequence[Pattern], rounds: int) -> tuple[list[Pattern], list[Pattern]]:
    """Whole rounds of packs of these patterns, and what is over: of the cheapest ones."""
    left = sum(each.times for each in patterns) // rounds * rounds
    whole, over = [], []
    for each in patterns:
        mine = min(left, each.times)
        left -= mine
        if mine:
            whole.append(each._replace(times=mine))
        if mine < each.times:
            over.append(each._replace(times=each.times - mine))
    return whole, over


class Draws(NamedTuple):
    """Of a class the draws [first, first + samples) of an epoch."""

    number: int
    first: int
    samples: int


class PackOrder:
    """The packs in the order of an epoch, by number: rounds of bands spread evenly, then the ends.

    Each class is drawn from in order, so all classes advance evenly. It remembers the round asked for last.

    >>> order = PackOrder(Packs([1, 3], [3, 2], 8), seed=0)
    >>> [order.at(i) for i in range(order.packs.number)]  # of fewer samples than a round has packs each is a pack
    [[Draws(number=1, first=0, samples=1)], [Draws(number=1, first=1, samples=1)],
     [Draws(number=0, first=0, samples=1)], [Draws(number=0, first=1, samples=1)],
     [Draws(number=0, first=2, samples=1)]]
    """

    def __init__(self, packs: Packs, seed: int) -> None:
        self.packs = packs
        bands = packs.bands
        self._turns = Spread([band.packs // packs.round for band in bands], derive(seed, "rounds")) if bands else None
        self._within = [
            Spread([each.times for each in band.patterns], derive(seed, "packs", b)) for b, band in enumerate(bands)
        ]
        self._rounds = packs.body // packs.round
        self._round, self._drawn = -1, np.zeros(len(packs.costs), np.int64)  # and the draws before the next round
        self._found: list[list[Draws]] = []

    def at(self, number: int) -> list[Draws]:
        """What a pack is made of, the dearest samples first."""
        size, body = self.packs.round, self.packs.body
        if number >= body:
            self._open(self._rounds)
            return self._found[number - body]
        self._open(number // size)
        return self._found[number % size]

    def _open(self, wanted: int) -> None:
        """Lay out a round; the one behind the last is the ends."""
        if wanted == self._round:
            return
        if wanted != self._round + 1:
            self._drawn = self._before(wanted)
        self._round = wanted
        self._found = [self._taken(each) for each in self._patterns(wanted)]

    def _patterns(self, wanted: int) -> Sequence[Pattern]:
        if wanted == self._rounds or self._turns is None:
            return self.packs.ends
        band, number = self._turns.at(wanted)
        first, within, patterns = number * self.packs.round, self._within[band], self.packs.bands[band].patterns
        return [patterns[within.at(first + i)[0]] for i in range(self.packs.round)]

    def _taken(self, pattern: Pattern) -> list[Draws]:
        found = []
        for c, n in zip(pattern.classes, pattern.uses, strict=True):
            found.append(Draws(c, int(self._drawn[c]), n))
            self._drawn[c] += n
        return found

    def _before(self, wanted: int) -> np.ndarray:
        """The draws of each class that come before a round."""
        drawn = np.zeros(len(self.packs.costs), np.int64)
        if self._turns is None or not wanted:
            return drawn
        for band, within, rounds in zip(self.packs.bands, self._within, self._turns.before(wanted), strict=True):
            for pattern, times in zip(band.patterns, within.before(rounds * self.packs.round), strict=True):
                if times:
                    drawn[list(pattern.classes)] += np.array(pattern.uses) * times
        return drawn
