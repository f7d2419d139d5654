"""A shard that is copied into the cache in the background, and read while it comes.

The copy does not wait for whoever reads it: others may wait for the shard, and a reader that waits for them in turn (as
the workers of a DataLoader do) would never go on.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator

from streampipe.counters import counters, network_wait
from streampipe.source.cache import Cache
from streampipe.source.forward import Forward
from streampipe.source.part import Part
from streampipe.source.store import Pin
from streampipe.unwanted import wait

_BLOCK = 1 << 20


class Download:
    """One shard on its way into a cache.

    Args:
        begin: the shard's bytes from a byte on, of a version, or (None) of that which it has now. It is called in the
            background, because the store may be long in saying which; and again, past the cache, where the disk fails.
        patience: how long another process that downloads the same shard may bring nothing (seconds).
    """

    def __init__(
        self,
        cache: Cache,
        url: str,
        begin: Callable[[int, Pin | None], Forward],
        patience: float,
    ) -> None:
        self.url = url
        self._cache = cache
        self._begin = begin
        self._pin = Pin()  # of what is copied
        self._patience = patience
        self._changed = threading.Condition()
        self._part: Part | None = None
        self._state = "waiting"  # then "coming", then "there", "past" (the cache could not take it) or "failed"
        self._error: BaseException | None = None
        self._file = -1  # of the growing copy, for ``read``; it outlives the copy's name
        try:
            threading.Thread(target=self._run, name="streampipe-cache", daemon=True).start()
        except RuntimeError as error:  # there is no thread to be had: as where the disk does not do
            cache.failed(OSError(str(error)))
            self._end("past")

    @property
    def done(self) -> bool:
        """Whether nothing more will come."""
        return self._state in ("there", "past", "failed")

    def settle(self) -> None:
        """Wait until a copy whose bytes are all there has its name: a process that ended before would lose it."""
        with self._changed:
            while not self.done and self.written and self.written == self._pin.size:
                if not self._changed.wait(self._patience):
                    return

    def pieces(self) -> Iterator[bytes]:
        """The shard's bytes in order, as they come.

        Raises:
            SourceError: what reading it raised.
        """
        at, file = 0, -1
        try:
            while True:
                with self._changed:
                    while not self.done and (self._part is None or self._part.written <= at):
                        with network_wait():
                            wait(self._changed)
                    state, part = self._state, self._part
                    if file < 0 and part is not None and state == "coming":
                        file = part.reader()
                if file < 0:  # it came and went before we looked, or somebody else made it
                    yield from self._kept(at, state)
                    return
                end = part.written if part is not None else at
                while at < end:
                    piece = _read(file, min(_BLOCK, end - at), at)
                    if not piece:  # the disk does not give back what it took
                        yield from self._begin(at, self._pin)
                        return
                    at += len(piece)
                    yield piece
                if state == "there" and part is not None and at == part.written:
                    return
                if state in ("past", "failed"):
                    yield from self._kept(at, state)
                    return
        finally:
            if file >= 0:
                os.close(file)

    @property
    def written(self) -> int:
        """How many of its bytes are there, from the first on; 0 as long as another process copies it."""
        return self._part.written if self._part is not None else 0

    def read(self, start: int, end: int) -> bytes | None:
        """The bytes [start, end) as soon as they are there; None if the copy was made elsewhere, or will not be.

        Raises:
            SourceError: what reading the shard raised.
        """
        with self._changed:
            while not self.done and self.written < end:
                with network_wait():
                    wait(self._changed)
            if self._state == "failed" and self.written < end and self._error is not None:
                raise self._error
            if self.written < end or self._file < 0:
                return None
        data = _read(self._file, end - start, start)
        return data if len(data) == end - start else None

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)

    def _kept(self, at: int, state: str) -> Iterator[bytes]:
        if state == "failed" and self._error is not None:
            raise self._error
        file = self._cache.file(self.url, self._pin) if state == "there" else None
        yield from self._begin(at, self._pin) if file is None else file.pieces(at)

    def _run(self) -> None:
        try:
            forward = self._begin(0, None)
        except BaseException as error:
            self._error = error
            self._end("failed")
            return
        self._pin = forward.pin
        try:
            with self._cache.turn(self.url, self._patience):  # without a lock it may be done twice, at worst
                if self._cache.file(self.url, self._pin) is not None:
                    self._end("there")
                else:
                    self._copy(forward)
        except OSError as error:
            self._cache.failed(error)
            self._end("past")
        except BaseException as error:
            self._error = error
            self._end("failed")
        finally:
            forward.close()

    def _copy(self, forward: Forward) -> None:
        chunks = iter(forward)
        try:
            first = next(chunks, b"")
        except Exception as error:
            self._error = error
            self._end("failed")
            return
        self._pin = forward.pin
        part = self._cache.part(self.url, self._pin.size)
        try:
            self._take(part, first)
            while True:
                try:
                    chunk = next(chunks, None)
                except Exception as error:
                    self._error = error
                    self._end("failed")
                    part.discard()
                    return
                if chunk is None:
                    break
                self._take(part, chunk)
            part.publish(forward.pin.mark)
        except BaseException:
            with self._changed:
                self._end("past")
            part.discard()
            raise
        counters.add("cache", "downloads")
        self._end("there")
        part.close()

    def _take(self, part: Part, chunk: bytes) -> None:
        part.write(chunk)
        with self._changed:
            if self._file < 0:
                self._file = part.reader()
            self._part, self._state = part, "coming"
            self._changed.notify_all()

    def _end(self, state: str) -> None:
        with self._changed:
            self._state = state
            self._changed.notify_all()


def _read(file: int, size: int, at: int) -> bytes:
    try:
        return os.pread(file, size, at)
    except OSError:
        return b""
