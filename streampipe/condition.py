"""A ``where`` condition, run on an index or on one sample: the same answer from both."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streampipe.errors import ConfigError
from streampipe.expression import Column, Expression, column
from streampipe.index import ShardIndex

MISSING = ("drop", "keep", "error")
_NO_FIELD = re.compile(r"No match for FieldRef\.Name\((.+?)\)")


class Condition:
    """A text in the expression language, or a pyarrow expression, and what to do where it is neither true nor false.

    ``missing``: ``drop`` the sample, ``keep`` it, or make it an ``error``.

    >>> Condition("width > 5").of_sample({"width": 6}), Condition("width > 5").of_sample({"width": None})
    (True, False)
    """

    def __init__(self, condition: str | pc.Expression, missing: str = "drop") -> None:
        if missing not in MISSING:
            raise ConfigError(f"missing is one of {', '.join(MISSING)}, not {missing!r}")
        if not isinstance(condition, (str, pc.Expression)):
            raise ConfigError(f"where takes a text or a pyarrow expression, not {type(condition).__name__}")
        self.condition = Expression(condition) if isinstance(condition, str) else condition
        self.missing = missing

    @property
    def text(self) -> str:
        """The condition as written."""
        shown = self.condition.text if isinstance(self.condition, Expression) else str(self.condition)
        return shown if self.missing == "drop" else f"{shown} [missing={self.missing}]"

    def __repr__(self) -> str:
        return repr(self.text)

    def of_index(self, index: ShardIndex) -> np.ndarray:
        """Which rows of an index are kept, as a mask.

        Raises:
            ConfigError: kinds that cannot be compared; or a value is unknown and ``missing`` is ``error``.
        """
        if isinstance(self.condition, Expression):
            value = self.condition(_columns(index, self.condition), len(index))
        else:
            value = _by_arrow(index.table, self.condition)
        return self._decided(value, lambda i: f"sample {index.keys()[i]!r}")

    def of_sample(self, facts: Mapping[str, Any]) -> bool:
        """Whether a sample with these facts is kept."""
        if isinstance(self.condition, Expression):
            columns = {name: column([facts.get(name)]) for name in self.condition.names}
            value = self.condition(columns, 1)
        else:
            value = _by_arrow(pa.table({name: [fact] for name, fact in facts.items()}), self.condition)
        return bool(self._decided(value, lambda _: f"sample {facts.get('key')!r}")[0])

    def reasons(self, index: ShardIndex) -> Counter[str]:
        """Why rows of an index are dropped."""
        if isinstance(self.condition, Expression):
            return self.condition.reasons(_columns(index, self.condition), len(index))
        return Counter({f"{self.condition} is not true": len(index)})

    def reasons_of_sample(self, facts: Mapping[str, Any]) -> Counter[str]:
        """Why one sample is dropped."""
        if isinstance(self.condition, Expression):
            return self.condition.reasons({name: column([facts.get(name)]) for name in self.condition.names}, 1)
        return Counter({f"{self.condition} is not true": 1})

    def _decided(self, value: Column, place: Any) -> np.ndarray:
        unknown = ~value.known
        if self.missing == "error" and unknown.any():
            raise ConfigError(
                f"where {self.text}: {place(int(np.flatnonzero(unknown)[0]))} lacks a value that is needed; say "
                f"missing='drop' or missing='keep'"
            )
        return np.asarray(np.where(unknown, self.missing == "keep", value.values.astype(bool)))


class Keep:
    """Conditions as the planner uses them: from a shard's index to the numbers of the samples that are kept."""

    def __init__(self, conditions: tuple[Condition, ...]) -> None:
        self.conditions = conditions

    @property
    def text(self) -> str:
        """All conditions as one text; it is part of a run's state."""
        return " and ".join(f"({each.text})" for each in self.conditions)

    def __call__(self, index: ShardIndex) -> np.ndarray:
        """The numbers of the samples that every condition keeps, ascending."""
        mask = np.ones(len(index), bool)
        for each in self.conditions:
            mask &= each.of_index(index)
        return np.flatnonzero(mask)

    def reasons(self, index: ShardIndex) -> Counter[str]:
        """Why samples are dropped."""
        return sum((each.reasons(index) for each in self.conditions), Counter())


def _columns(index: ShardIndex, expression: Expression) -> dict[str, Column]:
    found = {}
    for name, values in index.columns(expression.names).items():
        if isinstance(values, list):
            found[name] = column(values)
            continue
        known = values.is_valid().to_numpy()
        if pa.types.is_string(values.type):
            found[name] = Column(values.to_numpy(), known)
            continue
        numbers = values.fill_null(False if pa.types.is_boolean(values.type) else 0).to_numpy()
        known = known & ~np.isnan(numbers) if numbers.dtype.kind == "f" else known
        found[name] = Column(numbers, known)
    return found


def _by_arrow(table: pa.Table, expression: pc.Expression) -> Column:
    """Three-valued truth of a pyarrow expression; a column that there is not is unknown."""
    while True:
        try:
            rows = pa.array(np.arange(table.num_rows))
            numbered = table.append_column("__row__", rows)
            true = numbered.filter(expression).column("__row__").to_numpy()
            false = numbered.filter(~expression).column("__row__").to_numpy()
            break
        except pa.ArrowInvalid as error:
            name = _NO_FIELD.search(str(error))
            if name is None or name[1] in table.column_names:
                raise ConfigError(f"where: {expression} cannot be used: {error}") from error
            table = table.append_column(name[1], pa.nulls(table.num_rows))
        except pa.ArrowException as error:
            raise ConfigError(f"where: {expression} cannot be used: {error}") from error
    values, known = np.zeros(table.num_rows, bool), np.zeros(table.num_rows, bool)
    values[true] = known[true] = known[false] = True
    return Column(values, known)
