"""What a loader's consumer sees: how long it waits for a batch, how long its steps take, how many batches lie ready."""

from __future__ import annotations

import threading
from time import perf_counter

from streampipe.counters import OfLoader
from streampipe.observe import Histogram, Trace
from streampipe.report.seen import LOADER, Seen

_SORTED_AT = 512  # waits
_READY = 1e-3
"""Seconds: a batch that came sooner lay ready."""


class Sums:
    """Plain numbers, which only the thread that iterates the loader changes."""

    __slots__ = ("_before", "batches", "lay_ready", "name", "ready", "samples", "steps", "waits")

    def __init__(self, name: str) -> None:
        self.name = name
        self.batches = self.samples = self.ready = 0
        self.steps = self.waits = self.lay_ready = 0.0
        self._before: dict[str, float] = {}

    def new(self) -> dict[str, float]:
        """What was added since this was asked last."""
        now = {
            "step seconds": self.steps,
            "wait seconds": self.waits,
            "batches": self.batches,
            "samples": self.samples,
            "ready": self.ready,
            "lay ready seconds": self.lay_ready,
        }
        before, self._before = self._before, now
        return {what: n - before.get(what, 0) for what, n in now.items() if n != before.get(what, 0)}


class Recorder:
    """Of one loader, for its whole life. It is used by the thread that iterates the loader.

    Args:
        trace: keep spans for a timeline.
        counts: to count in; its own if not given.
        name: under which it counts.
    """

    def __init__(self, trace: bool, counts: OfLoader | None = None, name: str = LOADER) -> None:
        self.trace = trace
        self.counts = counts or OfLoader(Trace("loader") if trace else None)
        self._spans, self._thread = self.counts.trace, ""
        self._waits = Histogram()
        self._new_waits: list[float] = []
        """Those of the last batches: their sizes are found for many of them together."""
        self._sums = Sums(name)
        self.counts.with_part(self._sums)
        self.first: list[float] = []
        """Seconds that the first batch of each pass was waited for."""
        self._is_first = False  # the first batch of a pass has not come
        self._asked = 0.0  # since when an item is wanted; 0: none is
        self._gave = 0.0

    def begin(self) -> None:
        """A pass begins: what lies between passes, and before its first batch is asked for, is no step and no wait."""
        self._gave = self._asked = 0.0
        self._is_first = True
        self._thread = threading.current_thread().name

    def asks(self) -> None:
        """The consumer wants the next item: its step has ended. It may be said again until the item is given."""
        if self._asked:
            return
        self._asked = now = perf_counter()
        if self._gave:
            step = now - self._gave
            self._sums.steps += step
            if self._spans is not None:
                self._spans.add(self._thread, "step", self._gave, step, step)
            self._gave = 0.0

    def gives(self, samples: int, made: float) -> None:
        """It is an item, made at that time, which is given to the consumer."""
        now, sums, asked = perf_counter(), self._sums, self._asked
        wait, self._asked, self._gave = now - asked, 0.0, now
        sums.waits += wait
        sums.batches += 1
        sums.samples += samples
        if made < asked:
            sums.lay_ready += asked - made
        if self._is_first:
            self.first.append(wait)
            self._is_first = False
        else:
            if wait < _READY:
                sums.ready += 1
            self._new_waits.append(wait)
            if len(self._new_waits) >= _SORTED_AT:
                self._sort()
        if self._spans is not None:
            self._spans.add(self._thread, "wait", asked, wait, wait)

    def ends(self) -> None:
        """There was none."""
        if self._asked:
            self._sums.waits += perf_counter() - self._asked
            self._asked = 0.0

    def _sort(self) -> Histogram:
        new, self._new_waits = self._new_waits, []
        self._waits.add_all(new)
        return self._waits

    def seen(self) -> Seen:
        """All that was seen so far."""
        return Seen(self.counts.counted(), Histogram(self._sort().counts), list(self.first))
