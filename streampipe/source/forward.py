"""A whole object, front to back, asked for ahead of need.

The first window is small, so that the first sample is there soon; its answer says how large the object is and which
version it has. The windows after it grow, and as many of them are on the way at once as the budget of bytes allows.
When all of an object has been asked for, the windows of the next one follow (``then``), so the link never waits at the
border of a shard.

Where a server ignores ranges or does not say the size, and for a user's opener, the object is read as one stream, a
block ahead.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future

from streampipe.counters import network_wait
from streampipe.errors import SourceError
from streampipe.source.buffers import for_another
from streampipe.source.fetch import Fetch, attempt
from streampipe.source.http import check_pin
from streampipe.source.link import Link
from streampipe.source.location import redact
from streampipe.source.network import Network
from streampipe.source.store import Pin, Store
from streampipe.source.traffic import Traffic
from streampipe.unwanted import Stop, result

_FIRST = 256 << 10
_BLOCK = 1 << 20
_CHUNK = 512 << 10
"""Bytes of a chunk that is cut from a window: what a processor keeps near itself."""
LEAST = 1 << 16
"""Bytes of a chunk at least: what comes in smaller pieces is joined, larger pieces are given out as they came."""
_FOLLOWING = 3
"""Objects after this one that are asked for once all of this one is."""
_log = logging.getLogger("streampipe")
_warned: set[str] = set()


class Forward:
    """The chunks of an object, in order. Begin with ``start``, iterate once, ``close`` at any time.

    Threads may share it as what they want next; the one that takes it out of there iterates it.

    Args:
        begin: the first byte that is wanted; needs a ``pin``.
    """

    def __init__(
        self, store: Store, url: str, network: Network, traffic: Traffic, pin: Pin | None = None, begin: int = 0
    ) -> None:
        self.url = url
        self.pin = pin or Pin()
        self.then: Forward | None = None  # what is wanted after this
        self._store = store
        self._network = network
        self._traffic = traffic
        self._stop = Stop()
        self._lock = threading.RLock()
        self._begun = False
        self._taken = False  # somebody iterates it
        self._waiting: deque[tuple[Future[list[bytes]], int]] = deque()  # windows, and the budget they took
        self._own = 0  # bytes of the budget that it has, those of the window that is being used included
        self._known = False  # what the first answer says
        self._asked = begin  # the first byte of the object that was not asked for
        self._window = min(_FIRST, network.window)
        self._ignored = False  # the server ignores ranges
        self._fetch: Fetch | None = None  # once it is read as one stream
        self._stream: Iterator[bytes] = iter(())
        self._ended = False  # the stream is

    def start(self) -> None:
        """Ask for the first window."""
        with self._lock:
            if self._begun or self._stop.is_set():
                return
            self._begun = True
            try:
                self._begin()
            except BaseException:
                self._begun = False
                raise

    def _begin(self) -> None:
        if self._asked and self.pin.size is not None and self._store.ranges:
            self._known = True
            self._ask_more()
        elif self._asked or not self._store.ranges:
            self._as_stream(self._asked)
        else:
            self._window = min(self._window, self._traffic.share)
            if not self._traffic.take(self._window, needed=self._taken):
                self._begun = False  # it is asked for when it is read
                return
            self._submit(self._first, self._window)
            self._asked = self._window

    def _submit(self, function: Callable[[], list[bytes]], size: int) -> None:
        """Ask for bytes that were taken of the budget."""
        self._own += size
        try:
            self._waiting.append((self._traffic.submit(function), size))
        except BaseException:
            self._give_back(size)
            raise

    def _give_back(self, size: int) -> None:
        self._own -= size
        self._traffic.give_back(size)

    def __iter__(self) -> Iterator[bytes]:
        self._taken = True
        self._traffic.stream(1)
        size = 0
        try:
            self.start()
            while True:
                with self._lock:
                    if not self._waiting:
                        break
                    future, size = self._waiting.popleft()
                with network_wait():
                    window = result(future)
                chunks = deque(window)
                del future, window  # or all of the window lives until its last chunk is used
                self._more()
                while chunks:
                    yield chunks.popleft()
                self._give_back(size)
                size = 0
            if self._stop.is_set():
                raise SourceError(f"{redact(self.url)}: it was closed while it was read")
        finally:
            self._give_back(size)
            self._traffic.stream(-1)
            self.close()

    def close(self) -> None:
        """Give up what is on the way."""
        with self._lock:
            self._stop.set()
            while self._waiting:
                future, size = self._waiting.popleft()
                future.cancel()
                self._give_back(size)

    def more(self, before: int) -> bool:
        """Ask for as much as the budget allows, if the first answer is there. Whether the whole object is asked for.
        ``before``: bytes that those before it in a stream have of the budget.
        """
        with self._lock:
            if self._taken or not self._begun or self._stop.is_set() or (self._waiting and not self._known):
                return False
            return self._ask_more(before)

    def _more(self) -> None:
        with self._lock:
            done = not self._stop.is_set() and self._ask_more()
        own, following = self._own, self.then
        for _ in range(_FOLLOWING):
            if not done or following is None:
                return
            following.start()
            done = following.more(own)
            own, following = own + following._own, following.then

    def _ask_more(self, before: int = 0) -> bool:
        if self._fetch is not None:
            if not self._ended and not self._waiting:
                self._next_block()
            return self._ended
        size = self.pin.size
        if (size is None or self._ignored) and self._asked != size:
            self._as_stream(self._asked)
            return False
        while size is not None and self._asked < size:
            self._window = min(2 * self._window, self._network.window, self._traffic.share)
            window = min(self._window, size - self._asked)
            if not self._traffic.take_ahead(window, not self._waiting, before + self._own):
                return False
            self._ask(window)
        return True

    def _ask(self, window: int) -> None:
        start, end = self._asked, self._asked + window
        self._submit(lambda: self._received(start, end), window)
        self._asked = end

    def _received(self, start: int, end: int) -> list[bytes]:
        """A window, in chunks."""
        window = self._traffic.buffers.take(end - start)
        fetch = Fetch(
            self._store, self.url, self._network, start, end, self.pin, self._stop, lambda at: (window[at - start :],)
        )
        came = sum(len(piece) for piece in self._traffic.link.timed(fetch))
        return [for_another(window, at, min(came, at + _CHUNK)) for at in range(0, came, _CHUNK)]  # type: ignore[misc]

    def _first(self) -> list[bytes]:
        """The first window, in one chunk; it says what the rest is."""
        fetch = Fetch(self._store, self.url, self._network, 0, self._window, self.pin, self._stop)
        data = _joined(fetch)
        size = fetch.pin.size
        if size is None and fetch.whole:
            found = attempt(self._store, self.url, self._network)
            check_pin(self.url, fetch.pin, found)
            size = found.size
        if size is None and len(data) < self._window:
            size = len(data)
        with self._lock:
            self._ignored = fetch.whole
            self._asked = len(data)
            self.pin = fetch.pin._replace(size=size)
            self._known = True
        return [data] if data else []

    def _as_stream(self, at: int) -> None:
        if self._store.ranges and redact(self.url).rpartition("/")[0] not in _warned:
            _warned.add(redact(self.url).rpartition("/")[0])
            _log.warning(
                "%s: the server %s: its shards are read as one stream each, and from their beginning after a break",
                redact(self.url),
                "ignores Range" if self._ignored else "does not say how large it is",
            )
        self._fetch = Fetch(self._store, self.url, self._network, at, None, self.pin, self._stop)
        self._stream = not_small(self._fetch)
        self._next_block()

    def _next_block(self) -> None:
        self._window = min(_BLOCK, self._traffic.share)
        self._traffic.take(self._window, needed=True)
        self._submit(self._block, self._window)

    def _block(self) -> list[bytes]:
        chunks, size = [], 0
        for chunk in self._stream:
            chunks.append(chunk)
            size += len(chunk)
            if size >= self._window:
                return chunks
        self._ended = True
        return chunks


def not_small(pieces: Iterable[bytes], least: int = LEAST) -> Iterator[bytes]:
    """The same bytes, in pieces that are not small. Large ones are not copied: that costs more than to receive them."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= least:
            yield b"".join(held)  # of one piece: the piece itself
            held.clear()
            size = 0
    if held:
        yield b"".join(held)


def _joined(fetch: Fetch) -> bytes:
    return b"".join(fetch)


def fetched(
    store: Store, url: str, network: Network, link: Link, start: int, end: int | None, pin: Pin
) -> tuple[bytes, Pin]:
    """Exactly the bytes [start, end) of an object, and which version they are of."""
    fetch = Fetch(store, url, network, start, end, pin)
    return b"".join(link.heard(fetch)), fetch.pin
