"""Threads that wait for others look whether anybody still wants what they make.

A loader that is closed waits for the threads and workers that make its items. One of those may wait for bytes of a
store that is away, as long as the patience for that store lasts. So it waits in short pieces, and looks in between.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import TypeVar

T = TypeVar("T")

_LOOK = 0.1  # seconds between two looks


class Unwanted(BaseException):
    """Nobody wants any more what a thread waits for. No stage, policy or retry may catch it, so it is no Exception."""


class _Own(threading.local):
    unwanted: Callable[[], bool] | None = None


_own = _Own()


class Stop:
    """Says that something is not wanted any more, as an ``Event`` of ``threading``, without its lock.

    What the garbage collector ends sets it in any thread, also in one that is just beginning to wait for it.

    >>> stop = Stop()
    >>> stop.wait(0), stop.set(), stop.wait(), stop.is_set()
    (False, None, True, True)
    """

    def __init__(self) -> None:
        self._is_set = False
        self._told: SimpleQueue[None] = SimpleQueue()

    def set(self) -> None:
        """From here on it is."""
        self._is_set = True
        self._told.put(None)

    def is_set(self) -> bool:
        """Whether it is."""
        return self._is_set

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it is, or so long. Whether it is."""
        if not self._is_set:
            with suppress(Empty):
                self._told.get(timeout=seconds)
                self._told.put(None)  # others may wait, too
        return self._is_set


def unwanted_when(check: Callable[[], bool]) -> None:
    """What this thread makes is not wanted any more once this is true; it is asked often, from this thread."""
    _own.unwanted = check


@contextmanager
def asking(check: Callable[[], bool]) -> Iterator[None]:
    """The same, for one piece of work of a thread."""
    before, _own.unwanted = _own.unwanted, check
    try:
        yield
    finally:
        _own.unwanted = before


def is_unwanted() -> Callable[[], bool]:
    """How this thread asks whether what it makes is unwanted, for threads that work for it."""
    return _own.unwanted or (lambda: False)


def wait(changed: threading.Condition) -> None:
    """Wait for a condition that this thread holds, or for a moment: look again what there is.

    Raises:
        Unwanted: nobody wants it any more.
    """
    if _own.unwanted is None:
        changed.wait()
    elif _own.unwanted():
        raise Unwanted
    else:
        changed.wait(_LOOK)


def result(future: Future[T]) -> T:
    """What a future brings.

    Raises:
        Unwanted: nobody wants it any more.
    """
    if _own.unwanted is not None:
        while not future.done():
            if _own.unwanted():
                raise Unwanted
            try:
                future.exception(_LOOK)
            except NotYet:
                continue
    return future.result()


def pause(stop: Stop, seconds: float) -> bool:
    """Wait so long, or until ``stop`` is set: then True.

    Raises:
        Unwanted: nobody wants any more what comes after it.
    """
    if _own.unwanted is None:
        return stop.wait(seconds)
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if _own.unwanted():
            raise Unwanted
        if stop.wait(min(left, _LOOK)):
            return True
    return stop.is_set()
