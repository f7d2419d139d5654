"""Parts of an object, several by one request, asked for in the background; all of one version of the object."""

from __future__ import annotations

import logging
import threading
from collections.abc import MutableMapping, Sequence
from concurrent.futures import Future
from typing import NamedTuple

from streampipe.errors import ShardError, SourceError, SourceUnavailable
from streampipe.source.fetch import Fetch, Store, attempt, both
from streampipe.source.http import Pin, check_pin
from streampipe.source.location import redact
from streampipe.source.network import Network
from streampipe.source.stores import FsspecStore
from streampipe.source.traffic import Traffic

_log = logging.getLogger("streampipe")
_warned: set[str] = set()
_lock = threading.Lock()


class Part(NamedTuple):
    """The bytes [start, end) of an object."""

    start: int
    end: int


Came = bytearray | SourceError | ShardError
"""A part that was asked for, or why it did not come."""


class Ranges:
    """One object that is read in parts.

    Args:
        pins: the versions of objects, shared by all who read parts of them.
        stop: when set, what is on the way is given up.
    """

    def __init__(
        self,
        store: Store,
        url: str,
        network: Network,
        traffic: Traffic,
        pins: MutableMapping[str, Pin],
        stop: threading.Event,
    ) -> None:
        self.url = url
        self._store = store
        self._network = network
        self._traffic = traffic
        self._pins = pins
        self._stop = stop

    @property
    def size(self) -> int | None:
        """How many bytes the object has, once that is known."""
        pin = self._pins.get(self.url)
        return None if pin is None else pin.size

    def prepare(self, now: bool = False) -> None:
        """Ask for size and version, where they do not come with the first bytes, or are wanted ``now``."""
        if (now or isinstance(self._store, FsspecStore)) and self.url not in self._pins:
            self._agree(attempt(self._store, self.url, self._network))

    def ask(self, parts: Sequence[Part]) -> Future[list[Came]]:
        """One request from the first part's start to the last one's end; parts are in order and do not overlap.

        What lies between them is read and dropped. Parts that came whole are good, whatever happened behind them.
        """
        return self._traffic.submit(lambda: self._read(parts))

    def _read(self, parts: Sequence[Part]) -> list[Came]:
        pin = self._pins.get(self.url, Pin())
        fetch = Fetch(self._store, self.url, self._network, parts[0].start, parts[-1].end, pin, self._stop)
        came = [bytearray(end - start) for start, end in parts]
        at, error = parts[0].start, None
        try:
            for piece in fetch:
                _fill(parts, came, at, piece)
                at += len(piece)
                if self._stop.is_set():
                    break
            self._agree(fetch.pin)
        except (SourceError, ShardError) as found:
            error = found
        if error is None and at < parts[-1].end:
            error = SourceUnavailable(
                f"{redact(self.url)}: its bytes end at {at}, but {parts[-1].end} were asked for; it is shorter than "
                f"its index says: run streampipe index again, or check how it was uploaded"
            )
        if fetch.whole:
            self._warn()
        return [part if error is None or end <= at else error for part, (_, end) in zip(came, parts, strict=True)]

    def _agree(self, found: Pin) -> None:
        """Requests that began before the version was known must have been answered with the same one."""
        with _lock:
            known = self._pins.get(self.url, Pin())
            check_pin(self.url, known, found)
            self._pins[self.url] = both(known, found)

    def _warn(self) -> None:
        folder = redact(self.url).rpartition("/")[0]
        if folder not in _warned:
            _warned.add(folder)
            _log.warning(
                "%s: the server ignores Range, so a shard is sent whole for every part of it: use cache=, or "
                "stream(tier='sequential')",
                folder,
            )


def _fill(parts: Sequence[Part], came: Sequence[bytearray], at: int, piece: bytes) -> None:
    """Copy a piece that begins at byte ``at`` into the parts that it has bytes of."""
    view, end = memoryview(piece), at + len(piece)
    first = _first_beyond(parts, at)
    for i in range(first, len(parts)):
        start, stop = parts[i]
        if start >= end:
            return
        low, high = max(start, at), min(stop, end)
        came[i][low - start : high - start] = view[low - at : high - at]


def _first_beyond(parts: Sequence[Part], at: int) -> int:
    """The number of the first part that does not end before byte ``at``."""
    low, high = 0, len(parts)
    while low < high:
        middle = (low + high) // 2
        if parts[middle].end > at:
            high = middle
        else:
            low = middle + 1
    return low
