"""Memory that bytes are received into, used again and again: fresh pages cost as much as receiving does.

A buffer is handed out as a view and comes back by itself when nobody holds a view of it any more: a bytearray refuses
to change its size as long as there is one.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque

_SMALL = 16 << 10  # what is smaller is not worth it
_LOOK = 4  # buffers that are looked at for one that is free


class Buffers:
    """Buffers by size, for all threads of a process.

    Args:
        most: bytes of buffers that are kept, those that somebody holds included.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._known: OrderedDict[int, deque[bytearray]] = OrderedDict()  # by size, those used last at the end
        self._bytes = 0

    def take(self, size: int) -> memoryview:
        """Memory of so many bytes, with anything in it."""
        if size < _SMALL:
            return memoryview(bytearray(size))
        whole = _rounded(size)
        with self._lock:
            found = self._free(whole)
            if found is None:
                found = bytearray(whole)
                self._keep(found)
            return memoryview(found)[:size]  # still locked: without a view it is free for the next thread

    def _free(self, size: int) -> bytearray | None:
        same = self._known.get(size)
        if not same:
            return None
        self._known.move_to_end(size)
        for _ in range(min(_LOOK, len(same))):
            buffer = same[0]
            same.rotate(-1)
            try:
                buffer.append(buffer.pop())
            except BufferError:  # somebody holds a view
                continue
            return buffer
        return None

    def _keep(self, buffer: bytearray) -> None:
        """Remember it, and let go of others: who holds a view of one has it as long as he likes."""
        self._known.setdefault(len(buffer), deque()).append(buffer)
        self._known.move_to_end(len(buffer))
        self._bytes += len(buffer)
        while self._bytes > self._most:
            size, same = next(iter(self._known.items()))
            same.popleft()
            self._bytes -= size
            if not same:
                del self._known[size]


def _rounded(size: int) -> int:
    """A size, up to an eighth larger: buffers of nearly the same size are one kind.

    >>> [_rounded(each) for each in (16384, 16385, 100_000, 8 << 20)]
    [16384, 18432, 106496, 8388608]
    """
    step = 1 << max(0, size.bit_length() - 4)
    return -(-size // step) * step
