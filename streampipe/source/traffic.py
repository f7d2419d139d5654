"""The threads of a process that fetch, and the bytes that they may have on the way."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from streampipe.counters import counters
from streampipe.source.network import Network

T = TypeVar("T")


class Traffic:
    """Threads and a budget of bytes, shared by all that this process reads from a source.

    Nobody waits for the budget: a reader that finds it used up just asks for no more than the one piece that it needs
    now. So no order of readers can block another, and the budget is passed by at most one window a reader.

    The threads are daemons, unlike those of a ThreadPoolExecutor: a stalled connection must not hold up the end of the
    process.
    """

    def __init__(self, network: Network) -> None:
        self._memory = network.memory
        self._most = network.requests
        self._lock = threading.Lock()
        self._work: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        self._threads = 0
        self._idle = 0  # threads that wait for work, less work that waits for threads
        self._taken = 0
        self._peak = 0

    def submit(self, function: Callable[[], T]) -> Future[T]:
        """Run in one of the threads."""
        future: Future[T] = Future()
        with self._lock:
            start = self._idle <= 0 and self._threads < self._most
            if start:
                self._threads += 1
            else:
                self._idle -= 1
        self._work.put((future, function))
        if start:
            threading.Thread(target=self._run, name="streampipe-network", daemon=True).start()
        return future

    def _run(self) -> None:
        while True:
            future, function = self._work.get()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except BaseException as error:
                    future.set_exception(error)
            del future, function  # or the last result is held until there is more to do
            with self._lock:
                self._idle += 1

    def take(self, size: int, needed: bool = False) -> bool:
        """Whether so many more bytes may be asked for; what is needed at once always may."""
        with self._lock:
            if not needed and self._taken + size > self._memory:
                return False
            self._taken += size
            if self._taken > self._peak:
                counters.add("network", "peak bytes in flight", self._taken - self._peak)
                self._peak = self._taken
            return True

    def give_back(self, size: int) -> None:
        """Bytes were used, or will not come."""
        with self._lock:
            self._taken -= size
