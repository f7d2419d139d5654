"""What happened, counted in one place: every skip by its reason, every call, retry, hit and second.

One registry a process. A loader's workers send what they counted along with each batch, and the parent adds it to its
own, so that ``pipe.report()`` shows the sum over all processes.
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Mapping

Counts = dict[tuple[str, str], float]


class Counters:
    """Sums by (name, what): ``("map(augment)", "calls")``. Safe to use from several threads.

    >>> counts = Counters()
    >>> counts.add("decode", "calls")
    >>> counts.add("decode", "seconds", 0.25)
    >>> counts.take()
    {('decode', 'calls'): 1, ('decode', 'seconds'): 0.25}
    >>> counts.take()
    {}
    """

    def __init__(self) -> None:
        self._sums: defaultdict[tuple[str, str], float] = defaultdict(int)
        self._lock = threading.Lock()

    def forked(self) -> None:
        """In a forked child: the lock may have been held by a thread of the parent that is not here."""
        self._lock = threading.Lock()

    def add(self, name: str, what: str, amount: float = 1) -> None:
        """Add ``amount`` to the sum of ``what`` under ``name``."""
        with self._lock:
            self._sums[name, what] += amount

    def get(self, name: str, what: str) -> float:
        """The sum of ``what`` under ``name``; 0 if nothing was counted."""
        return self._sums.get((name, what), 0)

    def snapshot(self) -> Counts:
        """A copy of all sums."""
        with self._lock:
            return dict(self._sums)

    def take(self) -> Counts:
        """All sums, and start again from nothing: what a worker sends to its parent."""
        with self._lock:
            sums, self._sums = dict(self._sums), defaultdict(int)
            return sums

    def merge(self, counts: Mapping[tuple[str, str], float]) -> None:
        """Add the sums that another process took."""
        with self._lock:
            for where, amount in counts.items():
                self._sums[where] += amount


counters = Counters()
"""The registry of this process."""
os.register_at_fork(after_in_child=counters.forked)
