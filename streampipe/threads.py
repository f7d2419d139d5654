"""Work on a stream in threads of this process, in order and bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, wait
from queue import SimpleQueue
from time import perf_counter, thread_time
from typing import Generic, TypeVar

from streampipe.context import Mark, Run, key_of
from streampipe.counters import counters, scope, work_for
from streampipe.pool import Pool, is_collecting
from streampipe.samples import size_of

_MOST = 8  # for each thread: one that takes ten times as long as the others stops none of 16
_ROOM = 256 << 20  # bytes of results behind one that is slow: with so many no more are begun
_POOLS = "threads"  # where a run keeps what its lanes share
T = TypeVar("T")
R = TypeVar("R")


def ordered(
    function: Callable[[T], R], items: Iterable[T], threads: int | None, ahead: int = 2, run: Run | None = None
) -> Generator[R, None, None]:
    """``map(function, items)`` with up to ``threads`` calls at once: the results in the order of the items.

    Items are pulled in the caller's thread, so a generator may stand behind ``items``. ``ahead * threads`` of them wait
    or are worked on before the result that is due. In a stage that has its ``run`` for itself more are while that one
    alone is slow, ``8 * threads`` in all or 256 MB, so that the other threads go on. An exception is raised where its
    result would have come. With ``threads`` 0 there is no thread at all; None: as many as the run says. With each
    result the run's trail is set to what it was when the item came. Calls in threads are timed under the name of the
    run's stage. All lanes of a reader have the same threads, until ``end_shared``: with threads of their own there
    would be as many as lanes times ``threads``.

    >>> list(ordered(len, ["a", "bcd"], threads=2))
    [1, 3]
    """
    most = ahead if run is None or run.in_lane else max(_MOST, ahead)  # of lanes there are many
    run = run or Run()
    number = run.threads if threads is None else threads
    if number <= 0:
        yield from map(function, items)
        return
    trail, call = run.trail, timed(function, run.stage)
    pool = _pool(run, number)
    calls: _Calls[R] = _Calls(ahead * number, most * number)
    try:
        for item in items:
            calls.begun(pool.submit(call, item), trail.mark)
            while calls.is_due():
                trail.mark, result = calls.first()
                yield result
        while calls:
            trail.mark, result = calls.first()
            yield result
    finally:  # also when the consumer stops early: nothing queued may start any more
        if run.in_lane:
            calls.end()
        else:
            pool.shutdown(wait=True, cancel_futures=True)


def _pool(run: Run, number: int) -> Pool:
    """Threads for a stage: of its own, or those of all lanes."""
    pools: dict[tuple[str, int], Pool] = run.shared.setdefault(_POOLS, {}) if run.in_lane else {}
    if (run.stage, number) not in pools:
        name = f"streampipe {run.stage}".rstrip()
        pools[run.stage, number] = Pool(number, name, work_for, (scope.own,))
    return pools[run.stage, number]


def end_shared(run: Run) -> None:
    """End the threads that the lanes of a run had, when all of these have ended."""
    for pool in run.shared.pop(_POOLS, {}).values():
        pool.shutdown(wait=True, cancel_futures=True)


class _Calls(Generic[R]):
    """Calls in the order of their items, each with its mark: so many ``at_once``, so many at ``most`` with those that
    have ended behind a slow one.
    """

    def __init__(self, at_once: int, most: int) -> None:
        self._at_once, self._most = at_once, most
        self._calls: deque[tuple[Future[R], Mark]] = deque()
        self._ended: SimpleQueue[None] = SimpleQueue()  # one for each call that ended and is still counted
        self._running = 0

    def __len__(self) -> int:
        return len(self._calls)

    def begun(self, future: Future[R], mark: Mark) -> None:
        """One more is on its way."""
        ended = self._ended
        future.add_done_callback(lambda _: ended.put(None))
        self._calls.append((future, mark))
        self._running += 1

    def is_due(self) -> bool:
        """Whether the first is to be given now; else more are to be begun. Waits until it is the one or the other."""
        while not self._ended.empty():
            self._end()
        if len(self._calls) < self._at_once:
            return False
        while not self._calls[0][0].done():
            if self._running < self._at_once and len(self._calls) < self._most and self._ready() < _ROOM:
                return False
            self._end()
        return True

    def _ready(self) -> int:
        """The bytes of the results that are there."""
        return sum(size_of(each.result()) for each, _ in self._calls if each.done() and each.exception() is None)

    def _end(self) -> None:
        self._ended.get()
        self._running -= 1

    def end(self) -> None:
        """None that waits begins any more, and those that run have ended."""
        running = [call for call, _ in self._calls if not call.cancel()]
        if running and not is_collecting():
            wait(running)

    def first(self) -> tuple[Mark, R]:
        """The mark and the result of the first, when it has one."""
        future, mark = self._calls.popleft()
        return mark, future.result()


def timed(function: Callable[[T], R], stage: str) -> Callable[[T], R]:
    """The function for threads of a pool: while times are taken in this thread, its calls are timed under ``stage``."""
    clock = counters.tally(stage).stack

    def call(item: T) -> R:
        if not clock.on:
            return function(item)
        tally = counters.tally(stage)
        clock.looks += 2
        began, cpu = perf_counter(), thread_time()
        try:
            return function(item)
        finally:
            tally.called(began, perf_counter() - began, thread_time() - cpu, key_of(item))

    return call
