"""What a link needs: how many bytes must be on their way to keep it busy, and how many one request should ask for.

On the way, that is its rate times its latency, no more: windows beyond that only lie in memory, and bytes that lie
there too long have left the processor's caches when they are used. Both are measured. The least latency counts, because
what a busy link adds to it is of our own making; four times the product, because a rate that too few requests held down
then grows.

A request is long enough when it takes half as long again as the least latency. Where the link is full, requests take
long because of each other, and longer ones would bring nothing more. And a request costs us time of a processor, so it
should carry what the link brings in a moment.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator

_SPAN = 0.2  # seconds over which a rate is measured
_TIMES = 4
_SHORT = 32 << 10  # bytes: so many requests of that size carry what a link has on its way (its rate times its latency)
_LATENCIES = 1.5  # that a request should take
_WORTH = 1.5e-3  # seconds of the link that a request should be worth, for what it costs besides
_KEPT = 0.9  # of what is known of requests, when another one is done


class Link:
    """The best rate and the least latency that a process has seen, and how long its requests take now."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.RLock()  # as in Traffic
        self._latency: float | None = None
        self._since = self._last = clock()
        self._bytes = 0
        self._sizes = self._times = 0.0  # of requests, those before count less and less
        self.rate = 0.0
        self._guessed = True  # no span is over
        self.total = 0  # bytes that came

    def came(self, size: int) -> None:
        """So many bytes came. Until the first span is over, the rate is that from the first request on."""
        with self._lock:
            now = self._clock()
            if now - self._last > _SPAN and self.total:  # a time in which nothing was asked for is no part of a rate
                self._since, self._bytes, self._guessed = now, 0, False
            self._last = now
            self.total += size
            self._bytes += size
            if now - self._since >= _SPAN:
                rate = self._bytes / (now - self._since)
                self.rate = rate if self._guessed else max(self.rate, rate)
                self._since, self._bytes, self._guessed = now, 0, False
            elif self._guessed and self._latency:
                self.rate = self._bytes / (now - self._since)

    def timed(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """The pieces of one request, as they come; what is learnt from them is remembered."""
        asked, size = self._clock(), 0
        for piece in pieces:
            if not size:
                self.answered(self._clock() - asked)
            size += len(piece)
            self.came(len(piece))
            yield piece
            del piece  # or it would hold memory that is used meanwhile
        self.done(size, self._clock() - asked)

    def heard(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """The pieces of a small object, such as an index. They say what the latency is, and nothing of the rate."""
        asked: float | None = self._clock()
        for piece in pieces:
            if asked is not None:
                self._late(self._clock() - asked)
                asked = None
            yield piece

    def answered(self, seconds: float) -> None:
        """The first byte of an answer came so long after it was asked for."""
        with self._lock:
            if not self.total:
                self._since = self._clock() - seconds
        self._late(seconds)

    def _late(self, seconds: float) -> None:
        with self._lock:
            self._latency = seconds if self._latency is None else min(self._latency, seconds)

    def done(self, size: int, seconds: float) -> None:
        """A request brought so many bytes in this time."""
        with self._lock:
            self._sizes = _KEPT * self._sizes + size
            self._times = _KEPT * self._times + seconds

    @property
    def latency(self) -> float:
        """Seconds; 0 where nothing was answered yet."""
        return self._latency or 0.0

    @property
    def needs(self) -> int:
        """Bytes to have on their way."""
        return int(_TIMES * self.rate * self.latency)

    @property
    def parallel(self) -> int:
        """Short requests to have on their way."""
        return int(self.rate * self.latency / _SHORT)

    @property
    def window(self) -> int:
        """Bytes that one request should ask for at least."""
        long = _LATENCIES * self.latency * self._sizes / self._times if self._times else 0.0
        return int(max(long, _WORTH * self.rate))
