"""Durations counted by their size, so that any quantile can be told later, of any number of processes together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import exp, floor, log

_STEP = log(1.1)  # sizes are 10 % apart: a quantile is right to 5 %
_LEAST = 1e-7


class Histogram:
    """Counts of durations. It can be merged and sent, and its size does not grow with what it counts.

    >>> times = Histogram()
    >>> for seconds in (0.010, 0.010, 0.010, 0.500):
    ...     times.add(seconds)
    >>> round(times.quantile(0.5), 3), round(times.quantile(0.99), 1), times.number
    (0.01, 0.5, 4)
    """

    __slots__ = ("counts",)

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self.counts: dict[int, int] = dict(counts or {})

    def add(self, seconds: float) -> None:
        """One more of so many seconds."""
        size = floor(log(seconds if seconds > _LEAST else _LEAST) / _STEP)
        self.counts[size] = self.counts.get(size, 0) + 1

    def add_all(self, seconds: Iterable[float]) -> None:
        """As many more, at once: that costs less."""
        import numpy as np  # commands that count nothing do without it

        sizes = np.floor(np.log(np.maximum(np.fromiter(seconds, np.float64), _LEAST)) / _STEP)
        for size, number in zip(*np.unique(sizes.astype(np.int64), return_counts=True), strict=True):
            self.counts[int(size)] = self.counts.get(int(size), 0) + int(number)

    def merge(self, other: Histogram) -> None:
        """Add what another one counted."""
        for size, number in list(other.counts.items()):
            self.counts[size] = self.counts.get(size, 0) + number

    @property
    def number(self) -> int:
        """How many durations were counted."""
        return sum(self.counts.values())

    def above(self, seconds: float) -> tuple[int, float, float]:
        """How many took longer, the seconds of those together, and the seconds of all."""
        sizes = [(exp((size + 0.5) * _STEP), number) for size, number in self.counts.items()]
        longer = [(each, number) for each, number in sizes if each > seconds]
        return (
            sum(number for _, number in longer),
            sum(each * number for each, number in longer),
            sum(each * number for each, number in sizes),
        )

    def quantile(self, share: float) -> float:
        """The seconds that this share of all is at most; 0 if there are none."""
        left = share * self.number
        for size, number in sorted(self.counts.items()):
            left -= number
            if left <= 0:
                return exp((size + 0.5) * _STEP)
        return 0.0
