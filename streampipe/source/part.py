"""A shard on its way into the cache."""

from __future__ import annotations

import json
import os
from pathlib import Path

from streampipe.atomic import AtomicFile
from streampipe.checksum import crc32
from streampipe.counters import counters
from streampipe.source.disk import MARK, TAIL, reserve

FACTS = 400
"""Bytes that what a kept shard says of itself may need."""


class Part:
    """A file under a name that nobody else has, which becomes ``final`` when it is whole.

    Args:
        size: bytes to reserve on the disk now, if they are known.
    """

    def __init__(self, final: Path, size: int | None) -> None:
        self._atomic = AtomicFile(final, private=True)
        self._file = self._atomic.file.fileno()
        self._crc = 0
        self.written = 0
        try:
            if size:
                reserve(self._file, size + FACTS)
        except BaseException:
            self.discard()
            raise

    def write(self, data: bytes) -> None:
        """Append."""
        view = memoryview(data)
        while view:
            done = os.pwrite(self._file, view, self.written)
            self._crc = crc32(view[:done], self._crc)
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
        self._atomic.publish()
        counters.add("cache", "shards stored")

    def discard(self) -> None:
        """Leave nothing of what was not published, and close the file."""
        self._atomic.discard()

    close = discard
