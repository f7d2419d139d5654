"""Indexes that were read to count samples, kept until the samples are read."""

from __future__ import annotations

import os
from collections.abc import Collection

from streampipe.index.table import BYTES, ShardIndex
from streampipe.source import local_path

_MOST = 16 << 20  # bytes of all
Stamp = tuple[int, int, int]


class Ready:
    """Few and small ones, of local files. It does not travel to other processes."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Stamp, frozenset[str], ShardIndex]] = {}
        self._bytes = 0

    def __reduce__(self) -> tuple[type[Ready], tuple[()]]:
        return Ready, ()

    def keep(self, place: str, columns: Collection[str], index: ShardIndex) -> None:
        """Keep what was read of the file ``place``, if there is room."""
        stamp = _stamp(place)
        if stamp is not None and place not in self._kept and self._bytes + index.table.nbytes <= _MOST:
            self._kept[place] = stamp, frozenset(columns), index
            self._bytes += index.table.nbytes

    def find(self, place: str, columns: Collection[str] | None) -> ShardIndex | None:
        """What is kept of a file that is as it was, if these columns are among what was read of it. Who reads samples
        by it takes it.
        """
        stamp, there, found = self._kept.get(place, (None, frozenset[str](), None))
        if found is None or columns is None or not there.issuperset(columns):
            return None
        same = stamp == _stamp(place)
        if (not same or frozenset(columns) >= BYTES) and self._kept.pop(place, None) is not None:
            self._bytes -= found.table.nbytes
        return found if same else None


def _stamp(place: str) -> Stamp | None:
    """What tells a state of a local file from another; None where there is none."""
    path = local_path(place)
    try:
        found = os.stat(path) if path is not None else None
    except OSError:
        return None
    return None if found is None else (found.st_ino, found.st_size, found.st_mtime_ns)
