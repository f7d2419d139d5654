"""How much memory the images that are decoded at this moment may take together, in one process.

A file of 38 bytes can be an image of a gigabyte. Its header says so before a byte is allocated: who would take more
than is left waits until others have finished. An image that needs more than there is at all is decoded alone.
"""

from __future__ import annotations

import os
import threading

MEMORY = 1 << 30
"""Bytes for the images that are decoded at once in a process."""


class Budget:
    """Bytes in use. Safe to use from several threads.

    >>> budget = Budget()
    >>> with budget.take(10, limit=100):
    ...     budget.used
    10
    """

    def __init__(self) -> None:
        self.used = 0
        self._waiting = 0
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)

    def forked(self) -> None:
        """In a forked child: the parent's threads, and what they hold, are not here."""
        self.__init__()  # type: ignore[misc]

    def take(self, size: int, limit: int) -> Taken:
        """Hold ``size`` bytes until the end of a ``with``. Waits while others hold so much that it would be more than
        ``limit``."""
        with self._lock:
            while self.used and self.used + size > limit:
                self._waiting += 1
                self._changed.wait()
                self._waiting -= 1
            self.used += size
        return Taken(self, size)

    def give(self, size: int) -> None:
        """What was taken is free again."""
        with self._lock:
            self.used -= size
            if self._waiting:
                self._changed.notify_all()


class Taken:
    """Bytes that are held. A class, for it is of every image: a generator costs three times as much."""

    __slots__ = ("_budget", "_size")

    def __init__(self, budget: Budget, size: int) -> None:
        self._budget, self._size = budget, size

    def __enter__(self) -> None:
        pass

    def __exit__(self, *raised: object) -> None:
        self._budget.give(self._size)


budget = Budget()
"""That of this process."""
os.register_at_fork(after_in_child=budget.forked)
