"""The threads of a process that fetch, and the bytes that they may have on the way."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from streampipe.counters import OfLoader, counters, scope, work_for
from streampipe.errors import SourceError
from streampipe.pool import refused
from streampipe.source.buffers import Buffers
from streampipe.source.link import Link
from streampipe.source.network import Network

T = TypeVar("T")
_log = logging.getLogger("streampipe")

_IDLE = 5.0  # seconds
_USUAL = 32  # requests on their way
_LEAST = 64 << 10  # bytes of a window, of however many streams
_AHEAD = 4  # windows on the way at least, however short the link


class Traffic:
    """Threads and a budget of bytes, shared by all that this process reads over one ``Network``.

    Nobody waits for the budget: a reader that finds it used up just asks for no more than the one piece that it needs
    now. So no order of readers can block another, and the budget is passed by at most one window a reader; the more
    readers there are, the smaller their windows.

    The threads are daemons, unlike those of a ThreadPoolExecutor: a stalled connection must not hold up the end of the
    process. They end when there was nothing to do for a while.
    """

    def __init__(self, network: Network) -> None:
        self.link = Link()
        self.buffers = Buffers(network.memory)
        self._memory = network.memory
        self._ahead, self._window = _AHEAD * network.window, network.window
        self._requests = network.requests
        # Reentrant: a stream that nobody holds any more gives its bytes back wherever the garbage collector ends it,
        # which may be a thread that is in here.
        self._lock = threading.RLock()
        self._work: deque[tuple[Future[Any], Callable[[], Any], OfLoader | None]] = deque()
        self._waiting: SimpleQueue[None] = SimpleQueue()  # counts the work, with less ado than a semaphore
        self._threads = 0
        self._starting = 0  # of those, that are not sure to begin
        self._idle = 0  # threads that wait for work, less work that waits for threads
        self._taken = 0
        self._peak = 0
        self._held = 0  # bytes of those that wait in the windows of shuffles
        self._told = False  # that they are more than there is memory for
        self._streams = 0  # objects that are read front to back at this moment
        self._lanes = 0  # that will be, as passes over them have said
        self._windows = 0  # bytes that the windows of their shuffles may hold

    @property
    def _most(self) -> int:
        """Requests that may be on their way: more than usual where the link's latency is long for what they bring."""
        return min(self._requests, max(_USUAL, self.link.parallel))

    @property
    def is_full(self) -> bool:
        """Whether so much work waits that more would only lie there: as many requests as may be on their way."""
        return len(self._work) >= self._most

    def submit(self, function: Callable[[], T], first: bool = False) -> Future[T]:
        """Run in one of the threads; ``first``: before what waits already.

        Raises:
            SourceError: there is no thread, and none can be started.
        """
        future: Future[T] = Future()
        work = future, function, scope.own
        with self._lock:
            start = self._idle <= 0 and self._threads < self._most
            if start:
                self._threads += 1
                self._starting += 1
            else:
                self._idle -= 1
        if start:
            self._start()
        self._work.appendleft(work) if first else self._work.append(work)
        self._waiting.put(None)
        return future

    def _start(self) -> None:
        """Start a thread, for work that is about to come. Where that cannot be, threads that there are will do it.

        Not within the lock: whatever the garbage collector ends in the new thread may want it.
        """
        try:
            threading.Thread(target=self._run, name="streampipe-network", daemon=True).start()
        except RuntimeError as error:
            with self._lock:
                self._threads -= 1
                self._starting -= 1
                if self._threads <= self._starting:  # others are not sure to begin either
                    raise SourceError(refused("read shards", error)) from error
                self._idle -= 1
        else:
            with self._lock:
                self._starting -= 1

    def _run(self) -> None:
        while True:
            try:
                self._waiting.get(timeout=_IDLE)
            except Empty:
                if self._ends():
                    return
                continue
            future, function, loader = self._work.popleft()
            if future.set_running_or_notify_cancel():
                work_for(loader)
                try:
                    future.set_result(function())
                except BaseException as error:
                    future.set_exception(error)
                work_for(None)
            del future, function, loader  # or the last result is held until there is more to do
            with self._lock:
                self._idle += 1

    def _ends(self) -> bool:
        """A thread that had nothing to do for a while ends, unless work was promised to it just now."""
        with self._lock:
            if self._idle <= 0:
                return False
            self._idle -= 1
            self._threads -= 1
            return True

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

    def take_ahead(self, size: int, needed: bool, own: int) -> bool:
        """The same for what is read front to back, of which a stream has ``own`` bytes: no more on its way than the
        link needs, and no more for each stream than its share of the memory.
        """
        with self._lock:
            full = self._taken - self._held + size > self._window + max(
                self._ahead, self.link.needs
            )  # a window is being used
            full |= own + size > 2 * self.share
        return self.take(size, needed) if needed or not full else False

    def stream(self, more: int) -> None:
        """So many more objects, or fewer, are read front to back at the same time."""
        with self._lock:
            self._streams += more

    @contextmanager
    def lanes(self, number: int, windows: int) -> Iterator[None]:
        """In here so many objects are read front to back at the same time, and windows of shuffles hold so many bytes
        at most. Who begins first leaves room for the others: lanes are read in turn, so each is used up as slowly as
        all of them.
        """
        with self._lock:
            self._lanes += number
            self._windows += windows
            self.buffers.most = self._left
        try:
            yield
        finally:
            with self._lock:
                self._lanes -= number
                self._windows -= windows
                self.buffers.most = self._left

    @property
    def share(self) -> int:
        """Bytes that a window may have of each object that is read front to back: one is on its way while the one
        before it is used.
        """
        return max(_LEAST, self._left // (2 * max(1, self._streams, self._lanes)))

    @property
    def _left(self) -> int:
        """Bytes for reading, beside what waits or will wait in windows of shuffles."""
        return max(0, self._memory - max(self._held, self._windows))

    def hold(self, more: int) -> None:
        """So many more bytes, or fewer, wait in the window of a shuffle: reading ahead has so many less."""
        with self._lock:
            self._held += more
            self._taken += more
            self.buffers.most = self._left
            passed = not self._told and self._held > self._memory
            self._told |= passed
        if passed:
            _log.warning(
                "the windows of shuffles hold more than Network(memory=%d << 20): give twice what explain() says they "
                "hold, a smaller shuffle=, or more workers, which divide the lanes",
                max(1, self._memory >> 20),
            )

    def give_back(self, size: int) -> None:
        """Bytes were used, or will not come."""
        with self._lock:
            self._taken -= size


_OF_PROCESS: dict[Network, Traffic] = {}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_OF_PROCESS.clear)  # threads stay behind in the parent


def traffic_of(network: Network) -> Traffic:
    """The traffic of this process: its memory and requests are limits for the process, not for each source."""
    return _OF_PROCESS.setdefault(network, Traffic(network))
