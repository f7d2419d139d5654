"""A ``where`` condition, run on an index or on one sample: the same answer from both.

A name that the public datasets write in several ways (``streampipe.query.aliases``) stands, in each sample, for the
first of its columns that has a value there; so what a name means does not depend on which samples are looked at
together.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streampipe.counters import counters
from streampipe.errors import ConfigError, IndexMismatch
from streampipe.index import ShardIndex
from streampipe.index.columns import MOST_COLUMNS
from streampipe.query.aliases import COLUMNS, columns_of
from streampipe.query.expression import Column, Expression, column, first_known, together

MISSING = ("drop", "keep", "error")
_NO_FIELD = re.compile(r"No match for FieldRef\.Name\((.+?)\)")


class Verdict(NamedTuple):
    """Which rows are kept, as a mask; why the others are not; how many are kept though the answer is unknown."""

    kept: np.ndarray
    reasons: Counter[str]
    unknown: int = 0

    def record(self, stage: str) -> None:
        """Count what was dropped, in all and by reason, and what was kept for want of a value."""
        if self.reasons:
            counters.add(stage, "dropped", self.reasons.total())
        for reason, times in self.reasons.items():
            counters.add(stage, f"dropped because {reason}", times)
        if self.unknown:
            counters.add(stage, "kept without a value", self.unknown)


class Condition:
    """A text in the expression language, or a pyarrow expression, and what to do where it is neither true nor false.

    ``missing``: ``drop`` the sample, ``keep`` it, or make it an ``error``. A pyarrow expression names columns as they
    are; in a text, names of ``streampipe.query.aliases`` stand for what the dataset calls them.

    >>> Condition("width > 5").of_sample({"width": 6}).kept.tolist()
    [True]
    >>> Condition("watermark < 0.5").of_sample({"key": "a", "pwatermark": 0.7}).reasons
    Counter({'watermark < 0.5 is false': 1})
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

    def of_index(self, index: ShardIndex, among: np.ndarray | None = None) -> Verdict:
        """Which rows of an index are kept, among all or those of a mask.

        Raises:
            ConfigError: kinds that cannot be compared; or a value is unknown and ``missing`` is ``error``.
            IndexMismatch: the index was made before values inside objects of the json were indexed.
        """
        rows = np.ones(len(index), bool) if among is None else among
        place: Callable[[int], str] = lambda i: f"sample {index.keys()[i]!r}"  # noqa: E731
        if isinstance(self.condition, Expression):
            return self._judged(_of_index(index, self.condition), rows, place)
        return self._decided(_by_arrow(index.table, self.condition), rows, place)

    def of_sample(self, facts: Mapping[str, Any]) -> Verdict:
        """Whether a sample with these facts is kept: one row."""
        rows = np.ones(1, bool)
        place: Callable[[int], str] = lambda _: f"sample {facts.get('key')!r}"  # noqa: E731
        if isinstance(self.condition, Expression):
            columns = {name: column([_first(facts, name)]) for name in self.condition.names}
            return self._judged(columns, rows, place)
        table = pa.table({name: [fact] for name, fact in facts.items()})
        return self._decided(_by_arrow(table, self.condition), rows, place)

    @property
    def wants_sizes(self) -> bool:
        """Whether the size of the image may matter."""
        if not isinstance(self.condition, Expression):
            return True
        return any(each in ("width", "height") for name in self.condition.names for each in columns_of(name))

    def lacks(self, facts: Mapping[str, Any]) -> bool:
        """Whether facts from elsewhere could change the answer: a name's first column has no value in these."""
        if not isinstance(self.condition, Expression):
            return True
        return any(not _known(facts.get(columns_of(name)[0])) for name in self.condition.names)

    def names(self, there: Collection[str] | None = None) -> str:
        """What the condition's names stand for, given the columns that there are, or whatever they are; for messages.

        >>> Condition("watermark < 0.5 and n > 3").names({"watermark_score", "n"})
        'watermark is watermark_score'
        """
        if not isinstance(self.condition, Expression):
            return ""
        meant = (_meaning(name, there) for name in sorted(self.condition.names) if name in COLUMNS)
        return ", ".join(filter(None, meant))

    def _judged(self, columns: Mapping[str, Column], rows: np.ndarray, place: Callable[[int], str]) -> Verdict:
        assert isinstance(self.condition, Expression)
        parts = self.condition.parts(columns, len(rows))
        verdict = self._decided(together(parts), rows, place)
        dropped = rows & ~verdict.kept
        return verdict._replace(reasons=self.condition.reasons(parts, dropped)) if dropped.any() else verdict

    def _decided(self, value: Column, rows: np.ndarray, place: Callable[[int], str]) -> Verdict:
        unknown = rows & ~value.known
        if self.missing == "error" and unknown.any():
            raise ConfigError(
                f"where {self.text}: {place(int(np.flatnonzero(unknown)[0]))} lacks a value that is needed; say "
                f"missing='drop' or missing='keep'"
            )
        kept = rows & np.where(unknown, self.missing == "keep", value.values.astype(bool))
        dropped = int((rows & ~kept).sum())
        reasons = Counter({f"{self.condition} is not true": dropped} if dropped else {})
        return Verdict(kept, reasons, int((kept & unknown).sum()))


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
        return np.flatnonzero(self._verdicts(index)[-1].kept)

    def counted(self, index: ShardIndex) -> np.ndarray:
        """The same; and what was dropped is counted by its reasons, as the stages would."""
        verdicts = self._verdicts(index)
        for i, verdict in enumerate(verdicts):
            verdict.record("where" if i == 0 else f"where#{i + 1}")
        return np.flatnonzero(verdicts[-1].kept)

    def reasons(self, index: ShardIndex) -> Counter[str]:
        """Why samples are dropped."""
        return sum((verdict.reasons for verdict in self._verdicts(index)), Counter())

    def names(self, there: Collection[str]) -> str:
        """What the names stand for, given the columns that there are."""
        return ", ".join(filter(None, (each.names(there) for each in self.conditions)))

    def _verdicts(self, index: ShardIndex) -> list[Verdict]:
        """What each condition says of what those before it kept."""
        verdicts: list[Verdict] = []
        for each in self.conditions:
            verdicts.append(each.of_index(index, verdicts[-1].kept if verdicts else None))
        return verdicts


def _meaning(name: str, there: Collection[str] | None) -> str:
    """What a name stands for; nothing where it stands for itself."""
    found = [each for each in columns_of(name) if there is None or each in there]
    if found == [name]:
        return ""
    return f"{name} is {' else '.join(found)}" if found else f"{name} is none of {', '.join(columns_of(name))}"


def _known(value: Any) -> bool:
    return value is not None and value == value


def _first(facts: Mapping[str, Any], name: str) -> Any:
    """The first value among the facts that a name stands for."""
    return next((facts[each] for each in columns_of(name) if _known(facts.get(each))), None)


def _of_index(index: ShardIndex, expression: Expression) -> dict[str, Column]:
    """The columns that an expression's names stand for."""
    wanted = {each for name in expression.names for each in columns_of(name)}
    there = _columns(index, wanted)
    found = {}
    for name in expression.names:
        meant = columns_of(name)
        if not any(each in there for each in meant) and any(map(index.may_lack, meant)):
            raise IndexMismatch(
                f"where: {name} may stand for a value of the json that an index does not have: there were too many "
                f"names (a column each, at most {MOST_COLUMNS}), or the index is of an older version; run streampipe "
                f"index again, use tier='sequential', or put what is asked for into fewer names"
            )
        found[name] = first_known([there[each] for each in meant if each in there], len(index))
    return found


def _columns(index: ShardIndex, names: Collection[str]) -> dict[str, Column]:
    found = {}
    for name, values in index.columns(names).items():
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
