"""A JPEG's marker segments up to its first scan, found by exactly the rules of libjpeg.

That matters: where two readers of a header disagree, a file can show each of them another one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from struct import Struct
from typing import NamedTuple

from streampipe.decoding.codec import Data

SCAN = 0xDA
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # start-of-frame markers; the three are something else
_ALONE = frozenset((0x01, *range(0xD0, 0xD8)))  # markers without a length
_HEAD = Struct(">BBH")  # of a segment: 255, its marker, its length
_KNOWN = FRAMES | {0xC4, 0xCC, 0xDA, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)}  # libjpeg refuses all others


class Segment(NamedTuple):
    """A marker, and where the bytes of its segment are, behind the length."""

    marker: int
    start: int
    end: int

    @property
    def size(self) -> int:
        """Bytes in it."""
        return self.end - self.start


def segments(data: Data, wanted: Collection[int] = _KNOWN) -> Iterator[Segment]:
    """The segments of ``wanted`` markers in order; the last is the first scan's header, unless the file is damaged
    before it.
    """
    at, end = 2, len(data)
    while True:
        first, marker, size = _HEAD.unpack_from(data, at) if at + 4 <= end else (0, 0, 0)
        if first == 0xFF and marker in _KNOWN:  # as it nearly always is
            at += 2
        else:
            marker, at = _next_marker(data, at, end)
            if marker in _ALONE:
                continue
            if marker not in _KNOWN or at + 2 > end:
                return
            size = data[at] << 8 | data[at + 1]
        if size < 2 or at + size > end:
            return
        if marker in wanted:
            yield Segment(marker, at + 2, at + size)
        if marker == SCAN:
            return
        at += size


def without_exif(data: Data) -> bytes:
    """A file without EXIF and XMP segments, which Pillow warns of where it cannot parse them."""
    kept, at = [b"\xff\xd8"], 2
    for each in segments(data):
        if each.marker != 0xE1:
            kept.append(bytes((0xFF, each.marker)) + bytes(data[each.start - 2 : each.end]))
        at = each.end
    return b"".join(kept) + bytes(data[at:])


def _next_marker(data: Data, at: int, end: int) -> tuple[int, int]:
    """The next marker and where it ends; what is no marker is passed over, as libjpeg does. 0 at the end."""
    while True:
        while at < end and data[at] != 0xFF:
            at += 1
        while at < end and data[at] == 0xFF:
            at += 1
        if at >= end:
            return 0, at
        at += 1
        if data[at - 1]:
            return data[at - 1], at
