"""The scalars of a shard's json members as columns: which become one, and of what type.

A rule with bounds, because a tagger's json has an entry for each tag: at most 1,000 columns, those that the most
samples have (those that came first, where as many have them). It is applied while the shard is read: whenever twice as
many names have come together, the others are let go, and from then on no new name is taken in. So every column that is
there is whole, and time and memory grow with the samples alone. Names that ``where`` knows by heart, and what videos
are, are always columns. That names were left out is noted in the index: who asks for one is told so, not answered
"unknown".
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from streampipe.index.facts import VIDEO_COLUMNS
from streampipe.query.aliases import COLUMNS

MOST_COLUMNS = 1_000
MIXED = b"streampipe.mixed"
"""Marks a column whose values are JSON texts, because its values are not all of one kind."""
_ALWAYS = frozenset(name for names in COLUMNS.values() for name in names) | COLUMNS.keys() | VIDEO_COLUMNS
_CODES = {float: "d", int: "q"}
EXACT = 1 << 53
"""Whole numbers up to here are exact as floats."""


class Values:
    """The values of a column, and the rows that have them. Numbers of one kind take eight bytes each."""

    def __init__(self) -> None:
        self.rows = array("q")
        self.kind: type = type(None)  # object, when there are several
        self.values: Any = []

    def append(self, row: int, value: Any) -> None:
        """A row's value."""
        if type(value) is not self.kind and self.kind is not object:
            self._widen(type(value))
        self.rows.append(row)
        self.values.append(value)

    def _widen(self, kind: type) -> None:
        if not self.rows:
            self.kind, self.values = kind, array(_CODES[kind]) if kind in _CODES else []
        else:
            self.kind, self.values = object, list(self.values)

    def to_arrow(self, name: str, rows: int) -> tuple[pa.Field, pa.Array]:
        """As a column of so many rows. Whole numbers that a float cannot hold make one of mixed kinds."""
        kinds = {type(each) for each in self.values} if self.kind is object else {self.kind}
        if kinds == {int}:
            return self._numbers(name, rows, np.dtype(np.int64))
        if kinds <= {int, float} and all(type(each) is float or abs(each) <= EXACT for each in self.values):
            return self._numbers(name, rows, np.dtype(float))
        texts = self.values if kinds == {str} else [json.dumps(each) for each in self.values]
        held: list[Any] = [None] * rows
        for row, text in zip(self.rows, self.values if kinds == {bool} else texts, strict=True):
            held[row] = text
        if kinds == {bool}:
            return pa.field(name, pa.bool_()), pa.array(held, pa.bool_())
        mark = None if kinds == {str} else {MIXED: b"json"}
        return pa.field(name, pa.string(), metadata=mark), pa.array(held, pa.string())

    def _numbers(self, name: str, rows: int, kind: np.dtype[Any]) -> tuple[pa.Field, pa.Array]:
        held, missing = np.zeros(rows, kind), np.ones(rows, bool)
        at = np.array(self.rows, np.int64)
        held[at], missing[at] = np.array(self.values, kind), False
        column = pa.array(held, mask=missing)
        return pa.field(name, column.type), column


class Columns:
    """The columns of a shard, as its samples come."""

    def __init__(self, scalars: Iterable[Mapping[str, Any]] = ()) -> None:
        self.rows = 0
        self.left_out = False
        self._held: dict[str, Values] = {}
        self._always = set(_ALWAYS)
        for each in scalars:
            self.add(each)

    def add(self, scalars: Mapping[str, Any], always: Collection[str] = ()) -> None:
        """The scalars of the next sample; NaN is no value. Those that are ``always`` columns are not many."""
        if not scalars:
            self.rows += 1
            return
        held = self._held
        self._always.update(always)
        for name, value in scalars.items():
            if value is None or value != value:
                continue
            values = held.get(name)
            if values is None:
                if self.left_out and name not in self._always:
                    continue
                values = held[name] = Values()
            values.append(self.rows, value)
        self.rows += 1
        if len(held) > 2 * MOST_COLUMNS:
            self._cut()

    def to_arrow(self) -> list[tuple[pa.Field, pa.Array]]:
        """The columns, in the order in which their names came."""
        if len(self._held) > MOST_COLUMNS:
            self._cut()
        return [values.to_arrow(name, self.rows) for name, values in self._held.items()]

    def _cut(self) -> None:
        """Let go of all names but the most frequent."""
        known = sum(name in self._always for name in self._held)
        others = [name for name in self._held if name not in self._always]
        others.sort(key=lambda name: -len(self._held[name].rows))  # stable: as many, as they came
        kept = set(others[: max(0, MOST_COLUMNS - known)])
        if len(kept) < len(others):
            self.left_out = True
        self._held = {name: each for name, each in self._held.items() if name in kept or name in self._always}
