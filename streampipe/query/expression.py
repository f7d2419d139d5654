"""``where`` conditions: a small expression language over columns. Parsed with ``ast``, checked, never run as Python.

Grammar: names (``aesthetic``, ``exif.iso``, ``ref[0].image.width`` for ``ref.0.image.width``), numbers, texts, True,
False; ``< <= > >= == !=`` (chains too), ``in`` and ``not in`` a list of constants or a text, ``is None`` and ``is not
None``; ``and or not``; ``+ - * / // %``; ``abs``, ``min``, ``max``, ``len``.

Strategy: every value is a column: an array and a mask of what is known. A single sample is a column of length one, so a
dataset filtered by its index and a stream filtered sample by sample cannot differ. Unknown follows SQL: a comparison
with it is unknown, ``unknown and False`` is False, ``unknown or True`` is True.
"""

from __future__ import annotations

import ast
import operator
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from streampipe.errors import ConfigError
from streampipe.query.column import Column, all_known, both, conjunction, constant, is_all, negation, together

MOST_CHARACTERS = 10_000
_COMPARE: dict[type, Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_ARITHMETIC: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_NAMES = (ast.Name, ast.Attribute, ast.Subscript)
_FUNCTIONS = ("abs", "min", "max", "len")


class Expression:
    """A parsed condition. Call it with columns by name and the number of rows; it gives a column of truth values.

    Raises:
        ConfigError: the text is no expression of the language; it says which part is not.

    >>> fits = Expression("width >= 512 and aesthetic > 5")
    >>> sorted(fits.names)
    ['aesthetic', 'width']
    >>> from streampipe.query.column import column
    >>> fits({"width": column([512, 100, 600]), "aesthetic": column([6, 6, None])}, 3).known.tolist()
    [True, True, False]
    >>> Expression("__import__('os').system('ls')")
    Traceback (most recent call last):
        ...
    streampipe.errors.ConfigError: where: __import__('os').system('ls') cannot be used: only abs(), min(), max() ...
    """

    def __init__(self, text: str) -> None:
        if len(text) > MOST_CHARACTERS:
            raise ConfigError(f"where: a condition of {len(text)} characters; at most {MOST_CHARACTERS} can be used")
        self.text = text
        try:
            self._tree = ast.parse(text.strip(), mode="eval").body
            self.names: frozenset[str] = frozenset(self._checked(self._tree))
            self._parts = [(part, ast.unparse(part)) for part in _parts(self._tree)]
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            if isinstance(error, ConfigError):
                raise
            why = error.msg if isinstance(error, SyntaxError) else error
            raise ConfigError(
                f"where: {text!r} is no expression ({why}); write it as in 'width >= 512 and aesthetic > 5'"
            ) from error

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"

    def __reduce__(self) -> Any:
        return Expression, (self.text,)

    def __call__(self, columns: Mapping[str, Column], rows: int) -> Column:
        """The condition over ``rows`` rows. A column that is missing is unknown in every row.

        Raises:
            ConfigError: a text is compared in size with a number, or counted with.
        """
        return together(self.parts(columns, rows))

    def parts(self, columns: Mapping[str, Column], rows: int) -> list[Column]:
        """The same, in the parts that stand between ``and``."""
        return [_truth(self._value(part, columns, rows), part) for part, _ in self._parts]

    def numbers(self, columns: Mapping[str, Column], rows: int) -> Column:
        """The same where it is no condition but a number: ``height * width // 256``; in float64.

        Raises:
            ConfigError: a text is counted with.

        >>> from streampipe.query.column import column
        >>> Expression("n // 2 + 1").numbers({"n": column([5, 8])}, 2).values.tolist()
        [3.0, 5.0]
        """
        return _numbers(self._value(self._tree, columns, rows), self._tree)

    def reasons(self, parts: Sequence[Column], rows: np.ndarray) -> Counter[str]:
        """Why the condition is not true in rows (a mask), by its parts.

        Each row counts once: under the first part that is false, or, where none is, the first that is unknown.
        """
        found: Counter[str] = Counter()
        left = rows.copy()
        for what in ("false", "unknown"):
            for (_, text), (values, known) in zip(self._parts, parts, strict=True):
                if what == "unknown" and is_all(known):
                    continue
                mine = left & (~known if what == "unknown" else both(known, ~values.astype(bool, copy=False)))
                if number := int(np.count_nonzero(mine)):
                    found[f"{text} is {what}"] += number
                    left &= ~mine
        return found

    def _checked(self, node: ast.expr) -> set[str]:
        """The names in a tree. Refuses what is not of the language."""
        if isinstance(node, _NAMES):
            return {_name(node)}
        if isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float, str)):
            return set()
        parts: Sequence[ast.expr]
        if isinstance(node, ast.BoolOp):
            parts = node.values
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub, ast.UAdd)):
            parts = [node.operand]
        elif isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
            parts = [node.left, node.right]
        elif isinstance(node, ast.Compare):
            return self._checked_compare(node)
        elif isinstance(node, ast.Call) and not node.keywords and node.args:
            if not (isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS):
                raise ConfigError(f"where: {ast.unparse(node)} cannot be used: only abs(), min(), max() and len() can")
            parts = node.args
        else:
            raise ConfigError(
                f"where: {ast.unparse(node)} cannot be used; write comparisons, and/or/not, in, is None, arithmetic"
            )
        return set().union(*(self._checked(part) for part in parts))

    def _checked_compare(self, node: ast.Compare) -> set[str]:
        names = self._checked(node.left)
        for op, right in zip(node.ops, node.comparators, strict=True):
            if isinstance(op, (ast.Is, ast.IsNot)):
                if not (isinstance(right, ast.Constant) and right.value is None):
                    raise ConfigError(f"where: {ast.unparse(node)}: 'is' goes with None only; use ==")
            elif isinstance(op, (ast.In, ast.NotIn)) and isinstance(right, (ast.List, ast.Tuple, ast.Set)):
                _constants(right)
            elif isinstance(right, ast.Constant) and right.value is None:
                raise ConfigError(f"where: {ast.unparse(node)} is never true; write 'is None' or 'is not None'")
            else:
                names |= self._checked(right)
        return names

    def _value(self, node: ast.expr, columns: Mapping[str, Column], rows: int) -> Column:
        if isinstance(node, _NAMES):
            return columns.get(_name(node)) or Column(np.zeros(rows), np.zeros(rows, bool))
        if isinstance(node, ast.Constant):
            return constant(node.value, rows)
        if isinstance(node, ast.BoolOp):
            parts = [_truth(self._value(part, columns, rows), part) for part in node.values]
            return (
                conjunction(parts)
                if isinstance(node.op, ast.And)
                else negation(conjunction([negation(part) for part in parts]))
            )
        if isinstance(node, ast.UnaryOp):
            value = self._value(node.operand, columns, rows)
            if isinstance(node.op, ast.Not):
                return negation(_truth(value, node.operand))
            numbers = _numbers(value, node.operand)
            return numbers if isinstance(node.op, ast.UAdd) else Column(-numbers.values, numbers.known)
        if isinstance(node, ast.BinOp):
            left = _numbers(self._value(node.left, columns, rows), node.left)
            return _arithmetic(node.op, left, _numbers(self._value(node.right, columns, rows), node.right))
        if isinstance(node, ast.Compare):
            return self._compare(node, columns, rows)
        assert isinstance(node, ast.Call)
        assert isinstance(node.func, ast.Name)
        return _call(node.func.id, [self._value(each, columns, rows) for each in node.args], node)

    def _compare(self, node: ast.Compare, columns: Mapping[str, Column], rows: int) -> Column:
        left = self._value(node.left, columns, rows)
        found = []
        for op, right in zip(node.ops, node.comparators, strict=True):
            if isinstance(op, (ast.Is, ast.IsNot)):
                known = left.known if isinstance(op, ast.IsNot) else ~left.known
                found.append(Column(known, all_known(rows)))
                continue
            if isinstance(op, (ast.In, ast.NotIn)):
                inside = self._inside(left, right, columns, rows)
                found.append(inside if isinstance(op, ast.In) else negation(inside))
                continue
            value = self._value(right, columns, rows)
            found.append(_compared(_COMPARE[type(op)], left, value, node))
            left = value
        return conjunction(found) if len(found) > 1 else found[0]

    def _inside(self, left: Column, right: ast.expr, columns: Mapping[str, Column], rows: int) -> Column:
        if isinstance(right, (ast.List, ast.Tuple, ast.Set)):
            wanted = _constants(right)
            return Column(np.array([each in wanted for each in left.values.tolist()], bool), left.known)
        whole = self._value(right, columns, rows)
        known = both(left.known, whole.known)
        pairs = zip(left.values.tolist(), whole.values.tolist(), known.tolist(), strict=True)
        values = [isinstance(a, str) and isinstance(b, str) and a in b for a, b, k in pairs]
        return Column(np.array(values, bool), known)


def _parts(node: ast.expr) -> Iterator[ast.expr]:
    """What stands between ``and``."""
    if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And):
        for each in node.values:
            yield from _parts(each)
    else:
        yield node


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value)}.{node.attr}"
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and type(node.slice.value) is int:
        return f"{_name(node.value)}.{node.slice.value}"  # a name with a number in it is none of Python's
    if isinstance(node, ast.Name):
        return node.id
    raise ConfigError(f"where: {ast.unparse(node)} is no column")


def _constants(node: ast.expr) -> set[Any]:
    """The constants after ``in``."""
    try:
        found = set(ast.literal_eval(node))
    except (ValueError, TypeError):
        found = {None}
    if None in found:
        raise ConfigError(f"where: {ast.unparse(node)}: the list after 'in' holds constants only, and no None")
    return found


def _truth(value: Column, node: ast.expr) -> Column:
    if value.values.dtype == object:
        if any(not isinstance(v, bool) for v, k in zip(value.values, value.known, strict=True) if k):
            raise ConfigError(f"where: {ast.unparse(node)} is no condition: it holds texts; compare it with something")
        return Column(np.array([v is True for v in value.values], bool), value.known)
    return Column(value.values.astype(bool, copy=False), value.known)


def _numbers(value: Column, node: ast.expr) -> Column:
    if value.values.dtype == object:
        bad = [v for v, k in zip(value.values, value.known, strict=True) if k and isinstance(v, str)]
        if bad:
            raise ConfigError(f"where: {ast.unparse(node)} is no number: it holds the text {bad[0]!r:.60}")
        return Column(
            np.array([v if k else 0 for v, k in zip(value.values, value.known, strict=True)], float), value.known
        )
    return Column(value.values.astype(float, copy=False), value.known)


def _arithmetic(op: ast.operator, left: Column, right: Column) -> Column:
    """In float64. What has no value (a division by zero) is unknown."""
    with np.errstate(all="ignore"):
        values = _ARITHMETIC[type(op)](left.values, right.values)
    finite = np.isfinite(values)
    return Column(np.where(finite, values, 0.0), both(left.known, right.known) & finite)


def _compared(op: Callable[[Any, Any], Any], left: Column, right: Column, node: ast.Compare) -> Column:
    known = both(left.known, right.known)
    if left.values.dtype != object and right.values.dtype != object:
        return Column(op(left.values, right.values), known)
    values = np.zeros(len(known), bool)
    for i in np.flatnonzero(known):
        try:
            values[i] = op(left.values[i], right.values[i])
        except TypeError:
            raise ConfigError(
                f"where: {ast.unparse(node)} compares {left.values[i]!r:.40} with {right.values[i]!r:.40}: a text "
                f"and a number have no order"
            ) from None
    return Column(values, known)


def _call(name: str, args: list[Column], node: ast.Call) -> Column:
    if name == "len":
        values = args[0].values
        texts = [len(v) if isinstance(v, str) else 0 for v in values.tolist()]
        if len(args) != 1 or any(
            k and not isinstance(v, str) for v, k in zip(values.tolist(), args[0].known, strict=True)
        ):
            raise ConfigError(f"where: {ast.unparse(node)}: len() takes one text")
        return Column(np.array(texts), args[0].known)
    numbers = [_numbers(each, node) for each in args]
    if name == "abs":
        if len(args) != 1:
            raise ConfigError(f"where: {ast.unparse(node)}: abs() takes one number")
        return Column(np.abs(numbers[0].values), numbers[0].known)
    reduce = np.minimum.reduce if name == "min" else np.maximum.reduce
    return Column(reduce([each.values for each in numbers]), np.logical_and.reduce([each.known for each in numbers]))
