"""Files in memory whose reads break where a test says."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class BrokenOpener:
    """Opens objects by URL, for ``sp.stream(opener=)``; a read that reaches the next break raises.

    Each break happens once, in their order, over all files opened. The bytes before it are read first, and a seek past
    it does not count as reaching it.

    >>> opener = BrokenOpener({"mem://a": b"abcdef"}, breaks=[4])
    >>> file = opener("mem://a")
    >>> file.read()
    b'abcd'
    >>> file.read()
    Traceback (most recent call last):
    ConnectionResetError: mem://a broke at byte 4
    >>> opener("mem://a").read(), opener.opened
    (b'abcdef', 2)

    Args:
        objects: the bytes behind each URL.
        breaks: offsets in an object, in the order in which they happen.
        error: what a read raises at a break; it is given a message.
        sized: whether the files have a ``size``.
    """

    def __init__(
        self,
        objects: Mapping[str, bytes],
        breaks: Sequence[int] = (),
        error: Callable[[str], Exception] = ConnectionResetError,
        sized: bool = True,
    ) -> None:
        self.opened = 0
        self._objects = dict(objects)
        self._breaks = list(breaks)
        self._error = error
        self._sized = sized
        self._lock = threading.Lock()

    def __call__(self, url: str) -> IO[bytes]:
        with self._lock:
            self.opened += 1
        if url not in self._objects:
            raise FileNotFoundError(url)
        return _BrokenFile(self, url, self._objects[url], self._sized)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}  # locks stay in their process

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def _allowed(self, url: str, position: int) -> int | None:
        """How many bytes may be read from here on, None for all; raises at a break, which it uses up."""
        with self._lock:
            if not self._breaks or self._breaks[0] < position:
                return None
            if self._breaks[0] > position:
                return self._breaks[0] - position
            self._breaks.pop(0)
        raise self._error(f"{url} broke at byte {position}")


class _BrokenFile(io.BytesIO):
    size: int

    def __init__(self, opener: BrokenOpener, url: str, data: bytes, sized: bool) -> None:
        super().__init__(data)
        self._opener = opener
        self._url = url
        if sized:
            self.size = len(data)

    def _most(self, wanted: int | None) -> int:
        if self.closed or wanted == 0:
            return 0
        allowed = self._opener._allowed(self._url, self.tell())
        wanted = -1 if wanted is None or wanted < 0 else wanted
        if allowed is None:
            return wanted
        return allowed if wanted < 0 else min(wanted, allowed)

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(self._most(size))

    def read1(self, size: int | None = -1, /) -> bytes:
        return super().read(self._most(size))

    def readline(self, size: int | None = -1, /) -> bytes:
        return super().readline(self._most(size))

    def __next__(self) -> bytes:
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        return super().readinto(view[: self._most(len(view))])

    def readinto1(self, buffer: WriteableBuffer, /) -> int:
        return self.readinto(buffer)

    def writable(self) -> bool:
        return False
