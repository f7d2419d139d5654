"""Columns of values of which some are unknown, and what ``and``, ``or`` and ``not`` make of those."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, reduce
from typing import Any, NamedTuple

import numpy as np

from streampipe.index.columns import EXACT

_ONE_KNOWN = np.ones(1, bool)
_ONE_KNOWN.flags.writeable = False


class Column(NamedTuple):
    """Values of one kind (float64, int64, bool or objects), and which of them are known."""

    values: np.ndarray
    known: np.ndarray


def all_known(rows: int) -> np.ndarray:
    """A mask that is true in all rows, in no memory: most columns know all their values.

    >>> mask = all_known(3)
    >>> mask.tolist(), is_all(mask), is_all(np.ones(3, bool)), both(mask, np.array([True, False, True])).tolist()
    ([True, True, True], True, False, [True, False, True])
    """
    return np.broadcast_to(_ONE_KNOWN, rows)


def is_all(mask: np.ndarray) -> bool:
    """Whether a mask is one of ``all_known``. Others may be true in all rows, too: nobody looks at them."""
    return mask.strides == (0,) and bool(mask[:1].all())


def both(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The rows that are in both masks. It may be one of them, so nobody writes into it."""
    if is_all(a):
        return b
    return a if is_all(b) else a & b


def column(values: Sequence[Any]) -> Column:
    """A column from Python values; None and NaN are unknown.

    >>> column([1, None, 3]).known.tolist()
    [True, False, True]
    """
    if len(values) == 1 and type(values[0]) in (int, float, bool) and values[0] == values[0]:
        return Column(np.array(values), _ONE_KNOWN)  # a single sample's fact, mostly
    known = np.array([v is not None and v == v for v in values], bool)
    kinds = {type(v) for v, k in zip(values, known, strict=True) if k}
    exact = kinds != {int, float} or all(abs(v) <= EXACT for v in values if type(v) is int)
    if kinds <= {int, float} and exact:
        kind: Any = np.int64 if kinds == {int} else np.float64
        return Column(np.array([v if k else 0 for v, k in zip(values, known, strict=True)], kind), known)
    if kinds == {bool}:
        return Column(np.array([bool(v) for v in values]), known)
    held = np.empty(len(values), object)
    held[:] = list(values)
    return Column(held, known)


def first_known(columns: Sequence[Column], rows: int) -> Column:
    """In each row the value of the first column that knows one.

    >>> first_known([column([None, 1]), column([2, 3])], 2).values.tolist()
    [2, 1]
    """
    if not columns:
        return Column(np.zeros(rows), np.zeros(rows, bool))
    values, known = columns[0]
    for other in columns[1:]:
        if is_all(known) or known.all():
            break
        take = other.known & ~known
        if not take.any():
            continue
        if not known.any():
            values, known = other
        elif values.dtype == other.values.dtype or _fit_together(values, other.values):
            values, known = np.where(take, other.values, values), known | take
        else:
            held = np.empty(rows, object)
            held[:] = [b if t else a for a, b, t in zip(values.tolist(), other.values.tolist(), take, strict=True)]
            values, known = held, known | take
    return Column(values, known)


def _fit_together(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether whole numbers and floats can stand in one array, none of them changed."""
    if {a.dtype.kind, b.dtype.kind} != {"i", "f"}:
        return False
    whole = a if a.dtype.kind == "i" else b
    return bool((np.abs(whole) <= EXACT).all())


def together(parts: Sequence[Column]) -> Column:
    """Truth values joined by ``and``: false where one is known to be false, else unknown where one is unknown."""
    return parts[0] if len(parts) == 1 else conjunction(parts)


def constant(value: Any, rows: int) -> Column:
    return _constant_once(value) if rows == 1 else _constants_of(value, rows)


@lru_cache(1000, typed=True)  # False is not 0
def _constant_once(value: Any) -> Column:
    return _constants_of(value, 1)


def _constants_of(value: Any, rows: int) -> Column:
    if isinstance(value, str):
        held = np.empty(rows, object)
        held[:] = value
        return Column(held, all_known(rows))
    try:
        one = np.full(1, value)
    except OverflowError:
        one = np.full(1, float(value))
    return Column(np.broadcast_to(one, rows), all_known(rows))


def negation(value: Column) -> Column:
    return Column(~value.values.astype(bool, copy=False), value.known)


def conjunction(parts: Sequence[Column]) -> Column:
    """Kleene's and: false where one is known to be false, else unknown where one is unknown."""
    truths = [part.values.astype(bool, copy=False) for part in parts]
    if all(is_all(part.known) for part in parts):
        return Column(reduce(np.logical_and, truths), parts[0].known)
    false = reduce(np.logical_or, [both(part.known, ~truth) for part, truth in zip(parts, truths, strict=True)])
    known = false | reduce(both, [part.known for part in parts])
    return Column(~false, known)
