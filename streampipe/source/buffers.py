"""Memory that bytes are received into, used again and again: fresh pages cost as much as receiving does.

A buffer is handed out as a view and comes back by itself when nobody holds a view of it any more: each keeps one array
alive, and as long as there is an array a bytearray refuses to change its size.

Large buffers are mappings of their own, because a heap keeps what was freed in it: with glibc up to 64 MB for each
thread that ever had a buffer.
"""

from __future__ import annotations

import mmap
import threading
import weakref
from collections import OrderedDict, deque
from typing import Protocol

import numpy as np

from streampipe.errors import SourceError

_SMALL = 16 << 10  # what is smaller is not worth it
_LARGE = 256 << 10  # what is a mapping of its own
_LOOK = 4  # buffers that are looked at for one that is free
_SLACK = 16  # a part of what may be kept: after so many more bytes all buffers are looked at again


class _Buffer(Protocol):
    def lend(self) -> np.ndarray | None:
        """All of it, if nobody has a view of it."""


class _Heaped:
    """A buffer in the heap."""

    __slots__ = ("_memory",)

    def __init__(self, size: int) -> None:
        self._memory = bytearray(size)

    def lend(self) -> np.ndarray | None:
        try:
            self._memory.append(self._memory.pop())
        except BufferError:  # somebody holds a view
            return None
        return np.frombuffer(self._memory, np.uint8)


class _Mapped:
    """A buffer that the system has back as soon as it is let go."""

    __slots__ = ("_lent", "_memory")

    def __init__(self, size: int) -> None:
        self._memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._lent: weakref.ref[np.ndarray] | None = None

    def lend(self) -> np.ndarray | None:
        if self._lent is not None and self._lent() is not None:
            return None
        array = np.frombuffer(self._memory, np.uint8)
        self._lent = weakref.ref(array)
        return array


class Buffers:
    """Buffers by size, for all threads of a process.

    Args:
        most: bytes of buffers that there are, those that somebody holds included. If all are held there are more.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._lock = threading.Lock()
        self._known: OrderedDict[int, deque[_Buffer]] = OrderedDict()  # by size, those used last at the end
        self._bytes = 0
        self._held = 0  # bytes that were left when all buffers were looked at last

    def take(self, size: int) -> memoryview:
        """Memory of so many bytes, with anything in it."""
        if size < _SMALL:
            return _view(np.empty(size, np.uint8))
        whole = _rounded(size)
        with self._lock:  # until it is lent: without a view it is free for the next thread
            found = self._free(whole)
            if found is None:
                if self._bytes + whole > max(self.most, self._held + self.most // _SLACK):
                    self._drop_free(whole)
                made = _made(whole)
                found = made.lend()
                assert found is not None
                self._known.setdefault(whole, deque()).append(made)
                self._known.move_to_end(whole)
                self._bytes += whole
            return _view(found[:size])

    def _free(self, size: int) -> np.ndarray | None:
        same = self._known.get(size)
        if not same:
            return None
        self._known.move_to_end(size)
        for _ in range(min(_LOOK, len(same))):
            found = same[0].lend()
            same.rotate(-1)
            if found is not None:
                return found
        return None

    def _drop_free(self, room: int) -> None:
        """Let go of buffers that nobody holds, of the sizes first that were not used for the longest time."""
        for size in list(self._known):
            same = self._known[size]
            for _ in range(len(same)):
                if self._bytes + room <= self.most:
                    break
                if same[0].lend() is not None:
                    same.popleft()
                    self._bytes -= size
                else:
                    same.rotate(-1)
            if not same:
                del self._known[size]
        self._held = self._bytes


def for_another(view: memoryview, start: int = 0, end: int | None = None) -> memoryview:
    """A view that another thread may have of what ``take`` gave, while this one has its own.

    CPython counts the views of a buffer that were made of each other, and without a GIL it does so without a lock. One
    that is made of the array behind them is counted for itself.
    """
    return _view(view.obj[start:end])  # type: ignore[index]


def _view(array: np.ndarray) -> memoryview:
    return memoryview(array)  # type: ignore[arg-type]


def _made(size: int) -> _Buffer:
    try:
        return _Mapped(size) if size >= _LARGE else _Heaped(size)
    except (MemoryError, OSError, OverflowError, ValueError) as error:  # not to be tried again for minutes
        raise SourceError(
            f"there is no memory for {size} bytes that an index says are one sample ({error}); make the index anew "
            f"(streampipe index), or read with fewer workers and threads"
        ) from error


def _rounded(size: int) -> int:
    """A size, up to an eighth larger: buffers of nearly the same size are one kind.

    >>> [_rounded(each) for each in (16384, 16385, 100_000, 8 << 20)]
    [16384, 18432, 106496, 8388608]
    """
    step = 1 << max(0, size.bit_length() - 4)
    return -(-size // step) * step
