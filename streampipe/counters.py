"""What happened, counted in one place: every skip by its reason, every call, retry, hit and second.

Each loader has counters of its own, and the process has their sum: what is added while a thread works for a loader (see
``scope``) goes to both. A loader's workers send what they counted along with each batch.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import NamedTuple, ParamSpec, Protocol, TypeVar

from streampipe.locks import ProcessLock
from streampipe.observe import Histogram, Slow, Span, Stack, Tally, Trace
from streampipe.observe.tally import slowest_of

P = ParamSpec("P")
R = TypeVar("R")
Counts = dict[tuple[str, str], float]
_EXAMPLES = 5


_lock = ProcessLock()  # one for all counters, because a loader's and the process's are changed together


class Took(NamedTuple):
    """How long the calls of a stage took, by size, and the slowest of them."""

    durations: Histogram
    slowest: list[Slow]


@dataclass
class Counted:
    """All that was counted: what a worker sends to its parent."""

    sums: Counts = field(default_factory=dict)
    examples: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    took: dict[tuple[str, str], Took] = field(default_factory=dict)
    spans: list[Span] = field(default_factory=list)


class Part(Protocol):
    """Sums that one owner keeps for itself, and all others see now and then."""

    @property
    def name(self) -> str:
        """Under which they are counted."""

    def new(self) -> dict[str, float]:
        """What was added since this was asked last."""


class Meter(defaultdict[str, float]):
    """Sums of one owner, who alone changes them."""

    def __init__(self, name: str) -> None:
        super().__init__(float)
        self.name = name
        self._folded: dict[str, float] = {}

    def new(self) -> dict[str, float]:
        """What was added since this was asked last."""
        now, before = dict(self), self._folded
        self._folded = now
        return {what: n - before.get(what, 0) for what, n in now.items() if n != before.get(what, 0)}


class _OfThread:
    """What one thread counted: only it writes here, so that counting takes no lock. (A lock would be held while the
    collector ends a loader's threads in the midst of it, and those may want to count.)
    """

    def __init__(self) -> None:
        self.sums: defaultdict[tuple[str, str], float] = defaultdict(int)
        self.tallies: dict[str, Tally] = {}
        self.stack = Stack()
        self._folded: Counts = {}

    def new(self) -> Counts:
        """What was added since this was asked last."""
        now, before = self.sums.copy(), self._folded
        self._folded = now
        return {where: n - before.get(where, 0) for where, n in now.items() if n != before.get(where, 0)}


class Counters:
    """Sums by (name, what): ``("map(augment)", "calls")``, with examples. Safe to use from several threads.

    >>> counts = Counters()
    >>> counts.add("decode", "calls")
    >>> counts.add("decode", "seconds", 0.25)
    >>> counts.take().sums
    {('decode', 'calls'): 1, ('decode', 'seconds'): 0.25}
    >>> counts.take().sums
    {}
    """

    def __init__(self, trace: Trace | None = None) -> None:
        self.trace = trace
        self._sums: defaultdict[tuple[str, str], float] = defaultdict(int)
        self._examples: dict[tuple[str, str], list[str]] = {}
        self._took: dict[tuple[str, str], Took] = {}  # "calls" in threads of a pool, and what is the stage's "own"
        self._threads: dict[int, _OfThread] = {}
        self._parts: list[Part] = []

    def add(self, name: str, what: str, amount: float = 1, example: object = None) -> None:
        """Add ``amount`` to the sum of ``what`` under ``name``; of the first few, an example (a key, an error)."""
        self.of_thread().sums[name, what] += amount
        if example is not None:
            examples = self._examples.setdefault((name, what), [])
            if len(examples) < _EXAMPLES:
                examples.append(str(example))

    def tally(self, name: str) -> Tally:
        """The numbers of a stage in this thread."""
        mine = self.of_thread()
        found = mine.tallies.get(name)
        if found is None:
            found = mine.tallies[name] = Tally(name, mine.stack, self.trace)
        return found

    def of_thread(self) -> _OfThread:
        """What this thread counts."""
        thread = threading.get_ident()
        return self._threads.get(thread) or self._threads.setdefault(thread, _OfThread())

    def meter(self, name: str) -> Meter:
        """Sums that one owner adds to all the time: without a lock, and seen by all others now and then."""
        found = Meter(name)
        self.with_part(found)
        return found

    def with_part(self, part: Part) -> None:
        """From now on these sums are counted too."""
        self._parts.append(part)

    def get(self, name: str, what: str) -> float:
        """The sum of ``what`` under ``name``; 0 if nothing was counted."""
        with _lock:  # a loader's sums are away while another thread folds them
            self.fold()
            return self._sums.get((name, what), 0)

    def fold(self) -> None:
        """Add what the tallies of all threads and the meters have that is new."""
        with _lock:
            for part in self._parts:
                for what, amount in part.new().items():
                    self._sums[part.name, what] += amount
            threads = list(self._threads.values())
            for thread in threads:
                for where, amount in thread.new().items():
                    self._sums[where] += amount
            for name, tally in [each for thread in threads for each in list(thread.tallies.items())]:
                for what, amount in tally.new().items():
                    self._sums[name, what] += amount
                took = tally.new_durations()
                if took.counts:
                    self._merge_took({(name, "calls" if tally.calls else "own"): Took(took, tally.slowest)})

    def _merge_took(self, took: Mapping[tuple[str, str], Took]) -> None:
        for name, (durations, slowest) in took.items():
            mine = self._took.setdefault(name, Took(Histogram(), []))
            mine.durations.merge(durations)
            mine.slowest[:] = slowest_of([*mine.slowest, *slowest])

    def snapshot(self) -> Counts:
        """A copy of all sums."""
        return self.counted().sums

    def counted(self) -> Counted:
        """A copy of all that was counted."""
        with _lock:
            self.fold()
            took = {name: Took(Histogram(t.durations.counts), list(t.slowest)) for name, t in self._took.items()}
            spans = self.trace.spans if self.trace else []
            return Counted(dict(self._sums), {at: list(each) for at, each in self._examples.items()}, took, spans)

    def take(self, fold: bool = True) -> Counted:
        """All that was counted, and start again from nothing. Without ``fold``, what only the tallies know stays."""
        with _lock:
            if fold:
                self.fold()
            taken = Counted(dict(self._sums), self._examples, self._took, self.trace.take() if self.trace else [])
            self._sums, self._examples, self._took = defaultdict(int), {}, {}
            return taken

    def merge(self, counted: Counted) -> None:
        """Add what another process took."""
        with _lock:
            for where, amount in counted.sums.items():
                self._sums[where] += amount
            for where, examples in counted.examples.items():
                mine = self._examples.setdefault(where, [])
                mine += examples[: _EXAMPLES - len(mine)]
            self._merge_took(counted.took)
            if self.trace:
                self.trace.merge(counted.spans)


class OfProcess(Counters):
    """The sum of a process. What a thread adds while it works for a loader is the loader's too."""

    def __init__(self) -> None:
        super().__init__()
        self._loaders: weakref.WeakSet[OfLoader] = weakref.WeakSet()

    def forked(self) -> None:
        """In a forked child: the parent's loaders are not here."""
        self._loaders = weakref.WeakSet()
        work_for(None)

    def add(self, name: str, what: str, amount: float = 1, example: object = None) -> None:
        """Add for the loader that this thread works for, which is a part of the process's sum; else for that alone."""
        own = scope.own
        if own is None:
            super().add(name, what, amount, example)
        else:
            own.add(name, what, amount, example)

    def add_for_all(self, name: str, what: str, amount: float = 1) -> None:
        """Add for the process alone, whichever loader this thread works for."""
        super().add(name, what, amount)

    def tally(self, name: str) -> Tally:
        """The numbers of a stage in this thread, of the loader that it works for."""
        own = scope.own
        return super().tally(name) if own is None else own.tally(name)

    def fold(self) -> None:
        """With those of all loaders."""
        super().fold()
        for loader in list(self._loaders):
            loader.fold()

    def adopt(self, loader: OfLoader) -> None:
        """From now on this loader's tallies are part of the sum."""
        self._loaders.add(loader)


class OfLoader(Counters):
    """The counters of a loader; all that they count is counted for the process too."""

    def __init__(self, trace: Trace | None = None) -> None:
        super().__init__(trace)
        counters.adopt(self)

    def fold(self) -> None:
        """Add what is new here and to the sum of the process."""
        with _lock:
            before, took = self._sums, self._took
            self._sums, self._took = defaultdict(int), {}
            super().fold()
            new = Counted(dict(self._sums), took=self._took)
            self._sums, self._took = before, took
            super().merge(new)
        counters.merge(new)

    def merge(self, counted: Counted) -> None:
        """Add what a worker took, here and for the process."""
        super().merge(counted)
        counters.merge(counted)

    def during(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function; what this thread counts meanwhile is the loader's."""
        before = scope.own
        work_for(self)
        try:
            return function(*args, **kwargs)
        finally:
            work_for(before)

    def __del__(self) -> None:
        self.fold()


class _Scope(threading.local):
    own: OfLoader | None = None


scope = _Scope()
"""``scope.own``: the counters of the loader that this thread works for at this moment."""


def work_for(loader: OfLoader | None) -> None:
    """From now on this thread works for a loader, or for none."""
    scope.own = loader


counters = OfProcess()
"""The counters of this process."""


@contextmanager
def network_wait() -> Iterator[None]:
    """What runs in here waits for bytes of the network: counted for reading, always, and once where these nest."""
    stack = counters.tally("reading").stack
    if stack.waits:
        yield
        return
    stack.waits, began = True, perf_counter()
    try:
        yield
    finally:
        seconds = perf_counter() - began
        stack.waits, stack.waited = False, stack.waited + seconds
        counters.add("reading", "wait seconds", seconds)


os.register_at_fork(after_in_child=counters.forked)
