"""A ``where`` condition, run on an index or on one sample: the same answer from both.

A name that the public datasets write in several ways (``streampipe.query.aliases``) stands, in each sample, for the
first of its columns that has a value there; so what a name means does not depend on which samples are looked at
together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streampipe.counters import counters
from streampipe.errors import ConfigError, IndexMismatch
from streampipe.index import ShardIndex
from streampipe.index.columns import MOST_COLUMNS
from streampipe.query.aliases import COLUMNS, columns_of
from streampipe.query.arrow import ArrowExpression
from streampipe.query.column import Column, all_known, both, column, first_known, is_all, together
from streampipe.query.expression import Expression

MISSING = ("drop", "keep", "error")


class Verdict(NamedTuple):
    """Which rows are kept, as a mask; why the others are not; how many are kept though the answer is unknown."""

    kept: np.ndarray
    reasons: Counter[str]
    unknown: int = 0

    def numbers(self, stage: str) -> Counter[str]:
        """What was dropped, in all and by reason, and what was kept for want of a value: by stage, line end, reason."""
        found: Counter[str] = Counter()
        if self.reasons:
            found[f"{stage}\ndropped"] = self.reasons.total()
        for reason, times in self.reasons.items():
            found[f"{stage}\ndropped because {reason}"] = times
        if self.unknown:
            found[f"{stage}\nkept without a value"] = self.unknown
        return found

    def record(self, stage: str) -> None:
        """Count them."""
        for name, times in self.numbers(stage).items():
            counters.add(stage, name.partition("\n")[2], times)


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
            function = "; filter(fn) takes a function" if callable(condition) else ""
            raise ConfigError(f"where takes a text or a pyarrow expression, not {type(condition).__name__}{function}")
        self.condition = Expression(condition) if isinstance(condition, str) else ArrowExpression(condition)
        self.missing = missing

    @property
    def text(self) -> str:
        """The condition as written."""
        return self.condition.text + ("" if self.missing == "drop" else f" [missing={self.missing}]")

    def __repr__(self) -> str:
        return repr(self.text)

    def of_index(self, index: ShardIndex, among: np.ndarray | None = None) -> Verdict:
        """Which rows of an index are kept, among all or those of a mask.

        Raises:
            ConfigError: kinds that cannot be compared; or a value is unknown and ``missing`` is ``error``.
            IndexMismatch: the index lacks values of the json that a name may stand for.
        """
        return self._judged(IndexFacts(index), all_known(len(index)) if among is None else among)

    def of_sample(self, facts: Mapping[str, Any]) -> Verdict:
        """Whether a sample with these facts is kept: one row."""
        return self._judged(SampleFacts(facts), np.ones(1, bool))

    @property
    def columns(self) -> frozenset[str] | None:
        """The columns of an index that the condition may look at; None: any."""
        if not isinstance(self.condition, Expression):
            return None
        return frozenset(each for name in self.condition.names for each in columns_of(name))

    @property
    def wants_sizes(self) -> bool:
        """Whether the size of the image may matter."""
        return self.columns is None or any(name.endswith(("width", "height")) for name in self.columns)

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

    def _judged(self, facts: _Facts, rows: np.ndarray) -> Verdict:
        """The verdict over facts, of an index or of one sample, for the rows of a mask."""
        if isinstance(self.condition, Expression):
            columns = {name: facts.column(name) for name in self.condition.names}
            parts = self.condition.parts(columns, len(rows))
        else:
            parts = self.condition.parts(facts.table(), facts.lacks)
        value = together(parts)
        truth = value.values.astype(bool, copy=False)
        if is_all(value.known):
            kept = both(rows, truth)
            return Verdict(kept, self._reasons(parts, rows, kept))
        unknown = rows & ~value.known
        if self.missing == "error" and unknown.any():
            key = facts.key(int(np.flatnonzero(unknown)[0]))
            raise ConfigError(
                f"where {self.text}: sample {key!r} lacks a value that is needed; say missing='drop' or missing='keep'"
            )
        kept = rows & np.where(unknown, self.missing == "keep", truth)
        return Verdict(kept, self._reasons(parts, rows, kept), int(np.count_nonzero(kept & unknown)))

    def _reasons(self, parts: Sequence[Column], rows: np.ndarray, kept: np.ndarray) -> Counter[str]:
        dropped = both(rows, ~kept)
        return self.condition.reasons(parts, dropped) if dropped.any() else Counter[str]()


class Asked(Protocol):
    """What an index can be asked: a condition, or a split."""

    @property
    def text(self) -> str: ...
    @property
    def columns(self) -> frozenset[str] | None: ...
    def of_index(self, index: ShardIndex, among: np.ndarray | None = None) -> Verdict: ...
    def names(self, there: Collection[str] | None = None) -> str: ...


class _Facts(Protocol):
    """What is known of samples, as a condition asks for it."""

    def column(self, name: str) -> Column:
        """The values that a name stands for: in each row the first that is known."""
        ...

    def table(self) -> pa.Table:
        """All columns."""
        ...

    def lacks(self, name: str) -> None:
        """There is no such column: raise if its values may be elsewhere."""
        ...

    def key(self, row: int) -> str:
        """A sample's key, for messages."""
        ...


class IndexFacts:
    """The facts of a shard's samples."""

    def __init__(self, index: ShardIndex) -> None:
        self._index = index

    def column(self, name: str) -> Column:
        meant = columns_of(name)
        found = self._index.columns(meant)
        if not found:
            for each in meant:
                self.lacks(each, name)
        return first_known([_column(found[each]) for each in meant if each in found], len(self._index))

    def table(self) -> pa.Table:
        return self._index.table

    def lacks(self, name: str, asked: str = "") -> None:
        if self._index.may_lack(name):
            inside = " inside an object" if "." in name else ""
            raise IndexMismatch(
                f"where: {asked or name} may stand for a value{inside} of the json that the index does not have: there "
                f"were too many names (a column each, at most {MOST_COLUMNS}), or it is of an older version; run "
                f"streampipe index again, use tier='sequential', or put what is asked for into fewer names"
            )

    def key(self, row: int) -> str:
        return self._index.keys()[row]


class SampleFacts:
    """The facts of one sample."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self._facts = facts

    def column(self, name: str) -> Column:
        facts = self._facts
        return column([next((facts[each] for each in columns_of(name) if _known(facts.get(each))), None)])

    def table(self) -> pa.Table:
        return pa.table({name: [fact] for name, fact in self._facts.items()})

    def lacks(self, name: str) -> None:
        return None

    def key(self, row: int) -> str:
        return str(self._facts.get("key"))


class Keep:
    """Conditions as the planner uses them: from a shard's index to the numbers of the samples that are kept."""

    def __init__(self, conditions: tuple[Asked, ...]) -> None:
        self.conditions = conditions

    @property
    def columns(self) -> frozenset[str] | None:
        """The columns of an index that the conditions may look at; None: any."""
        found = [each.columns for each in self.conditions]
        return None if None in found else frozenset().union(*(each for each in found if each is not None))

    @property
    def text(self) -> str:
        """All conditions as one text; it is part of a run's state."""
        return " and ".join(f"({each.text})" for each in self.conditions)

    def __call__(self, index: ShardIndex) -> np.ndarray:
        """The numbers of the samples that every condition keeps, ascending."""
        return np.flatnonzero(self._verdicts(index)[-1].kept)

    def judged(self, index: ShardIndex) -> tuple[np.ndarray, Counter[str]]:
        """Which samples every condition keeps, as a mask; and what is to be counted of the others, as stages would."""
        verdicts = self._verdicts(index)
        numbers: Counter[str] = Counter()
        for i, verdict in enumerate(verdicts):
            numbers += verdict.numbers("where" if i == 0 else f"where#{i + 1}")
        return verdicts[-1].kept, numbers

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


def _column(values: Any) -> Column:
    """A column of an index: an arrow array, or a list of what one of mixed kinds holds."""
    if isinstance(values, list):
        return column(values)
    known = values.is_valid().to_numpy() if values.null_count else all_known(len(values))
    if pa.types.is_string(values.type):
        return Column(values.to_numpy(), known)
    if values.null_count:
        values = values.fill_null(False if pa.types.is_boolean(values.type) else 0)
    numbers = values.to_numpy()
    if numbers.dtype.kind == "f" and (odd := np.isnan(numbers)).any():
        known = both(known, ~odd)
    return Column(numbers, known)
