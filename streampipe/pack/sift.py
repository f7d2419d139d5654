"""Which samples are packed, and in which part of the dataset: what is asked of facts, before a sample is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from streampipe.errors import ConfigError
from streampipe.folders.facts import facts_of
from streampipe.folders.files import Unreadable, read_file
from streampipe.folders.names import File, Item
from streampipe.index import ShardIndex
from streampipe.plan.buckets import Buckets
from streampipe.query.condition import Condition, Keep
from streampipe.source import Source


class Sift:
    """A condition, and buckets. Called with an index, it gives of each sample the part that it belongs to, or None.

    Args:
        where: as ``where`` takes it; None keeps all.
        bucket: the name of a set of buckets, or ``Buckets``: each is a part of its own; None: there is one part.
        source: what reads files of a store.
    """

    def __init__(self, where: str | None, bucket: str | Buckets | None, source: Source | None = None) -> None:
        if where is not None and not isinstance(where, str):
            raise ConfigError(f"where is a text, as in 'width >= 512', not {where!r:.80}")
        self.keep = None if where is None else Keep((Condition(where),))
        self.buckets = bucket if bucket is None or isinstance(bucket, Buckets) else Buckets(bucket)
        self._source = source
        self.dropped: Counter[str] = Counter()
        self.parts: Counter[int] = Counter()

    def __bool__(self) -> bool:
        return self.keep is not None or self.buckets is not None

    @property
    def columns(self) -> frozenset[str] | None:
        """The facts that are asked for; None: any."""
        wanted = frozenset(("key", "size", "fields"))
        if self.buckets is not None:
            wanted |= {"width", "height"}
        if self.keep is None:
            return wanted
        return None if self.keep.columns is None else wanted | self.keep.columns

    def __call__(self, index: ShardIndex) -> list[int | None]:
        """The part of each sample of a shard."""
        kept = np.ones(len(index), bool)
        if self.keep is not None:
            kept, numbers = self.keep.judged(index)
            for reason, times in numbers.items():
                if "dropped because" in reason:
                    self.dropped[reason.partition("dropped because ")[2]] += times
        parts = np.zeros(len(index), np.int64)
        if self.buckets is not None:
            parts = self._buckets(index, kept)
        found = [int(part) if keep and part >= 0 else None for part, keep in zip(parts, kept, strict=True)]
        self.parts.update(part for part in found if part is not None)
        return found

    def of_folder(self, folder: str, items: list[Item], roots: Sequence[str]) -> Iterable[int | None]:
        """The same for samples of a folder, whose links may lead into ``roots``. What cannot be read stays: whoever
        packs it says what is wrong.
        """

        def read(file: File, name: str) -> bytes:
            return read_file(folder, file, name, self._source, roots)

        try:
            return self(facts_of(folder, items, read, self.columns))
        except Unreadable:
            if len(items) == 1:
                return [0]
            return [part for item in items for part in self.of_folder(folder, [item], roots)]

    def name(self, part: int) -> str | None:
        """What a part is called: the size (height x width) of its bucket."""
        if self.buckets is None:
            return None
        height, width = self.buckets.sizes[part]
        return f"{height}x{width}"

    def notes(self, repeated: Counter[int]) -> list[str]:
        """What came of it, in words. ``repeated``: how many of each part are left out for another reason."""
        found = [f"{times} samples are not packed: {reason}" for reason, times in sorted(self.dropped.items())]
        if self.buckets is not None:
            shown = ", ".join(f"{self.name(part)} ({count})" for part, count in sorted((self.parts - repeated).items()))
            found.append(f"buckets, height x width: {shown or 'none'}")
        return found

    def _buckets(self, index: ShardIndex, kept: np.ndarray) -> np.ndarray:
        assert self.buckets is not None
        columns = index.columns(("width", "height"))
        if len(columns) < 2:
            raise ConfigError("bucket needs the sizes of the images, and nobody knows them here")
        sides = [_numbers(columns[name]) for name in ("height", "width")]
        known = (sides[0] > 0) & (sides[1] > 0)
        parts = np.full(len(index), -1, np.int64)
        if known.any():
            parts[known] = self.buckets.assign(sides[0][known], sides[1][known])
        if lost := int((kept & ~known).sum()):
            self.dropped["their image has no size that can be read"] += lost
        if outside := int((kept & known & (parts < 0)).sum()):
            self.dropped[self.buckets.outside] += outside
        return parts


def _numbers(column: Any) -> np.ndarray:
    values: Sequence[Any] = column if isinstance(column, list) else column.to_pylist()
    return np.array([value if isinstance(value, int) else 0 for value in values], np.int64)
