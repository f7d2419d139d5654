"""Parts of an object, several by one request, asked for in the background; all of one version of the object."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from streampipe.errors import SourceError, SourceUnavailable
from streampipe.source.buffers import for_another
from streampipe.source.fetch import Fetch, attempt
from streampipe.source.location import redact
from streampipe.source.network import Network
from streampipe.source.store import Store
from streampipe.source.traffic import Traffic
from streampipe.source.versions import Version
from streampipe.unwanted import Stop, wait

_NOTHING = memoryview(b"")
_BETWEEN = 64 << 10
_PIECES, _TOGETHER = 8, 512 << 10  # parts, and bytes of them, that may be received by one call
_log = logging.getLogger("streampipe")
_warned: set[str] = set()


class Part(NamedTuple):
    """The bytes [start, end) of an object."""

    start: int
    end: int


Came = memoryview | BaseException
"""A part that was asked for, or why it did not come."""


class Answer:
    """The parts of one request, each as soon as it is there. One thread takes them."""

    def __init__(self, parts: int) -> None:
        self._came: list[Came | None] = [None] * parts
        self._wanted = parts
        self._lock = threading.RLock()  # as in Traffic: a reader that the garbage collector ends drops its parts
        self._changed = threading.Condition(self._lock)
        self._awaited = False  # somebody waits

    @property
    def wanted(self) -> bool:
        """Whether any part is."""
        return self._wanted > 0

    def ready(self, number: int) -> bool:
        """Whether a part is there, or an error in its place."""
        return self._came[number] is not None

    def part(self, number: int) -> Came:
        """A part, when it is there."""
        if (came := self._came[number]) is None:
            with self._lock:
                self._awaited = True
                while (came := self._came[number]) is None:
                    wait(self._changed)
                self._awaited = False
        return came

    def put(self, number: int, came: Came) -> None:
        """A part is there."""
        with self._lock:
            if self._came[number] is None:
                self._came[number] = came
                if self._awaited:
                    self._changed.notify_all()

    def drop(self, number: int) -> None:
        """A part was used, or is not wanted any more."""
        with self._lock:
            self._came[number] = _NOTHING
            self._wanted -= 1


class Ranges:
    """One object that is read in parts.

    Args:
        version: of the object, shared by all who read parts of it.
        stop: when set, what is on the way is given up.
    """

    def __init__(
        self,
        store: Store,
        version: Version,
        network: Network,
        traffic: Traffic,
        stop: Stop,
    ) -> None:
        self.url = version.url
        self._store = store
        self._version = version
        self._network = network
        self._traffic = traffic
        self._stop = stop

    @property
    def size(self) -> int | None:
        """How many bytes the object has, once that is known."""
        pin = self._version.pin
        return None if pin is None else pin.size

    def prepare(self, now: bool = False) -> None:
        """Ask for size and version, where they do not come with the first bytes, or are wanted ``now``."""
        if (now or not self._store.pins) and self._version.pin is None:
            self._version.agree(attempt(self._store, self.url, self._network))

    def ask(self, parts: Sequence[Part]) -> Answer:
        """One request from the first part's start to the last one's end; parts are in order and do not overlap.

        What lies between them is read and dropped. Parts that came whole are good, whatever happened behind them.
        """
        answer = Answer(len(parts))
        self._traffic.submit(lambda: self._run(parts, answer))
        return answer

    def _run(self, parts: Sequence[Part], answer: Answer) -> None:
        try:
            error: BaseException | None = self._read(parts, answer)
        except BaseException as found:
            error = found
        for number in range(len(parts)):
            if not answer.ready(number):
                answer.put(number, error or _NOTHING)

    def _read(self, parts: Sequence[Part], answer: Answer) -> SourceError | None:
        """Put the parts into the answer. What is wrong if not all of them came."""
        if self._stop.is_set() or not answer.wanted:
            return None
        take = self._traffic.buffers.take
        number, between = 0, memoryview(b"")
        buffers: deque[memoryview] = deque()  # of the parts from there on that were begun

        def came(until: int) -> None:
            """Parts that are there."""
            nonlocal number
            while number < len(parts) and parts[number].end <= until:  # parts of no bytes end where they begin
                answer.put(number, for_another(buffers.popleft()) if buffers else _NOTHING)
                number += 1

        def memory(at: int) -> list[memoryview]:
            """The rest of the part that is due and some that follow it; or what lies before it, which nobody wants."""
            nonlocal between
            came(at)
            if at < parts[number].start:
                between = between or take(_BETWEEN)
                return [between[: parts[number].start - at]]
            end = parts[number + len(buffers) - 1].end if buffers else at
            while len(buffers) < _PIECES and end - at < _TOGETHER and number + len(buffers) < len(parts):
                start, until = parts[number + len(buffers)]
                if start > end > at:
                    break  # what lies between is nobody's
                buffers.append(take(until - start))
                end = until
            return [buffers[0][at - parts[number].start :], *islice(buffers, 1, None)]

        pin, first, last = self._version.pin, parts[0].start, parts[-1].end
        fetch = Fetch(self._store, self.url, self._network, first, last, pin, self._stop, memory)
        at, begun = parts[0].start, False
        for piece in self._traffic.link.timed(fetch):
            if not begun:
                self._version.agree(fetch.pin)  # others may have begun before it was known
                begun = True
            at += len(piece)
            came(at)
            if self._stop.is_set() or not answer.wanted:
                return None
        if fetch.whole:
            self._warn()
        if number == len(parts):
            return None
        return SourceUnavailable(
            f"{redact(self.url)}: its bytes end at {at}, but {parts[-1].end} were asked for; it is shorter than its "
            f"index says: run streampipe index again, or check how it was uploaded"
        )

    def _warn(self) -> None:
        folder = redact(self.url).rpartition("/")[0]
        if folder not in _warned:
            _warned.add(folder)
            _log.warning(
                "%s: the server ignores Range, so a shard is sent whole for every part of it: use cache=, or "
                "stream(tier='sequential')",
                folder,
            )
