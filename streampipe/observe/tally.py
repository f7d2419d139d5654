"""What one stage does in one thread: samples in and out, its own time, the time it waits for what is in front of it.

The strategy: generators pull each other, so at any moment a thread is inside a pile of ``next`` calls. Whoever times
its own ``next`` adds the time to ``Stack.inner`` behind it, so the stage around it can tell its own time from the time
of what it pulled. Two looks at the clock for each item and stage are all it takes, and where
``Stack.on`` is false there is none.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import NamedTuple

from streampipe.observe.histogram import Histogram
from streampipe.observe.trace import Trace

_KEPT = 3  # of the slowest calls
_WORTH = 20e-6  # seconds from which a call is counted by its size
SUMS = ("samples in", "samples out", "own seconds", "waiting seconds", "calls", "busy seconds", "cpu seconds", "bytes")
"""What is summed for a stage. ``busy seconds`` are those of its calls in threads of a pool."""


class Slow(NamedTuple):
    """A call that took long, and the key of its sample."""

    seconds: float
    key: str


class Stack:
    """Of one thread: whether times are taken at this moment (``on``), and how often the clock was looked at for it; the
    time spent in what the call that runs has pulled so far (``inner``), and the processor's share of it; and how long
    the item that is made has waited for the network (``waited``), which is taken whether or not it is timed: such waits
    are few and long, and among items of which only some are timed they would be missed.
    """

    __slots__ = ("cpu", "inner", "looks", "on", "waited", "waits")

    def __init__(self) -> None:
        self.on = False
        self.looks = 0
        self.inner = 0.0
        self.cpu = 0.0
        self.waited = 0.0
        self.waits = False


class Flow:
    """One stream of items through a stage: how many it was given and yielded so far. Plain integers of who runs it."""

    __slots__ = ("given", "yielded")

    def __init__(self) -> None:
        self.given = self.yielded = 0


class Tally:
    """The numbers of a stage in a thread. Only that thread writes them, so they need no lock."""

    __slots__ = (
        "_flows",
        "_folded",
        "_told",
        "busy",
        "bytes",
        "calls",
        "cpu",
        "durations",
        "given",
        "name",
        "own",
        "slowest",
        "stack",
        "thread",
        "trace",
        "waiting",
        "yielded",
    )

    def __init__(self, name: str, stack: Stack, trace: Trace | None = None) -> None:
        self.name = name
        self.stack = stack
        self.trace = trace
        self.thread = threading.current_thread().name
        self._flows: list[Flow] = []  # that are open
        self.given = self.yielded = self.calls = self.bytes = 0
        self.own = self.waiting = self.busy = self.cpu = 0.0
        self.durations = Histogram()
        self.slowest: list[Slow] = []
        self._folded: tuple[float, ...] = (0,) * len(SUMS)
        self._told: dict[int, int] = {}  # the counts of ``durations`` when these were asked for last

    def opened(self, flow: Flow) -> None:
        """A stream of the stage begins: what goes through it is added when somebody asks, or at its end."""
        self._flows.append(flow)

    def closed(self, flow: Flow) -> None:
        """It has ended."""
        self._flows.remove(flow)
        self.given += flow.given
        self.yielded += flow.yielded

    def took(self, began: float, seconds: float, cpu: float, key: object) -> None:
        """The stage worked until it had an item (or none): ``seconds`` since ``began``, with what it pulled."""
        self.stack.looks += 1
        own = seconds - self.stack.inner
        self.own += own
        self.cpu += cpu - self.stack.cpu
        self.waiting += self.stack.inner
        if own >= _WORTH:
            self._keep(own, key)
            if self.trace is not None:
                self.trace.add(self.thread, self.name, began, seconds, own, "" if key is None else str(key))

    def called(self, began: float, seconds: float, cpu: float, key: object) -> None:
        """A call in a thread of a pool."""
        self.calls += 1
        self.busy += seconds
        self.cpu += cpu
        self._keep(seconds, key)
        if self.trace is not None:
            self.trace.add(self.thread, self.name, began, seconds, seconds, "" if key is None else str(key))

    def _keep(self, seconds: float, key: object) -> None:
        self.durations.add(seconds)
        slowest = self.slowest
        if len(slowest) < _KEPT or seconds > slowest[-1].seconds:
            self.slowest = slowest_of([*slowest, Slow(seconds, "" if key is None else str(key))])

    def new(self) -> dict[str, float]:
        """What was summed since this was asked last."""
        flows = self._flows.copy()
        given = self.given + sum(flow.given for flow in flows)
        yielded = self.yielded + sum(flow.yielded for flow in flows)
        now = (given, yielded, self.own, self.waiting, self.calls, self.busy, self.cpu, self.bytes)
        before, self._folded = self._folded, now
        return {what: n - b for what, n, b in zip(SUMS, now, before, strict=True) if n != b}

    def new_durations(self) -> Histogram:
        """The durations that were counted since this was asked last. What is written to is never taken away from who
        writes: another thread may be in the midst of it.
        """
        now, before = self.durations.counts.copy(), self._told
        self._told = now
        return Histogram({size: n - before.get(size, 0) for size, n in now.items() if n != before.get(size, 0)})


def slowest_of(calls: Iterable[Slow]) -> list[Slow]:
    """The slowest few of some calls, each once."""
    return sorted(set(calls), reverse=True)[:_KEPT]
