"""How fast bytes may go."""

from __future__ import annotations

import threading
import time

_BURST = 0.05
"""Seconds of its rate that a bucket saves up: what threads that wake too late may catch up on."""

_TURN = 0.005
"""Seconds of a rate that are sent at once, so connections that share it take turns often."""


def piece(rate: float | None, most: int = 1 << 20) -> int:
    """How many bytes to send at once at this rate.

    >>> piece(None), piece(1_000_000), piece(10)
    (1048576, 5000, 1)
    """
    return most if rate is None else max(1, min(most, int(rate * _TURN)))


class Bucket:
    """A rate shared by all threads that ask. It is told the rate each time, so the rate may change.

    >>> bucket = Bucket()
    >>> bucket.reserve(50, rate=100.0) > 0.4
    True
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free = 0.0

    def reserve(self, count: int, rate: float) -> float:
        """Take so many bytes of the rate; the seconds until they may be sent."""
        with self._lock:
            now = time.monotonic()
            self._free = max(self._free, now - _BURST) + count / rate
            return self._free - now
