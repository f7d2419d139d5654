"""Work on a stream in threads of this process, in order and bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from time import perf_counter, thread_time
from typing import TypeVar

from streampipe.context import Mark, Run, key_of
from streampipe.counters import counters, scope, work_for
from streampipe.pool import Pool

T = TypeVar("T")
R = TypeVar("R")


def ordered(
    function: Callable[[T], R], items: Iterable[T], threads: int | None, ahead: int = 2, run: Run | None = None
) -> Generator[R, None, None]:
    """``map(function, items)`` with up to ``threads`` calls at once: the results in the order of the items.

    Items are pulled in the caller's thread, at most ``ahead * threads`` before the result that is waited for, so what
    is in flight is bounded and a generator may stand behind ``items``. An exception is raised where its result would
    have come. With ``threads`` 0 there is no thread at all; None: as many as the run says. With each result the run's
    trail is set to what it was when the item came. Calls in threads are timed under the name of the run's stage.

    >>> list(ordered(len, ["a", "bcd"], threads=2))
    [1, 3]
    """
    run = run or Run()
    number = run.threads if threads is None else threads
    if number <= 0:
        yield from map(function, items)
        return
    waiting: deque[tuple[Future[R], Mark]] = deque()
    trail, call = run.trail, timed(function, run.stage)

    def first() -> R:
        future, mark = waiting.popleft()
        result = future.result()
        trail.mark = mark
        return result

    pool = Pool(number, f"streampipe {run.stage}".rstrip(), work_for, (scope.own,))
    try:
        for item in items:
            waiting.append((pool.submit(call, item), trail.mark))
            if len(waiting) >= ahead * number:
                yield first()
        while waiting:
            yield first()
    finally:  # also when the consumer stops early: nothing queued may start any more
        pool.shutdown(wait=True, cancel_futures=True)


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
