"""Histograms over any number of values: what is held are some classes, never the values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import ceil, log2
from typing import Any

import numpy as np

_CLASSES, _BAR = 16, 40


class Histogram:
    """How many values are in each class, with the least, the greatest and the mean.

    Args:
        edges: where classes begin, ascending; values below the first are in the first. Without: classes of one width, a
            power of two, that grows with the values, so that there are at most 17.

    >>> found = Histogram()
    >>> found.add(np.array([4.1, 4.9, 6.5, np.nan]))
    >>> found.add(np.array([0.0]))
    >>> [(row["from"], row["to"], row["samples"]) for row in found.rows()]
    [(0.0, 0.5, 1), (4.0, 4.5, 1), (4.5, 5.0, 1), (6.5, 7.0, 1)]
    """

    def __init__(self, edges: Sequence[float] | None = None) -> None:
        self.edges = edges
        self.values = 0
        self._sum, self._least, self._most = 0.0, np.inf, -np.inf
        self._counts: Counter[int] = Counter()
        self._power = -30

    def add(self, values: np.ndarray) -> None:
        """Count values; NaN and infinity are none."""
        values = np.asarray(values, np.float64)
        values = values[np.isfinite(values)]
        if not len(values):
            return
        self.values += len(values)
        self._sum += float(values.sum())
        self._least = min(self._least, float(values.min()))
        self._most = max(self._most, float(values.max()))
        if self.edges is not None:
            numbers = np.searchsorted(self.edges, values, side="right").clip(1) - 1
        else:
            self._widen()
            numbers = np.floor(values / 2.0**self._power).astype(np.int64)
        for number, count in zip(*np.unique(numbers, return_counts=True), strict=True):
            self._counts[int(number)] += int(count)

    def add_counted(self, values: np.ndarray, counts: np.ndarray, least: float, most: float, total: float) -> None:
        """Count values that others have counted: of each class some value, and how many there are; and all values'
        least, greatest and sum. For histograms with edges.
        """
        assert self.edges is not None
        self.values += int(counts.sum())
        self._sum += total
        self._least, self._most = min(self._least, least), max(self._most, most)
        numbers = np.searchsorted(self.edges, values, side="right").clip(1) - 1
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            if count:
                self._counts[number] += count

    def _widen(self) -> None:
        """Make classes as wide as they must be for what was seen: two become one, again and again."""
        span = self._most - self._least
        power = max(self._power, ceil(log2(span / _CLASSES))) if span > 0 else self._power
        merged: Counter[int] = Counter()
        for number, count in self._counts.items():
            merged[number >> (power - self._power)] += count
        self._counts, self._power = merged, power

    def rows(self) -> list[dict[str, Any]]:
        """The classes that are not empty: ``from``, ``to`` (not in it; None: no end), ``samples``."""
        rows = []
        for number in sorted(self._counts):
            if self.edges is not None:
                ends = self.edges[number], self.edges[number + 1] if number + 1 < len(self.edges) else None
            else:
                ends = number * 2.0**self._power, (number + 1) * 2.0**self._power
            rows.append({"from": ends[0], "to": ends[1], "samples": self._counts[number]})
        return rows

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        about = {"least": self._least, "most": self._most, "mean": self._sum / self.values} if self.values else {}
        return {"samples": self.values, **about, "classes": self.rows()}

    def lines(self) -> list[str]:
        """The classes as bars, a line each, and a line of what is between."""
        rows = self.rows()
        if not rows:
            return []
        largest = max(row["samples"] for row in rows)
        names = [f"{_short(row['from'])} to {'' if row['to'] is None else _short(row['to'])}" for row in rows]
        width = max(map(len, names))
        lines = [
            f"{name:<{width}}  {row['samples']:>12,}  {'#' * max(1, round(_BAR * row['samples'] / largest))}"
            for name, row in zip(names, rows, strict=True)
        ]
        lines.append(f"{_short(self._least)} to {_short(self._most)}, {_short(self._sum / self.values)} on average")
        return lines


def _short(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 1000 or number == int(number) else f"{number:.4g}"
