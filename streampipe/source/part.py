"""A shard on its way into the cache."""

from __future__ import annotations

import fcntl
import json
import os
import zlib
from pathlib import Path

from streampipe.counters import counters
from streampipe.source.disk import MARK, PART, TAIL, is_same, lock, reserve, unique, unlink

_FACTS = 4096
"""Bytes that what a kept shard says of itself may need."""


class Part:
    """A file under a name that nobody else has, which becomes ``final`` when it is whole.

    Args:
        size: bytes to reserve on the disk now, if they are known.
    """

    def __init__(self, final: Path, size: int | None) -> None:
        self._final = final
        self._file = -1
        self._crc = 0
        self.written = 0
        while self._file < 0:
            self._open()
        try:
            if size:
                reserve(self._file, size + _FACTS)
        except BaseException:
            self.discard()
            raise

    def _open(self) -> None:
        self._path = self._final.with_suffix(f".{unique()}{PART}")
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        lock(self._file, fcntl.LOCK_EX)  # says that somebody is at it
        if not is_same(self._file, self._path):  # somebody took it for abandoned before it was locked
            self.close()

    def write(self, data: bytes) -> None:
        """Append."""
        view = memoryview(data)
        while view:
            done = os.pwrite(self._file, view, self.written)
            self._crc = zlib.crc32(view[:done], self._crc)
            self.written += done
            view = view[done:]

    def reader(self) -> int:
        """A descriptor of one's own to read what was written; it outlives the part."""
        return os.dup(self._file)

    def publish(self, version: str | None) -> None:
        """Give it its name."""
        facts = json.dumps({"size": self.written, "version": version, "crc32": self._crc}).encode()
        end = self.written
        os.ftruncate(self._file, end)
        os.pwrite(self._file, facts + TAIL.pack(len(facts), MARK), end)
        os.fsync(self._file)
        os.replace(self._path, self._final)
        lock(self._file, fcntl.LOCK_UN)
        counters.add("cache", "shards stored")

    def discard(self) -> None:
        """Leave nothing."""
        unlink(self._path)
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
