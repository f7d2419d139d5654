"""What a link needs: how many bytes must be on their way to keep it busy.

That is its rate times its latency, no more: windows beyond that only lie in memory, and bytes that lie there too long
have left the processor's caches when they are used. Both are measured. The least latency counts, because what a busy
link adds to it is of our own making; four times the product, because a rate that too few requests held down then grows.
"""

from __future__ import annotations

import threading
import time

_SPAN = 0.2  # seconds over which a rate is measured
_TIMES = 4


class Link:
    """The best rate and the least latency that a process has seen."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latency: float | None = None
        self._rate = 0.0
        self._since = time.monotonic()
        self._bytes = 0

    def answered(self, seconds: float) -> None:
        """The first byte of an answer came so long after it was asked for."""
        with self._lock:
            self._latency = seconds if self._latency is None else min(self._latency, seconds)

    def came(self, size: int) -> None:
        """So many bytes came."""
        with self._lock:
            self._bytes += size
            now = time.monotonic()
            if now - self._since >= _SPAN:
                self._rate = max(self._rate, self._bytes / (now - self._since))
                self._since, self._bytes = now, 0

    @property
    def needs(self) -> int:
        """Bytes to have on their way."""
        return int(_TIMES * self._rate * (self._latency or 0.0))
