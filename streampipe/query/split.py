"""A split by key: a sample's side follows from its key (or another fact) alone, so two sides are disjoint for ever.

It is a condition like any other to ``Keep`` and to a stage (``of_index``, ``of_sample``, ``text``, ...): the planner
asks the index, a stream asks the sample, and both get the same answer. A stage that runs it must not take a long run of
dropped samples for an error, as ``where`` does: a share of 1 in 100,000 has long runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from math import isnan
from typing import Any
from zlib import crc32

import numpy as np
import pyarrow as pa

from streampipe.errors import ConfigError
from streampipe.index import ShardIndex
from streampipe.query.condition import Verdict
from streampipe.rng import derive, uniform_at


class Split:
    """The samples whose hash, a number in [0, 1), is in [``low``, ``high``).

    The hash is of the text of the fact ``by`` and of ``seed``. It does not depend on where a sample is, so shards may
    be added, moved, or written anew; samples with the same fact (duplicates, pages of one document) are on one side.

    >>> rest, held_out = Split.halves(0.25)
    >>> [bool(held_out.of_sample({"key": key}).kept[0]) for key in ("0001", "0004", "0007")]
    [False, True, False]
    >>> rest.text, held_out.text
    ("split by 'key' at 0.25 to 1.0, seed 0", "split by 'key' at 0.0 to 0.25, seed 0")
    """

    def __init__(self, low: float, high: float, by: str = "key", seed: int = 0) -> None:
        if not 0 <= low < high <= 1:
            raise ConfigError(f"a split is of shares from 0 to 1, not from {low!r} to {high!r}")
        self.low, self.high = float(low), float(high)
        self.by = by
        self.seed = seed

    @classmethod
    def halves(cls, share: float, by: str = "key", seed: int = 0) -> tuple[Split, Split]:
        """The rest, and the ``share`` of samples that is held out. A larger share holds out what a smaller one does.

        Raises:
            ConfigError: the share is not between 0 and 1.
        """
        if not 0 < share < 1:
            raise ConfigError(f"share is between 0 and 1, without these, not {share!r}")
        return cls(share, 1, by, seed), cls(0, share, by, seed)

    @property
    def text(self) -> str:
        """The split in words; it is part of a run's state."""
        return f"split by {self.by!r} at {self.low!r} to {self.high!r}, seed {self.seed}"

    def __repr__(self) -> str:
        return repr(self.text)

    def of_index(self, index: ShardIndex, among: np.ndarray | None = None) -> Verdict:
        """Which rows of an index are on this side, among all or those of a mask.

        Raises:
            ConfigError: a sample lacks the fact.
        """
        rows = np.ones(len(index), bool) if among is None else among
        wanted = np.flatnonzero(rows)
        texts = self._texts(index, wanted)
        if None in texts:
            raise self._lacking(index.keys()[wanted[texts.index(None)]])
        return self._decided(rows, wanted, texts)

    def of_sample(self, facts: Mapping[str, Any]) -> Verdict:
        """Whether a sample with these facts is on this side: one row.

        Raises:
            ConfigError: it lacks the fact.
        """
        text = _text(facts.get(self.by))
        if text is None:
            raise self._lacking(facts.get("key"))
        return self._decided(np.ones(1, bool), np.zeros(1, np.int64), [text])

    @property
    def wants_sizes(self) -> bool:
        """Whether the size of the image may matter."""
        return self.by in ("width", "height")

    def lacks(self, facts: Mapping[str, Any]) -> bool:
        """Whether facts from elsewhere are needed: these have not the one that is asked for."""
        return _text(facts.get(self.by)) is None

    def names(self, there: Collection[str] | None = None) -> str:
        """What names stand for: here each stands for itself."""
        return ""

    def _texts(self, index: ShardIndex, wanted: np.ndarray) -> list[Any]:
        """The fact's text for each of these rows, None where there is none."""
        column = index.columns([self.by]).get(self.by, [None] * len(index))
        if isinstance(column, list):  # of several kinds
            return [_text(column[i]) for i in wanted.tolist()]
        column = column.take(wanted)
        if pa.types.is_string(column.type):  # as Arrow has them: keys of a large dataset are many
            return list(column.cast(pa.binary()).to_pylist())
        return [_text(value) for value in column.to_pylist()]

    def _decided(self, rows: np.ndarray, wanted: np.ndarray, texts: Iterable[bytes]) -> Verdict:
        hashes = uniform_at(derive("split", self.seed), np.fromiter(map(crc32, texts), np.uint32, len(wanted)))
        kept = np.zeros(len(rows), bool)
        kept[wanted] = (hashes >= self.low) & (hashes < self.high)
        dropped = len(wanted) - int(kept.sum())
        return Verdict(kept, Counter({f"it is on another side of the {self.text}": dropped} if dropped else {}))

    def _lacking(self, key: object) -> ConfigError:
        return ConfigError(
            f"split by {self.by!r}: sample {key!r} does not have it, so it has no side; choose a fact that every "
            f"sample has, as by='key'"
        )


def _text(value: Any) -> bytes | None:
    """A fact's text: the same whether a number is whole or a float, as an index has them all as one kind."""
    if value is None or (isinstance(value, float) and isnan(value)):
        return None
    return (value if isinstance(value, str) else repr(float(value))).encode("utf-8", "surrogatepass")
