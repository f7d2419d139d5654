"""The samples of a folder as they come, many in one row of a table: a fifth of the time of a row each."""

from __future__ import annotations

import marshal
import sqlite3
from collections.abc import Iterable, Iterator
from itertools import islice
from operator import lt

Sample = tuple[str, str | None, int, int, int, str]
"""A row: key, what it has in common with others (None: the key), place, bytes in a shard, bytes of its main picture,
files.
"""
_BLOCK = 512  # samples


class Blocks:
    """Samples by number, in a database; and whether keys, and what they have in common, always grew."""

    def __init__(self, db: sqlite3.Connection, samples: Iterable[Sample]) -> None:
        self.of_keys = self.of_folds = True
        self._last = ("", "")
        self._db = db
        db.execute("CREATE TABLE blocks(first INTEGER PRIMARY KEY, sizes BLOB, samples BLOB)")
        number, rest = 0, iter(samples)
        while block := list(islice(rest, _BLOCK)):
            self._look(block)
            sizes = marshal.dumps([sample[3] for sample in block])
            db.execute("INSERT INTO blocks VALUES (?, ?, ?)", (number, sizes, marshal.dumps(block)))
            number += len(block)

    def read(self, start: int = 0, stop: int = 1 << 62) -> Iterator[Sample]:
        """Those from one number on to before another."""
        rows = self._db.execute(
            "SELECT first, samples FROM blocks WHERE first > ? AND first < ? ORDER BY first", (start - _BLOCK, stop)
        )
        for first, block in rows:
            yield from marshal.loads(block)[max(0, start - first) : stop - first]

    def sizes(self) -> Iterator[int]:
        """The bytes that each takes in a shard."""
        for (block,) in self._db.execute("SELECT sizes FROM blocks ORDER BY first"):
            yield from marshal.loads(block)

    def drop(self) -> None:
        """Make room."""
        self._db.execute("DROP TABLE blocks")

    def _look(self, block: list[Sample]) -> None:
        keys = [sample[0] for sample in block]
        folds = [sample[0] if sample[1] is None else sample[1] for sample in block]
        key, fold = self._last
        self.of_keys = self.of_keys and all(map(lt, [key, *keys], keys))
        self.of_folds = self.of_folds and all(map(lt, [fold, *folds], folds))
        self._last = keys[-1], folds[-1]
