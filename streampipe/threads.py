"""Work on a stream in threads of this process, in order and bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from streampipe.context import Mark, Trail

T = TypeVar("T")
R = TypeVar("R")


def ordered(
    function: Callable[[T], R], items: Iterable[T], threads: int, ahead: int = 2, trail: Trail | None = None
) -> Iterator[R]:
    """``map(function, items)`` with up to ``threads`` calls at once: the results in the order of the items.

    Items are pulled in the caller's thread, at most ``ahead * threads`` before the result that is waited for, so what
    is in flight is bounded and a generator may stand behind ``items``. An exception is raised where its result would
    have come. With ``threads`` 0 there is no thread at all. ``trail`` is that of the items: with each result it
    is set to what it was when the item came.

    >>> list(ordered(len, ["a", "bcd"], threads=2))
    [1, 3]
    """
    if threads <= 0:
        yield from map(function, items)
        return
    waiting: deque[tuple[Future[R], Mark]] = deque()
    trail = trail or Trail()

    def first() -> R:
        future, mark = waiting.popleft()
        result = future.result()
        trail.mark = mark
        return result

    pool = ThreadPoolExecutor(threads, thread_name_prefix="streampipe")
    try:
        for item in items:
            waiting.append((pool.submit(function, item), trail.mark))
            if len(waiting) >= ahead * threads:
                yield first()
        while waiting:
            yield first()
    finally:  # also when the consumer stops early: nothing queued may start any more
        pool.shutdown(wait=True, cancel_futures=True)
