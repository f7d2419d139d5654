"""How much memory the images that are decoded at this moment may take together, in one process.

A file of 38 bytes can be an image of a gigabyte. Its header says so before a byte is allocated: who would take more
than is left waits until others have finished. An image that needs more than there is at all is decoded alone.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

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
        self._changed = threading.Condition()

    def forked(self) -> None:
        """In a forked child: the parent's threads, and what they hold, are not here."""
        self.__init__()  # type: ignore[misc]

    @contextmanager
    def take(self, size: int, limit: int) -> Iterator[None]:
        """Hold ``size`` bytes. Waits while others hold so much that it would be more than ``limit``."""
        with self._changed:
            self._changed.wait_for(lambda: not self.used or self.used + size <= limit)
            self.used += size
        try:
            yield
        finally:
            with self._changed:
                self.used -= size
                self._changed.notify_all()


budget = Budget()
"""That of this process."""
os.register_at_fork(after_in_child=budget.forked)
