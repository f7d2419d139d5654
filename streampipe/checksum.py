"""crc32 as zlib counts it, by zlib-ng: ten times as fast, so that checking a sample costs less than copying it; and
sha256, which costs more than copying, by a thread beside.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from queue import Queue
from threading import Thread
from typing import Protocol

from zlib_ng.zlib_ng import crc32

_BLOCK = 512
_AT_ONCE = 1 << 20  # bytes that are handed to the thread together: handing over takes as long as hashing 20 kB
_WAITING = 8  # pieces of that size that wait for it, at most


def headers_crc32(data: bytes | memoryview, starts: Sequence[int], ends: Sequence[int]) -> int:
    """Of a piece of an archive, what stands in front of each field: its headers, and what else lies between fields.

    ``starts`` and ``ends``: the fields' bytes, counted from the beginning of ``data``.
    """
    found, at = 0, 0
    for start, end in zip(starts, ends, strict=True):
        found = crc32(data[at:start], found)
        at = end + (-end & (_BLOCK - 1))
    return found


class Digest(Protocol):
    """A checksum of what it is given, as hashlib has them."""

    def update(self, data: bytes, /) -> None:
        """More bytes."""

    def hexdigest(self) -> str:
        """The checksum, as a text."""
        ...


class Hashes:
    """Gives bytes to digests. ``beside``: by a thread, while this one reads and writes on, where there is a second
    processor; hashlib lets others run meanwhile. Digests are whole once ``finish`` is called, or it is left as a
    context manager.

    >>> import hashlib
    >>> digest = hashlib.sha256()
    >>> with Hashes(beside=True) as hashes:
    ...     hashes.update(digest, b"a cat")
    >>> digest.hexdigest() == hashlib.sha256(b"a cat").hexdigest()
    True
    """

    def __init__(self, beside: bool = False) -> None:
        self._held: list[tuple[Digest, bytes]] = []
        self._bytes = 0
        self._thread: Thread | None = None
        if beside and len(os.sched_getaffinity(0)) > 1:
            self._queue = Queue[list[tuple[Digest, bytes]]](_WAITING)
            thread = Thread(target=self._work, name="streampipe-sha256", daemon=True)
            with suppress(RuntimeError):  # where there is no thread to be had, this one hashes
                thread.start()
                self._thread = thread

    def update(self, digest: Digest, data: bytes) -> None:
        """More bytes of what a digest is of."""
        if self._thread is None:
            digest.update(data)
            return
        self._held.append((digest, data))
        self._bytes += len(data)
        if self._bytes >= _AT_ONCE:
            self._queue.put(self._held)
            self._held, self._bytes = [], 0

    def finish(self) -> None:
        """Wait until all is hashed."""
        if self._thread is not None:
            self._queue.put(self._held)
            self._queue.put([])
            self._thread.join()
            self._thread = None

    def _work(self) -> None:
        while held := self._queue.get():
            for digest, data in held:
                digest.update(data)

    def __enter__(self) -> Hashes:
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()


__all__ = ["Digest", "Hashes", "crc32", "headers_crc32"]
