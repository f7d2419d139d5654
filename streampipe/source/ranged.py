"""What is read in ranges, as the file that libraries ask for."""

from __future__ import annotations

import io
from abc import abstractmethod
from typing import Any


class RangedFile(io.RawIOBase):
    """A file of ``size`` bytes. A subclass says how the bytes between two places are had."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size
        self._at = 0

    @abstractmethod
    def between(self, start: int, end: int) -> bytes:
        """The bytes [start, end) of the file, which are in it and at least one."""

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """The place of the next byte."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """The next bytes."""
        end = self._size if size is None or size < 0 else min(self._at + size, self._size)
        start, self._at = self._at, max(self._at, end)
        return self.between(start, end) if start < end else b""

    def readinto(self, buffer: Any) -> int:
        """The next bytes, into memory."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
