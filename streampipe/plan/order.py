"""The order of an epoch: a windowed shuffle that can be seeked into.

Sample i of a stream gets the key ``i + window * u(seed, i)`` and the stream is sorted by key. That is what a shuffle
buffer does, but as a pure function: no sample moves further than ``window`` places, so the samples at positions
[a, b) can only come from [a - window, b + window), and whoever knows the position knows the buffer.

Two executions of the one law: ``window_slice`` computes any range of a stream of known length in O(range + window);
``windowed`` is a heap over a stream of unknown length.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np

from streampipe.rng import uniform

T = TypeVar("T")
M = TypeVar("M")
WINDOW_BYTES = 256 << 20
"""Bytes that the window of a stream's shuffle holds at most."""
_ALL_WINDOWS = 1 << 30
_BLOCK = 4096  # keys drawn at once
_PLACE = 1 << 40  # of a window: what an item takes up at least


def window_bytes(lanes: int, whole: int = _ALL_WINDOWS) -> int:
    """Bytes that each of so many windows holds at most: one reader of all lanes has all of them, ``whole``.

    >>> window_bytes(1) >> 20, window_bytes(64) >> 20
    (256, 16)
    """
    return min(WINDOW_BYTES, max(1, whole // lanes))


def window_slice(n: int, window: int, seed: int, a: int, b: int) -> np.ndarray:
    """Which items of range(n) stand at positions [a, b) after the windowed shuffle.

    >>> whole = window_slice(6, 3, 1, 0, 6).tolist()
    >>> whole[:2] == window_slice(6, 3, 1, 0, 2).tolist(), whole[2:] == window_slice(6, 3, 1, 2, 6).tolist()
    (True, True)
    """
    lo, hi = max(0, a - window), min(n, b + window)
    keys = np.arange(lo, hi) + window * uniform(seed, lo, hi)
    return np.asarray(lo + np.argsort(keys, kind="stable")[a - lo : b - lo])


def window_start(position: int, window: int) -> int:
    """The first item that can still stand at ``position`` or after it: where a stream must be read from to resume."""
    return max(0, position - window)


def windowed(
    items: Iterable[T],
    window: int,
    seed: int,
    position: int = 0,
    size: Callable[[T], int] | None = None,
    most: int | None = None,
    left: Callable[[T], None] | None = None,
) -> Iterator[T]:
    """The same permutation over a stream whose length need not be known; it holds at most ``window + 1`` items.

    With ``size`` (bytes of an item) it holds at most ``most`` bytes (``WINDOW_BYTES``), too: an item of more than its
    share of them takes as many places of the window. The order is then a function of the seed and of the items' sizes,
    and the same as without where all are small.

    ``left`` is told of each item that leaves the window: it is yielded, or was given out before and is dropped.

    To resume after ``position`` items were given out, pass that number and a stream that begins at item
    ``window_start(position, window)``: integers are all the state there is.

    >>> list(windowed("abcdef", 3, seed=1)) == ["abcdef"[i] for i in window_slice(6, 3, 1, 0, 6)]
    True
    >>> list(windowed("bcdef", 3, seed=1, position=4)) == list(windowed("abcdef", 3, seed=1))[4:]
    True
    """
    first = window_start(position, window)
    skip = position - first  # these were given out before: every item before `first` too, and nothing else
    held: list[tuple[int, int, T]] = []
    moves: list[float] = []
    # Whole numbers, so that an order does not depend on where its stream was begun.
    i, at, share = first, 0, max(1, (most or WINDOW_BYTES) // max(1, window))
    for item in items:
        if (i - first) % _BLOCK == 0:
            moves = (window * uniform(seed, i, i + _BLOCK)).tolist()
        while held and held[0][0] <= at:  # nothing that arrives from here on can precede it
            ready = heapq.heappop(held)[2]
            if left is not None:
                left(ready)
            if skip:
                skip -= 1
            else:
                yield ready
        heapq.heappush(held, (at + int(moves[(i - first) % _BLOCK] * _PLACE), i, item))
        at += _PLACE if size is None else max(_PLACE, size(item) * _PLACE // share)
        i += 1
    while held:
        ready = heapq.heappop(held)[2]
        if left is not None:
            left(ready)
        if skip:
            skip -= 1
        else:
            yield ready


def traceable(
    items: Iterable[tuple[T, M, M]],
    window: int,
    seed: int,
    position: int = 0,
    size: Callable[[T], int] | None = None,
    most: int | None = None,
    left: Callable[[T], None] | None = None,
) -> Iterator[tuple[T, int, M]]:
    """``windowed`` over items that come with the marks before and behind them.

    Each comes out with what resumes behind it: the position, and the mark from which the stream must then be read, that
    is before item ``window_start(position, window)``.

    >>> list(traceable([("a", 0, 1), ("b", 1, 2), ("c", 2, 3)], 1, seed=1))
    [('a', 1, 0), ('b', 2, 1), ('c', 3, 2)]
    """
    marks: deque[M] = deque()  # before each item from `first` on
    first = window_start(position, window)
    last: M

    def remembered() -> Iterator[T]:
        nonlocal last
        for item, before, behind in items:
            marks.append(before)
            last = behind
            yield item

    for item in windowed(remembered(), window, seed, position, size, most, left):
        position += 1
        if first < window_start(position, window):
            marks.popleft()
            first += 1
        yield item, position, marks[0] if marks else last
