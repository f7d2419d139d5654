"""The course of a mixture whose shares change: which part a draw of a step belongs to, and which of its draws it is.

The share of a part is a polynomial of the step, piece by piece: constant, linear, or, where a mixture with a schedule
is a part of another one, a product of such. So what is due to a part up to any step is a sum in closed form, in
fractions. A *leg* is a piece with the whole numbers of samples that each part has had at its beginning and, rounded,
will have had at its end. Within a leg draws are shared out down a tree of the parts. A node has two sides; of its first
n draws so many go left as are due to the left side at the time when n are due to both, rounded. So any step is found by
a search for its leg and one at each node for the time, whatever came before.

A leg is never changed by what comes behind it: a schedule that is changed at a step begins a new leg there, and what
each part was owed is still owed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from heapq import heapify, heappop, heappush
from itertools import count, pairwise
from math import comb, floor, lcm
from typing import Any

import numpy as np

from streampipe.plan.schedule import Schedule
from streampipe.rng import derive

_FITS = 1 << 62
_KEPT = 64
"""Legs that a state has: those that can be replayed behind a change."""


class Rates:
    """The shares of the parts of a mixture: of each the product of its shares in the schedules that it stands under.

    ``factors``: for each part the schedules, and its number in each.

    >>> inner, outer = Schedule([1, 1]), Schedule({0: [1, 1], 10: [3, 1]})
    >>> rates = Rates([[(outer, 0), (inner, 0)], [(outer, 0), (inner, 1)], [(outer, 1)]])
    >>> rates.firsts, [str(share) for share in rates.at(10)]
    ([0, 10], ['3/8', '3/8', '1/4'])
    """

    def __init__(self, factors: Sequence[Sequence[tuple[Schedule, int]]]) -> None:
        self._factors = factors
        schedules = {id(schedule): schedule for factor in factors for schedule, _ in factor}
        self.firsts = sorted({piece.first for each in schedules.values() for piece in each.pieces})

    @cached_property
    def digest(self) -> str:
        """A text that is another one where shares are others."""
        each = (f"{schedule.digest} {k}" for factor in self._factors for schedule, k in (*factor, _END))
        return f"{derive('rates', *each):016x}"

    def goes(self, step: int) -> bool:
        """Whether a share changes from a step to the next."""
        return any(len(terms) > 1 for terms in self.behind(step)[1])

    def at(self, step: int) -> tuple[Fraction, ...]:
        """The share of each part at a step."""
        return tuple(each[0] for each in self.behind(step)[1])

    def behind(self, step: int) -> tuple[int | None, tuple[tuple[Fraction, ...], ...]]:
        """Up to where the shares of a step go on as they do there; and those, as sums of ``comb(i, j)`` at step + i."""
        at = bisect_right(self.firsts, step)
        last = self.firsts[at] if at < len(self.firsts) else None
        return last, tuple(self._terms(each, step) for each in self._factors)

    def _terms(self, factor: Sequence[tuple[Schedule, int]], step: int) -> tuple[Fraction, ...]:
        pieces = [(schedule.piece(step), part) for schedule, part in factor]
        values = []
        for i in range(1 + sum(piece.goes(part) for piece, part in pieces)):
            values.append(_product(piece.share(part, step + i) for piece, part in pieces))
        terms = []
        while values:  # the first of each row of differences
            terms.append(values[0])
            values = [b - a for a, b in pairwise(values)]
        return tuple(terms)


_END = (Schedule([1]), -1)


def _product(shares: Iterable[Fraction]) -> Fraction:
    whole = Fraction(1)
    for share in shares:
        whole *= share
    return whole


def _sum(terms: Sequence[Fraction], steps: int) -> Fraction:
    """What shares come to over so many steps."""
    return sum((term * comb(steps, j + 1) for j, term in enumerate(terms)), Fraction())


@dataclass(frozen=True)
class Leg:
    """Steps from ``first`` on, of ``size`` draws each, beginning with draw number ``draw``; at ``last`` the next leg is
    to begin (None: there is none).

    ``had``: samples that each part had before. ``due``: what was due to it. ``terms``: its share, as ``Rates`` has it.

    >>> leg = Leg(0, None, 0, 4, (0, 0), (Fraction(0), Fraction(0)), ((Fraction(3, 4),), (Fraction(1, 4),)))
    >>> [each.tolist() for each in leg.owner(1)], leg.had_before(2)
    ([[0, 1, 0, 0], [3, 1, 4, 5]], (6, 2))
    """

    first: int
    last: int | None
    draw: int
    size: int
    had: tuple[int, ...]
    due: tuple[Fraction, ...]
    terms: tuple[tuple[Fraction, ...], ...]

    def __getstate__(self) -> dict[str, Any]:  # what is cached is found again
        return {name: self.__dict__[name] for name in Leg.__dataclass_fields__}

    def draw_at(self, step: int) -> int:
        """The number of the first draw of a step."""
        return self.draw + (step - self.first) * self.size

    def due_before(self, step: int) -> tuple[Fraction, ...]:
        """What is due to each part before a step."""
        steps = step - self.first
        return tuple(due + self.size * _sum(terms, steps) for due, terms in zip(self.due, self.terms, strict=True))

    @cached_property
    def gets(self) -> tuple[int, ...]:
        """What each part will have had at the end: whole numbers, as near to what is due as can be, none less than
        what it has had; a part without a share gets nothing. Of a leg without an end: what it has.
        """
        if self.last is None:
            return self.had
        due = self.due_before(self.last)
        parts = [k for k, before in enumerate(self.due) if due[k] > before]
        gets = list(self.had)
        for k in parts:
            gets[k] = max(self.had[k], floor(due[k]))
        left = self.draw_at(self.last) - sum(gets)
        for _ in range(abs(left)):
            able = parts if left > 0 else [k for k in parts if gets[k] > self.had[k]]
            sign = 1 if left > 0 else -1
            gets[max(able, key=lambda k: (sign * (due[k] - gets[k]), -k))] += sign
        return tuple(gets)

    def owner(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """For each draw of a step its part, and its number among the draws of that part."""
        parts, numbers = np.empty(self.size, np.int64), np.empty(self.size, np.int64)
        first = self._begin + (step - self.first) * self.size
        todo = [(self._tree, first, first + self.size, np.arange(self.size))]
        while todo:
            node, a, b, slots = todo.pop()
            if node.part is not None:
                parts[slots] = node.part
                numbers[slots] = np.arange(a, b)
            elif len(slots):
                left = node.left_of(a, b)
                goes_left = left[1:] > left[:-1]
                c, d = int(left[0]), int(left[-1])
                todo += [(node.sides[0], c, d, slots[goes_left]), (node.sides[1], a - c, b - d, slots[~goes_left])]
        return parts, numbers

    def had_before(self, step: int) -> tuple[int, ...]:
        """Samples that each part had before a step."""
        had = list(self.had)
        todo = [(self._tree, self._begin + (step - self.first) * self.size)]
        while todo:
            node, number = todo.pop()
            if node.part is not None:
                had[node.part] = number
            else:
                left = int(node.left_of(number, number)[0])
                todo += [(node.sides[0], left), (node.sides[1], number - left)]
        return tuple(had)

    @property
    def _begin(self) -> int:
        """What the parts that get something had before, together: the draws of the tree's root count from it."""
        return self._tree.had

    @cached_property
    def _tree(self) -> _Node:
        """The parts that get something, those that get least deepest."""
        leaves = []
        for k, terms in enumerate(self.terms):
            if self.last is None:
                scaled, weight = tuple(self.size * term for term in terms), terms[0]
            else:
                weight = Fraction(self.gets[k] - self.had[k])
                whole = _sum(terms, self.last - self.first)
                scaled = tuple(term * weight / whole for term in terms) if weight else ()
            if weight:
                leaves.append((weight, k, _Node(self.first, self.last, self.had[k], scaled, k)))
        heapify(leaves)
        order = count(len(self.terms))
        while len(leaves) > 1:
            (weight, _, node), (other_weight, _, other) = heappop(leaves), heappop(leaves)
            heappush(leaves, (weight + other_weight, next(order), _joined(node, other)))
        return leaves[0][2]


class _Node:
    """Some parts of a leg: a single one, or two sides. ``terms``: what is due to them at a step, beside ``had``."""

    def __init__(
        self,
        first: int,
        last: int | None,
        had: int,
        terms: tuple[Fraction, ...],
        part: int | None = None,
        sides: tuple[_Node, ...] = (),
    ) -> None:
        self.first, self.last, self.had, self.part, self.sides = first, last, had, part, sides
        self._terms = terms
        self._due = lru_cache(256)(self._due_before)

    def _due_before(self, step: int) -> Fraction:
        return self.had + _sum(self._terms, step - self.first)

    def left_of(self, a: int, b: int) -> np.ndarray:
        """How many of the first n draws go left, for n from a to b."""
        left = self.sides[0]
        if len(self._terms) == 1:  # a constant share
            slope = left._terms[0] / self._terms[0]
            return _floors(left.had + (a - self.had) * slope + _HALF, slope, b - a + 1)
        found = []
        while a <= b:
            step = self._step_of(a)
            low, high = self._due(step), self._due(step + 1)
            mine, theirs = left._due(step), left._due(step + 1)
            slope = (theirs - mine) / (high - low)
            last = max(a, min(b, floor(high)))
            found.append(_floors(mine + (a - low) * slope + _HALF, slope, last - a + 1))
            a = last + 1
        return np.concatenate(found)

    def _step_of(self, number: int) -> int:
        """The step in which so many draws become due."""
        assert self.last is not None  # behind the last point of a schedule shares are constant
        low, high = self.first, self.last
        while high - low > 1:
            middle = (low + high) // 2
            due = self._due(middle)
            if due < number or due == self.had:
                low = middle
            else:
                high = middle
        return low


_HALF = Fraction(1, 2)


def _joined(left: _Node, right: _Node) -> _Node:
    size = max(len(left._terms), len(right._terms))
    both = [(*each._terms, *[Fraction()] * (size - len(each._terms))) for each in (left, right)]
    terms = tuple(a + b for a, b in zip(*both, strict=True))
    while len(terms) > 1 and not terms[-1]:
        terms = terms[:-1]
    if len(terms) == 1 and size > 1:  # two that go against each other: kept as what goes
        terms = (*terms, Fraction())
    return _Node(left.first, left.last, left.had + right.had, terms, None, (left, right))


def _floors(start: Fraction, slope: Fraction, number: int) -> np.ndarray:
    """floor(start + i * slope) for i below ``number``, exactly; ``slope`` is 0 to 1.

    >>> _floors(Fraction(7, 2), Fraction(1, 3), 4).tolist()
    [3, 3, 4, 4]
    """
    whole = lcm(start.denominator, slope.denominator)
    a, step = start.numerator * (whole // start.denominator), slope.numerator * (whole // slope.denominator)
    before, rest = divmod(a, whole)
    if whole * (number + 1) < _FITS:
        return before + (rest + step * np.arange(number)) // whole
    return np.array([before + (rest + step * i) // whole for i in range(number)], np.int64)


@dataclass(frozen=True)
class Course:
    """Legs, one behind the other, each in force until the next begins. ``changed_at``: the step of the last change.

    >>> course = begin(Rates([[(schedule := Schedule({0: [1, 0], 3: [1, 1]}), k)] for k in range(2)]), 4)
    >>> course.owner(2)[0].tolist(), course.owner(3)[0].tolist(), course.had_before(1000)
    ([0, 0, 0, 0], [0, 1, 0, 1], (2006, 1994))
    """

    legs: tuple[Leg, ...]
    changed_at: int | None = None

    def leg(self, step: int) -> Leg:
        """The leg that a step is in."""
        return self.legs[max(0, bisect_right(self._firsts, step) - 1)]

    @cached_property
    def _firsts(self) -> list[int]:
        return [leg.first for leg in self.legs]

    def owner(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """For each draw of a step its part, and its number among the draws of that part."""
        return self.leg(step).owner(step)

    def had_before(self, step: int) -> tuple[int, ...]:
        """Samples that each part had before a step."""
        return self.leg(step).had_before(step)

    def behind(self, step: int) -> tuple[Leg, ...]:
        """The leg of a step and those before it, as far as they are kept. Without the first nobody could go on."""
        return self.legs[: max(1, bisect_right(self._firsts, step))][-_KEPT:]

    def changed(self, rates: Rates, size: int, step: int) -> Course:
        """The same up to a step, and from there on with other shares, or other numbers of draws."""
        leg = self.leg(step)
        new = _leg(rates, step, leg.draw_at(step), size, leg.had_before(step), leg.due_before(step))
        return extended((*(each for each in self.legs if each.first < step), new), rates, step)


def begin(rates: Rates, size: int) -> Course:
    """A course from step 0 on, of ``size`` draws a step."""
    nothing = rates.at(0)
    return extended((_leg(rates, 0, 0, size, (0,) * len(nothing), (Fraction(),) * len(nothing)),), rates)


def extended(legs: tuple[Leg, ...], rates: Rates, changed_at: int | None = None) -> Course:
    """These legs, and those that come behind them."""
    found = list(legs)
    while (last := found[-1]).last is not None:
        due = last.due_before(last.last)
        found.append(_leg(rates, last.last, last.draw_at(last.last), last.size, last.gets, due))
    return Course(tuple(found), changed_at)


def _leg(rates: Rates, step: int, draw: int, size: int, had: tuple[int, ...], due: tuple[Fraction, ...]) -> Leg:
    last, terms = rates.behind(step)
    return Leg(step, last, draw, size, had, due, terms)
