"""What a sample costs of a budget, as a whole number: by a column, or an expression over columns.

The same text gives the same numbers from an index and from a single sample, so a plan and a stream cannot differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from streampipe.errors import ConfigError
from streampipe.index import ShardIndex
from streampipe.query.aliases import columns_of
from streampipe.query.column import Column
from streampipe.query.condition import IndexFacts, SampleFacts
from streampipe.query.expression import Expression

UNKNOWN = 0
"""The cost of a sample that has none: a value is missing, or what comes out is below 1."""
_MOST = 1 << 50


class Cost:
    """An expression of the language of ``where``, whose value is a number. Fractions are rounded up.

    ``zero``: a value that a sample lacks counts as 0, so that samples of several kinds have one expression; else the
    cost of a sample that lacks a value is unknown (0).

    Raises:
        ConfigError: the text is no expression of the language.

    >>> Cost("height * width // 256 + tokens").of_sample({"height": 32, "width": 32, "tokens": 7})
    11
    >>> Cost("tokens").of_sample({}), Cost("length + tokens", zero=True).of_sample({"tokens": 7})
    (0, 7)
    """

    def __init__(self, text: str, zero: bool = False) -> None:
        try:
            self.expression = Expression(text)
        except ConfigError as error:
            raise _of_pack(error) from None
        if not self.expression.names:
            raise ConfigError(f"pack: cost={text!r} names no column, so every sample would cost the same: use batch(n)")
        self.zero = zero

    @property
    def text(self) -> str:
        """All that decides, in words."""
        return self.expression.text + (" [missing=0]" if self.zero else "")

    @property
    def columns(self) -> frozenset[str]:
        """The columns of an index that it may look at."""
        return frozenset(each for name in self.expression.names for each in columns_of(name))

    @property
    def wants_sizes(self) -> bool:
        """Whether the size of an image, or the header of a video, may matter."""
        return any(name in ("height", "width") or name.startswith("video.") for name in self.columns)

    def of_index(self, index: ShardIndex) -> np.ndarray:
        """The cost of each sample of a shard, int64; ``UNKNOWN`` where there is none.

        Raises:
            ConfigError: a column holds texts.
        """
        return self._costs(IndexFacts(index), len(index))

    def of_sample(self, facts: Mapping[str, Any]) -> int:
        """The cost of a sample with these facts."""
        return int(self._costs(SampleFacts(facts), 1)[0])

    def _costs(self, facts: IndexFacts | SampleFacts, rows: int) -> np.ndarray:
        columns = {name: facts.column(name) for name in self.expression.names}
        if self.zero:
            columns = {name: _zeros(each) for name, each in columns.items()}
        try:
            values, known = self.expression.numbers(columns, rows)
        except ConfigError as error:
            raise _of_pack(error) from None
        sound = known & (values > 0) & (values < _MOST)
        return np.where(sound, np.ceil(np.where(sound, values, 0)), UNKNOWN).astype(np.int64)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cost) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return repr(self.text)


def _zeros(column: Column) -> Column:
    """A column in which what is unknown is 0."""
    values, known = column
    empty = np.zeros(len(values), int) if values.dtype == object and not known.any() else values
    return Column(np.where(known, empty, 0), np.ones(len(values), bool))


def _of_pack(error: ConfigError) -> ConfigError:
    return ConfigError(str(error).replace("where: ", "pack: cost: ", 1))
