"""``Schedule``: the shares of a mixture's parts, step by step.

A schedule is cut into pieces in which each share is constant or goes linearly. Shares are fractions, so nothing is ever
rounded before samples are counted, and every machine counts the same.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from math import ceil
from typing import Any, NamedTuple

from streampipe.errors import ConfigError
from streampipe.rng import derive

_LAST_STEP = 1 << 40
_HEIGHTS = " ▁▂▃▄▅▆▇█"
_COLUMNS = 48


class Piece(NamedTuple):
    """Steps [first, last) in which shares go linearly from ``start`` to ``end``, which is where ``last`` would be."""

    first: int
    last: int | None
    start: tuple[Fraction, ...]
    end: tuple[Fraction, ...]

    def share(self, part: int, step: int) -> Fraction:
        """The share of a part at a step.

        >>> Piece(10, 20, (Fraction(1), Fraction(0)), (Fraction(0), Fraction(1))).share(1, 15)
        Fraction(1, 2)
        """
        a, b = self.start[part], self.end[part]
        return a if a == b or self.last is None else a + (b - a) * Fraction(step - self.first, self.last - self.first)

    def goes(self, part: int) -> bool:
        """Whether the share of a part changes."""
        return self.start[part] != self.end[part]


class Schedule:
    """Weights that change while a model is trained, for ``sp.mix(parts, weights=sp.Schedule(...))``.

    Args:
        points: from which step on each part has which weight, ``{0: [3, 1], 10_000: [1, 1]}``; or the weights alone, if
            they are the same at all steps. Steps are those of training: batches of a rank, over all epochs, from 0 on.
        linear: False: weights stay as they are until the next point. True: shares go linearly from point to point, and
            stay as they are behind the last.
        start: the step from which on a part is there, by its number: ``{1: 10_000}``. What it would have before is
            shared by the others.
        end: the step at which it is gone, likewise.

    Only how weights compare matters: at each point they are divided by their sum.

    Raises:
        ConfigError: a weight is below 0 or is none, points have different numbers of weights or do not begin at step 0,
            or there are steps at which no part has a weight.

    >>> Schedule({0: [3, 1], 10_000: [1, 1]}).at(10_000)
    (Fraction(1, 2), Fraction(1, 2))
    >>> Schedule({0: [1, 0], 100: [0, 1]}, linear=True).at(25)
    (Fraction(3, 4), Fraction(1, 4))
    >>> Schedule([2, 1, 1], start={1: 500}, end={2: 1000})
    Schedule(0: 66.7 0 33.3 %, 500: 50 25 25 %, 1,000: 66.7 33.3 0 %)
    """

    __slots__ = ("_firsts", "parts", "pieces")

    pieces: tuple[Piece, ...]
    parts: int
    _firsts: list[int]

    def __init__(
        self,
        points: Mapping[int, Sequence[float]] | Sequence[float],
        *,
        linear: bool = False,
        start: Mapping[int, int] | None = None,
        end: Mapping[int, int] | None = None,
    ) -> None:
        given = _points(points)
        parts = len(next(iter(given.values())))
        pieces = _pieces(given, linear, _steps("start", start, parts), _steps("end", end, parts))
        self._set(tuple(pieces), parts)

    def _set(self, pieces: tuple[Piece, ...], parts: int) -> None:
        set_once = object.__setattr__
        set_once(self, "pieces", pieces)
        set_once(self, "parts", parts)
        set_once(self, "_firsts", [piece.first for piece in pieces])

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Schedule is frozen: make a new one instead of changing {name}")

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.pieces, self.parts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schedule) and self.pieces == other.pieces

    def __hash__(self) -> int:
        return hash(self.pieces)

    def piece(self, step: int) -> Piece:
        """The piece that a step is in."""
        return self.pieces[bisect_right(self._firsts, step) - 1]

    def at(self, step: int) -> tuple[Fraction, ...]:
        """The share of each part at a step."""
        piece = self.piece(step)
        return tuple(piece.share(part, step) for part in range(self.parts))

    @property
    def digest(self) -> str:
        """A text that is another one for another schedule."""
        return f"{derive('schedule', *(repr(piece) for piece in self.pieces)):016x}"

    def __repr__(self) -> str:
        return f"Schedule({', '.join(map(_words, self.pieces))})"


def constant(weights: Iterable[Fraction]) -> Schedule:
    """Weights, not all 0, that stay as they are."""
    shares = tuple(weights)
    return _rebuild((Piece(0, None, *[tuple(each / sum(shares) for each in shares)] * 2),), len(shares))


def draw(rows: Sequence[Sequence[Fraction]]) -> list[str]:
    """Rows of shares as bars, a column each: an empty one is 0, a full one is everything.

    >>> draw([[Fraction(1), Fraction(1, 2), Fraction(0)]])
    ['█▄ ']
    """
    return ["".join(_HEIGHTS[ceil(each * 8)] for each in row) for row in rows]


def columns_of(last: int) -> list[int]:
    """The steps that are drawn, a column each: evenly from 0 to ``last``."""
    return sorted({last * i // (_COLUMNS - 1) for i in range(_COLUMNS)})


def _points(points: Any) -> dict[int, tuple[Fraction, ...]]:
    """The points in the order of their steps."""
    if isinstance(points, (str, bytes)) or not isinstance(points, Iterable):
        raise ConfigError(f"Schedule takes weights by step, as in {{0: [3, 1], 10_000: [1, 1]}}, not {points!r:.80}")
    given = dict(points) if isinstance(points, Mapping) else {0: points}
    odd = [step for step in given if not (type(step) is int and 0 <= step < _LAST_STEP)]
    if odd:
        raise ConfigError(f"Schedule: a point's step is a whole number, 0 or more, not {odd[0]!r:.80}")
    found = {step: _weights(given[step], step) for step in sorted(given)}
    if 0 not in found:
        raise ConfigError(f"Schedule begins at step {min(found, default=0)}: say the weights at step 0 too")
    numbers = {len(weights) for weights in found.values()}
    if len(numbers) > 1 or 0 in numbers:
        raise ConfigError(
            f"Schedule has {' and '.join(map(str, sorted(numbers)))} weights at its points: give every part one"
        )
    return found


def _weights(weights: Any, step: int) -> tuple[Fraction, ...]:
    listed = [] if isinstance(weights, (str, bytes)) or not isinstance(weights, Iterable) else list(weights)
    try:
        found = tuple(each if isinstance(each, Fraction) else Fraction(str(each)) for each in listed)
    except (ValueError, ZeroDivisionError):
        found = ()
    if not found or min(found) < 0 or not any(found):
        raise ConfigError(
            f"Schedule: the weights at step {step} are a list of numbers, 0 or more and not all 0, not {weights!r:.80}"
        )
    return found


def _steps(name: str, steps: Any, parts: int) -> dict[int, int]:
    """The steps at which parts begin or end."""
    given = {} if steps is None else steps
    if not isinstance(given, Mapping):
        raise ConfigError(f"Schedule: {name} is a step by a part's number, as in {{1: 10_000}}, not {steps!r:.80}")
    for part, step in given.items():
        if not (type(part) is int and 0 <= part < parts and type(step) is int and 0 <= step < _LAST_STEP):
            raise ConfigError(
                f"Schedule: {name}={{{part!r}: {step!r}}} is no step of one of its {parts} parts, which count from 0"
            )
    return dict(given)


def _pieces(
    points: Mapping[int, tuple[Fraction, ...]], linear: bool, start: Mapping[int, int], end: Mapping[int, int]
) -> list[Piece]:
    """The pieces: cut at every point, and where a part begins or ends."""
    steps, cuts = list(points), sorted({*points, *start.values(), *end.values()})
    found: list[Piece] = []
    for first, last in zip(cuts, [*cuts[1:], None], strict=True):
        i = bisect_right(steps, first) - 1
        mine = points[steps[i]]
        there = [start.get(k, 0) <= first < end.get(k, _LAST_STEP) for k in range(len(mine))]
        if linear and i + 1 < len(steps):
            edges = Piece(steps[i], steps[i + 1], mine, points[steps[i + 1]])
            ends = [tuple(edges.share(k, step) for k in range(len(mine))) for step in (first, last or 0)]
        else:
            ends = [mine, mine]
        shares = [_shares(each, there) for each in ends]
        if not all(shares):
            to = "on" if last is None else f"to {last - 1}"
            raise ConfigError(f"Schedule: no part has a weight from step {first} {to}: give one of them some")
        piece = Piece(first, last, *shares)
        if found and found[-1].start == found[-1].end == piece.start == piece.end:
            found[-1] = found[-1]._replace(last=last)
        else:
            found.append(piece)
    return found


def _shares(weights: Sequence[Fraction], there: Sequence[bool]) -> tuple[Fraction, ...]:
    """Weights of the parts that are there, divided by their sum; empty where that is 0."""
    mine = [weight if here else Fraction(0) for weight, here in zip(weights, there, strict=True)]
    return tuple(each / sum(mine) for each in mine) if any(mine) else ()


def _words(piece: Piece) -> str:
    """A piece in words.

    >>> _words(Piece(5, 9, (Fraction(1, 3), Fraction(2, 3)), (Fraction(1), Fraction(0))))
    '5: 33.3 66.7 % linearly to 100 0 %'
    """
    to = f" linearly to {_percents(piece.end)}" if piece.start != piece.end else ""
    return f"{piece.first:,}: {_percents(piece.start)}{to}"


def _percents(shares: Sequence[Fraction]) -> str:
    return f"{' '.join(f'{float(100 * each):.3g}' for each in shares)} %"


def _rebuild(pieces: tuple[Piece, ...], parts: int) -> Schedule:
    made = object.__new__(Schedule)
    made._set(pieces, parts)
    return made
