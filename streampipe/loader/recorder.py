"""What a loader's consumer sees: how long it waits for a batch, how long its steps take, how many batches lie ready."""

from __future__ import annotations

from time import perf_counter

from streampipe.counters import Counted, OfLoader
from streampipe.observe import Histogram, Trace
from streampipe.report.seen import LOADER, Seen

_READY = 1e-3
"""Seconds: a batch that came sooner lay ready."""


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
        self.waits = Histogram()
        self._sums = self.counts.meter(name)
        self.first: list[float] = []
        """Seconds that the first batch of each pass was waited for."""
        self._is_first = False  # the first batch of a pass has not come
        self._asked: float | None = None  # since when an item is wanted
        self._came = 0.0  # when something came, or was asked for
        self._gave: float | None = None

    def begin(self) -> None:
        """A pass begins: what lies between passes, and before its first batch is asked for, is no step and no wait."""
        self._gave = self._asked = None
        self._is_first = True

    def asks(self) -> None:
        """The consumer wants the next item: its step has ended. It may be said again until the item is given."""
        if self._asked is not None:
            return
        self._asked = self._came = now = perf_counter()
        if self._gave is not None:
            self._sums["step seconds"] += now - self._gave
            if self.counts.trace is not None:
                self.counts.trace.add("step", self._gave, now - self._gave, now - self._gave)
            self._gave = None

    def came(self, counted: Counted | None) -> None:
        """Something came, with what its worker counted."""
        if counted is not None:
            self.counts.merge(counted)
        now = perf_counter()
        self._sums["wait seconds"] += now - self._came
        self._came = now

    def gives(self, samples: int, made: float) -> None:
        """It is an item, made at that time, which is given to the consumer."""
        assert self._asked is not None
        now, sums, asked = self._came, self._sums, self._asked
        wait, self._asked = now - asked, None
        if self._is_first:
            self.first.append(wait)
            self._is_first = False
        else:
            self.waits.add(wait)
            if wait < _READY:
                sums["ready"] += 1
        sums["batches"] += 1
        sums["samples"] += samples
        if made < asked:
            sums["lay ready seconds"] += asked - made
        if self.counts.trace is not None:
            self.counts.trace.add("wait", asked, wait, wait)
        self._gave = now

    def seen(self) -> Seen:
        """All that was seen so far."""
        return Seen(self.counts.counted(), Histogram(self.waits.counts), list(self.first))
