"""Background threads that make items before they are asked for, one for each of several streams."""

from __future__ import annotations

import os
import queue
import threading
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from itertools import count
from typing import Any

import torch

from streampipe.errors import ConfigError
from streampipe.pool import is_collecting, refused
from streampipe.unwanted import is_unwanted, unwanted_when

_Made = tuple[str, Any]
_numbers = count(1)


class Ahead(Iterator[Any]):
    """The items, made in a background thread up to ``most`` before they are asked for. Errors come where they belong.

    The thread begins at once, and ends with ``close``, with this object, or with the process. It computes alone, as
    DataLoader workers do: where torch would share an operation among threads of its own, those would take the cores
    that other threads like this one have.

    Items go one way and leave to make one more the other way, each by a SimpleQueue: it is written in C, so that Ctrl-C
    comes before or after a step of it. In the middle of Queue.get it may leave the lock taken: the end waits for ever.

    >>> list(Ahead(iter("abc"), 2))
    ['a', 'b', 'c']
    """

    def __init__(self, items: Iterator[Any], most: int) -> None:
        self._made: queue.SimpleQueue[_Made] = queue.SimpleQueue()
        self._leave: queue.SimpleQueue[bool] = queue.SimpleQueue()
        for _ in range(most):
            self._leave.put(True)
        self._over = False
        closed = threading.Event()
        ready = threading.Event()
        arguments = items, self._made, self._leave, ready, _either(closed.is_set, is_unwanted())
        thread = threading.Thread(target=_make, args=arguments, name=f"streampipe-ahead-{next(_numbers)}", daemon=True)
        self._end = weakref.finalize(
            self, _end, self._made, self._leave, closed, thread, os.getpid()
        )  # when the process ends, too
        before = torch.get_num_threads()
        try:
            thread.start()
        except RuntimeError as error:
            self._end.detach()
            raise ConfigError(refused("make batches", error)) from error
        ready.wait()
        torch.set_num_threads(before)  # what the thread said of itself holds for those that begin later too

    def __next__(self) -> Any:
        if self._over:
            raise StopIteration
        kind, value = self._made.get()
        self._leave.put(True)
        if kind == "item":
            return value
        self._over = True
        if kind == "error":
            raise value
        raise StopIteration

    def close(self) -> None:
        """End the thread, and what makes the items."""
        self._over = True
        self._end()


def ahead(items: Iterator[Any], most: int) -> Generator[Any, None, None]:
    """The same, whose thread begins with the first item that is asked for.

    >>> list(ahead(iter("abc"), 2))
    ['a', 'b', 'c']
    """
    with closing(Ahead(items, most)) as made:
        yield from made


def in_turn(streams: Sequence[Iterator[Any]], most: int, ended: Sequence[Any] = ()) -> Generator[Any, None, None]:
    """Streams that are made at once, a thread for each: an item of each in turn.

    ``most`` items of each are made before they are asked for. One that has ended is passed over; or what is in
    ``ended`` is yielded in its turns, as long as others go on.

    >>> list(in_turn([iter("acef"), iter("bd")], 1))
    ['a', 'b', 'c', 'd', 'e', 'f']
    >>> list(in_turn([iter("acef"), iter("bd")], 1, ended="-"))
    ['a', 'b', 'c', 'd', 'e', '-', 'f', '-']
    """
    made: list[Ahead] = []
    try:
        for stream in streams:
            made.append(Ahead(stream, most))
        left = set(made)
        while left:
            for each in made:
                for item in each:
                    yield item
                    del item
                    break
                else:
                    left.discard(each)
                    if left:
                        yield from ended
    finally:
        for each in made:
            each.close()


def _make(
    items: Iterator[Any],
    made: queue.SimpleQueue[_Made],
    leave: queue.SimpleQueue[bool],
    ready: threading.Event,
    unwanted: Callable[[], bool],
) -> None:
    unwanted_when(unwanted)
    torch.get_num_threads()  # a thread that was not asked yet would forget what it is told
    torch.set_num_threads(1)
    ready.set()
    try:
        for item in items:
            if not leave.get():
                return
            made.put(("item", item))
            del item
        made.put(("end", None))
    except BaseException as error:  # KeyboardInterrupt too: the consumer must not wait for ever
        made.put(("error", error))
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            close()


def _either(one: Callable[[], bool], other: Callable[[], bool]) -> Callable[[], bool]:
    return lambda: one() or other()


def _end(
    made: queue.SimpleQueue[_Made],
    leave: queue.SimpleQueue[bool],
    closed: threading.Event,
    thread: threading.Thread,
    process: int,
) -> None:
    """Let the thread finish what it is at, or give it up where it waits for others, and drop it."""
    if os.getpid() != process:
        return  # a fork has no such thread, and what it held stays held
    closed.set()
    _empty(leave)
    leave.put(False)
    if is_collecting():
        return
    if thread is not threading.current_thread():
        thread.join()
    _empty(made)


def _empty(items: queue.SimpleQueue[Any]) -> None:
    with suppress(queue.Empty):
        while True:
            items.get_nowait()
