"""Exactly the bytes that were asked for, of one version of an object, however often the connection breaks.

A broken request is made again from the first byte that is missing; what came stays. A server that ignores Range sends
the whole object each time: what lies before that byte is thrown away.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import cast

from streampipe.counters import counters
from streampipe.errors import AccessDenied, SourceError
from streampipe.source.failures import Ended, Expired, cause, failure
from streampipe.source.location import redact
from streampipe.source.network import Network
from streampipe.source.retry import Tries
from streampipe.source.store import Memory, Pin, Receiving, Store
from streampipe.unwanted import Stop

_LEAST = 1 << 16


class Fetch:
    """The bytes [start, end) of an object as an iterator of pieces; ``pin`` is known once the first piece is there.

    Args:
        end: None for all to the end of the object.
        memory: where each byte is wanted; of the pieces, only how long they are says something then.
        stop: when set, waiting for a next try ends at once.
    """

    def __init__(
        self,
        store: Store,
        url: str,
        network: Network,
        start: int = 0,
        end: int | None = None,
        pin: Pin | None = None,
        stop: Stop | None = None,
        memory: Memory | None = None,
    ) -> None:
        self._memory = memory
        self.pin = pin or Pin()
        self.whole = False  # the server ignores Range
        self._ended = False  # an answer of unknown length ended in good order
        self._store = store
        self._url = url
        self._network = network
        self._start = start
        self._end = end
        self._stop = stop or Stop()
        self._tries = Tries(url, network, self._stop, store.credentials(url), lambda: store.worked)
        self._renewed = False
        self._most: int | None = None  # bytes to ask for at once, where an answer that breaks off brings nothing

    def __iter__(self) -> Iterator[bytes]:
        at = self._start
        while self._end is None or at < self._end:
            before = at
            try:
                for piece in self._request(at):
                    if self._stop.is_set():
                        raise SourceError(f"{redact(self._url)}: reading it was given up at byte {at}")
                    at += len(piece)
                    self._store.worked = True
                    self._tries.progress()
                    counters.add("network", "bytes", len(piece))
                    yield piece
                self._store.worked = True
                if self._arrived(at):
                    return
                if at == before:
                    raise Ended(f"nothing came beyond byte {at}")
            except Exception as error:  # backends raise what they like
                if not self._renew(error):
                    self._tries.again(error, at)
                    self._ask_for_less(at)

    def _ask_for_less(self, at: int) -> None:
        """A broken connection that never lasts for a whole answer lasts for a part of it."""
        if not self._store.streams:
            end = self.pin.size if self._end is None else self._end
            self._most = max(_LEAST, (self._most or (end or at + self._network.window) - at) // 2)

    def _arrived(self, at: int) -> bool:
        if self._ended:
            return True
        end = self._end if self.pin.size is None else min(self.pin.size, self._end or self.pin.size)
        return end is None or at >= end

    def _request(self, at: int) -> Iterator[bytes]:
        counters.add("network", "requests")
        end = self._end
        if self._most is not None and (end is not None or self.pin.size is not None):
            end = at + self._most if end is None else min(end, at + self._most)
        store = self._store
        if self._memory is not None and end is not None and _receives(type(store)):
            answer = cast(Receiving, store).get_into(self._url, at, end, self.pin, self._memory)
        else:
            answer = store.get(self._url, at, end, self.pin)
        self.pin = self.pin.with_(answer.pin)
        self.whole = self.whole or answer.whole
        skip = at - answer.start
        left = None if self._end is None else self._end - at
        for piece in answer.pieces:
            if skip:
                counters.add("network", "bytes thrown away", min(skip, len(piece)))
                piece, skip = piece[skip:], max(0, skip - len(piece))
            if left is not None:
                piece = piece[:left]
                left -= len(piece)
            if self._memory is None or answer.placed:
                if piece:
                    yield piece
            else:
                yield from self._put(piece, at)
            at += len(piece)
            if left == 0 and self.whole:
                return  # else the answer ends here by itself, and its connection can be used again
        self._ended = self.whole and self.pin.size is None and not skip

    def _put(self, piece: bytes, at: int) -> Iterator[bytes]:
        """A piece that came elsewhere, where it is wanted."""
        assert self._memory is not None
        done = 0
        while done < len(piece):
            into = self._memory(at + done)[0][: len(piece) - done]
            into[:] = memoryview(piece)[done : done + len(into)]
            done += len(into)
            yield into  # type: ignore[misc]

    def _renew(self, error: Exception) -> bool:
        """Tokens run out: with fresh credentials once more, where they were good before."""
        if isinstance(error, Expired):  # said so: each time, until new ones are there
            _expired(self._store, error, self._url)
            return False
        if self._renewed or not _ran_out(self._store, error, self._url):
            return False
        self._renewed = True
        self._store.renew()
        return True


@lru_cache(64)
def _receives(kind: type) -> bool:
    """Whether such a store is ``Receiving``. To ask a protocol takes long, and this is asked for each request."""
    return hasattr(kind, "get_into")


def _expired(store: Store, error: Expired, url: str) -> None:
    """Look for new credentials, where the old ones were good before; who begins with old ones is told at once."""
    if not store.worked:
        raise failure(error, url, used=store.credentials(url)).error from cause(error, url)
    counters.add("network", "credentials renewed")
    store.renew()


def _ran_out(store: Store, error: Exception, url: str) -> bool:
    if not store.worked or not isinstance(failure(error, url).error, AccessDenied):
        return False
    counters.add("network", "credentials renewed")
    return True


def attempt(store: Store, url: str, network: Network, what: str = "read") -> Pin:
    """The object's size and version, asked for until there is an answer."""
    tries = Tries(url, network, used=store.credentials(url), worked=lambda: store.worked)
    renewed = False
    while True:
        try:
            pin = store.pin(url)
        except Exception as error:
            if isinstance(error, Expired):
                _expired(store, error, url)
            elif not renewed and _ran_out(store, error, url):
                renewed = True
                store.renew()
                continue
            tries.again(error, 0, what)
        else:
            store.worked = True
            return pin
