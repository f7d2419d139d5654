"""The side of a loader that makes items: in a worker process, in a background thread, or in the caller's own thread.

Times are taken of some items only, where taking them would cost more than a small share of the time that an item takes:
what is told of the stages is then a sample of what happened, and scaled up by the report.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from math import ceil, inf
from time import perf_counter, thread_time
from typing import TypeVar

from streampipe.counters import Counted, OfLoader, work_for
from streampipe.observe import Stack

T = TypeVar("T")

READER = "making batches"
"""Under this name stand the times of who makes items: ``busy``, ``waiting`` (until somebody takes the item),
and as ``own seconds`` the part of the busy time in which the stages were timed. ``samples in`` are the items that the
busy time is of: all but the first."""
NETWORK, NETWORK_TIMED = "network seconds", "timed network seconds"
"""Under that name, too: how long was waited for the network, and the part of it while the stages were timed."""
_MOST, _MOST_TRACED = 0.002, 0.02
"""The share of the time that looking at the clock may take; where spans are kept for a timeline, more."""
_RISES = 1.02
"""How many times longer than before an item may be taken to be."""
_WRITTEN = 2.5e-6
"""Seconds in which a look is written down."""
_SOON = 0.25
"""Seconds between the times when a worker sends what only its stages know."""


class TimedItems:
    """Which items are timed: all of them, or every so many-th."""

    __slots__ = ("_clock", "_left", "_most", "_usual")

    def __init__(self, clock: Stack, most: float) -> None:
        self._clock = clock
        self._most = most
        self._usual = inf  # seconds that an item takes: on a busy machine some are held up, and have no more room
        self._left = 1  # that are not timed: the first one opens shards and starts codecs, and says nothing of others

    def begin(self) -> bool:
        """An item begins; whether it is timed."""
        if self._left > 0:
            self._left -= 1
            return False
        clock = self._clock
        clock.on, clock.looks = True, 0
        clock.inner = clock.cpu = 0.0
        return True

    def end(self, seconds: float) -> None:
        """It took so long."""
        if self._clock.on:
            self._clock.on = False
            self._usual = max(1e-9, min(seconds, _RISES * self._usual))
            self._left = ceil(self._clock.looks * _cost_of_a_look() / self._usual / self._most) - 1


@cache
def _cost_of_a_look() -> float:
    """Seconds that one look at the clocks costs on this machine, with what is written down then."""
    looks = []
    for _ in range(10):
        began = perf_counter()
        for _ in range(10):
            perf_counter(), thread_time()
        looks.append((perf_counter() - began) / 10)
    return 2 * min(looks) + _WRITTEN


def made_for(counts: OfLoader, items: Iterator[T]) -> Iterator[T]:
    """The items. While they are made, the thread works for the loader of these counters."""
    tally, trace = counts.tally(READER), counts.trace
    stack, later = tally.stack, 0
    timing = TimedItems(stack, _MOST_TRACED if trace else _MOST)
    ended = perf_counter()
    try:
        while True:
            timed = timing.begin()
            began = perf_counter()
            tally.waiting += began - ended
            work_for(counts)
            try:
                item = next(items, None)
            finally:
                work_for(None)
                ended = perf_counter()
                seconds = ended - began
                if timed:
                    timing.end(seconds)
                if later:
                    tally.busy += seconds
                    if timed:
                        tally.own += seconds
                    if stack.waited:
                        _waited(counts, stack, timed)
                if trace is not None:
                    trace.add(tally.thread, "batch", began, seconds, seconds - stack.inner if timed else seconds)
            if item is None:
                return
            tally.yielded += 1
            tally.given += later
            later, stack.waited = 1, 0.0
            yield item
            del item
    finally:
        work_for(counts)
        close = getattr(items, "close", None)
        if close is not None:
            close()
        work_for(None)


def _waited(counts: OfLoader, stack: Stack, timed: bool) -> None:
    """An item waited for the network."""
    waited, stack.waited = stack.waited, 0.0
    counts.add(READER, NETWORK, waited)
    counts.add(READER, NETWORK_TIMED, waited if timed else 0)


class Sender:
    """Sends what a worker counted: events at once, the times of stages a few times a second."""

    def __init__(self, counts: OfLoader) -> None:
        self._counts = counts
        self._last = 0.0

    def take(self, all: bool = False) -> Counted:
        """What goes with the next item."""
        now = perf_counter()
        fold = all or now - self._last > _SOON
        if fold:
            self._last = now
        return self._counts.take(fold)
