"""A Parquet file of a store as the file that its library reads: in pieces, ahead of need, of one version."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from streampipe.errors import ShardChanged
from streampipe.source import Source, local_path, redact
from streampipe.source.ranged import RangedFile
from streampipe.source.store import Pin
from streampipe.source.versions import Version
from streampipe.unwanted import asking, is_unwanted, result

FOOTER = 64 << 10
"""Bytes that are read at once where nothing is known of what comes next."""


@contextmanager
def as_counted(url: str) -> Iterator[None]:
    """Read a file that must be what it was when its rows were counted.

    Raises:
        ShardChanged: it is not.
    """
    try:
        yield
    except ShardChanged as error:
        raise ShardChanged(f"{redact(url)} was replaced since its rows were counted: make the stream anew") from error


@dataclass
class _Piece:
    """Bytes that were read of one span, and what is asked for behind them."""

    start: int = 0
    data: bytes = b""
    coming: tuple[int, Future[bytes]] | None = None


class Pieces(RangedFile):
    """A version of an object as a file that is read in pieces.

    Args:
        ahead: bytes that are asked for at once, and the next ones while these are used.
        spans: what will be read, front to back each: nothing is fetched ahead beyond its end, and each has its piece.
    """

    def __init__(self, source: Source, version: Version, ahead: int = 0, spans: Sequence[tuple[int, int]] = ()) -> None:
        super().__init__((version.pin or Pin()).size or 0)
        url = version.url
        self._source, self._url, self._version, self._ahead = source, url, version, ahead
        here = local_path(url) is not None or source.cache is not None
        self._local = source.file(url, version.pin) if here else None
        if self._local is None and source.cache is not None and ahead:
            with as_counted(url):
                for _ in source.chunks(url):  # it is kept as a whole
                    pass
            self._local = source.file(url, version.pin)
        self._starts = [start for start, _ in spans]
        self._ends = [end for _, end in spans]
        self._pieces: dict[int, _Piece] = {}

    def between(self, start: int, end: int) -> bytes:
        """See ``RangedFile``."""
        if self._local is not None:
            return self._local.read(start, end)
        span = bisect_right(self._starts, start) - 1
        if span >= 0 and start >= self._ends[span]:
            span = -1
        piece = self._pieces.setdefault(span, _Piece())
        if not piece.start <= start < end <= piece.start + len(piece.data):
            last = self._ends[span] if span >= 0 else min(self._size, start + FOOTER)
            piece.data, piece.start = self._fetched(piece, start, end, max(end, last)), start
        return piece.data[start - piece.start : end - piece.start]

    def _fetched(self, piece: _Piece, start: int, end: int, last: int) -> bytes:
        """The bytes from ``start`` on, to ``end`` at least. What comes behind them, up to ``last``, is asked for."""
        have, at = b"", start
        if piece.start <= start < piece.start + len(piece.data):
            have = piece.data[start - piece.start :]
            at = start + len(have)
        if piece.coming is not None and piece.coming[0] == at:
            have, piece.coming = have + result(piece.coming[1]), None
            at = start + len(have)
        if at < end:
            have += self._read(at, max(end, min(last, at + (self._ahead or FOOTER))))
            at = start + len(have)
        if self._ahead and at < last and piece.coming is None:
            until = min(last, at + self._ahead)
            piece.coming = at, self._source.traffic.submit(self._for_me(at, until))
        return have

    def _read(self, start: int, end: int) -> bytes:
        with as_counted(self._url):
            return self._source.read(self._url, start, end, self._version)

    def _for_me(self, start: int, end: int) -> Callable[[], bytes]:
        """The same for another thread, which asks whether this one's work is still wanted."""
        unwanted = is_unwanted()

        def read() -> bytes:
            with asking(unwanted):
                return self._read(start, end)

        return read


def spans_of(group: Any, columns: Collection[str]) -> list[tuple[int, int]]:
    """Where the columns of a row group lie in the file."""
    found = []
    for chunk in (group.column(i) for i in range(group.num_columns)):
        if chunk.path_in_schema.partition(".")[0] in columns:
            first = min(chunk.dictionary_page_offset or chunk.data_page_offset, chunk.data_page_offset)
            found.append((first, first + chunk.total_compressed_size))
    return sorted(found)
