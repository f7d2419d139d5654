"""The manifest of a dataset, and the merged facts beside it, brought up to date while its shards are indexed.

The manifest keeps the order that it had; new shards come behind. A file of facts whose shards are all as they were
stays as it is. One of which a shard changed, or went, is made again from the shards' indexes; and so is a small one
when shards are added, so that adding a shard a day does not leave a file a day.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from streampipe.atomic import unlink
from streampipe.errors import IndexMismatch
from streampipe.index.find import SUFFIX
from streampipe.index.manifest import NAME, Entry, Part, entries, read, to_bytes
from streampipe.index.merged import Merger
from streampipe.index.table import ShardIndex
from streampipe.source import Source, local_path, redact
from streampipe.urls import stem_of

_FEW = 16  # shards whose indexes are as fast to read as a file of facts
_SMALL = 8 << 20


class Indexed(NamedTuple):
    """A shard of which there is an index now, or none, where it is damaged.

    ``kept``: the index was there. ``found``: what it says, if it was read.
    """

    name: str
    entry: Entry | None
    kept: bool = False
    found: ShardIndex | None = None


class Whole:
    """What a dataset's manifest says, at a place that ends in a slash, before its shards are indexed and after.

    Args:
        given: the names of the shards that are indexed now.
    """

    def __init__(self, source: Source, base: str, given: Sequence[str]) -> None:
        self._source, self._base = source, base
        data = source.read_if_there(base + NAME)
        self._before: list[Entry] = []
        self._parts: tuple[Part, ...] = ()
        if data is not None:
            try:
                self._before = entries(data, redact(base + NAME))
                self._parts = read(data, redact(base + NAME)).parts
            except IndexMismatch:  # of an older version, or damaged: it is made anew
                self._before, self._parts = [], ()
        self.was = {entry.shard: entry for entry in self._before}
        self._given = dict.fromkeys(given)
        self._new = [name for name in self._given if name not in self.was]

    @property
    def order(self) -> list[str]:
        """The given shards as the manifest will have them."""
        return [entry.shard for entry in self._before if entry.shard in self._given] + self._new

    @property
    def others(self) -> list[str]:
        """The shards of the manifest that are not indexed now."""
        return [entry.shard for entry in self._before if entry.shard not in self._given]

    def update(self, done: Iterable[Indexed], staying: Collection[str]) -> None:
        """Write merged facts and manifest: of the given shards, as they get done in ``order``, and of those others that
        are still there.
        """
        left, found = iter(done), list[Entry]()
        few = len(self._given) + len(staying) < _FEW
        merger = Merger(lambda name, data: self._source.write(self._base + name, data))
        for part, before in self._runs():
            mine = [self._now(entry, left, staying) for entry in before]
            kept = [each.entry for each in mine if each.entry is not None]
            found += kept
            same = kept == before and all(each.kept for each in mine)
            if part.file is not None and same and not (self._new and part.bytes < _SMALL):
                merger.keep(part)
            elif not few:
                for entry in kept:
                    merger.add(self._index(entry.shard))
        for shard in left:
            if shard.entry is not None:
                found.append(shard.entry)
                if not few and shard.found is not None:
                    merger.add(shard.found)
        merger.close()
        self._source.write(self._base + NAME, to_bytes(found, merger.parts))
        self._let_go({part.file for part in self._parts} - {part.file for part in merger.parts})

    def _runs(self) -> Iterator[tuple[Part, list[Entry]]]:
        """The files of facts that there were, and the rows of the manifest that each was of."""
        first = 0
        for part in self._parts or ((Part(len(self._before)),) if self._before else ()):
            yield part, self._before[first : first + part.shards]
            first += part.shards

    def _now(self, entry: Entry, done: Iterator[Indexed], staying: Collection[str]) -> Indexed:
        if entry.shard in self._given:
            return next(done)
        return Indexed(entry.shard, entry if entry.shard in staying else None, True)

    def _index(self, name: str) -> ShardIndex:
        place = f"{self._base}{stem_of(name)}{SUFFIX}"
        return ShardIndex.from_bytes(self._source.read(place), redact(place))

    def _let_go(self, files: Iterable[str | None]) -> None:
        """Delete local files of facts that no manifest names any more; in a store they are left, as any object is."""
        folder = local_path(self._base)
        for file in files:
            if folder is not None and file is not None:
                unlink(os.path.join(folder, file))
