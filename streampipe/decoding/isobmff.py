"""MP4 and QuickTime files: what their headers say of their video, without decoding. (ISO/IEC 14496-12)

The frames of a track are counted by its tables (or, in fragments, by their runs), and those are left out that its edit
list does not show. Nothing of the frames themselves is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct

import numpy as np

from streampipe.decoding.boxes import boxes, brands, inside
from streampipe.decoding.codec import Data
from streampipe.decoding.container import Track, VideoHeader, described
from streampipe.errors import DecodeError

_FIRST = frozenset((b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"))
_OTHERS = (b"avi", b"hei", b"hev", b"mif", b"msf", b"jp", b"jxl", b"crx", b"M4A", b"M4B")
"""How the brands of images and of sound begin, which are made of the same boxes."""
_NEEDED = frozenset((b"moov", b"mdat", b"moof"))
_DURATION, _SIZE, _FLAGS, _OFFSET = 0x100, 0x200, 0x400, 0x800
_TURNS = {  # a matrix's signs, as an EXIF orientation
    (1, 0, 0, 1): 1,
    (-1, 0, 0, 1): 2,
    (-1, 0, 0, -1): 3,
    (1, 0, 0, -1): 4,
    (0, 1, 1, 0): 5,
    (0, 1, -1, 0): 6,
    (0, -1, -1, 0): 7,
    (0, -1, 1, 0): 8,
}
_Span = tuple[int, int]


def recognises(head: bytes) -> bool:
    """Whether a file that begins so is such a video."""
    if head[4:8] not in _FIRST:
        return False
    found = brands(head)
    return not found or not found[0].startswith(_OTHERS)


def header(data: Data) -> VideoHeader:
    """What the headers say.

    Raises:
        DecodeError: the file ends too early, or there is no video in it.
    """
    moov, fragments = None, []
    for kind, start, end in _top(data):
        if kind == b"moov":
            moov = start, end
        elif kind == b"moof":
            fragments.append((start, end))
    if moov is None:
        raise DecodeError("the MP4 file has no index of its frames (moov): it is not whole")
    video = audio = None
    for kind, start, end in boxes(data, *moov):
        if kind == b"trak":
            handler = inside(data, start, end, b"mdia", b"hdlr")
            what = bytes(data[handler[0] + 8 : handler[0] + 12]) if handler else b""
            video = video or ((start, end) if what == b"vide" else None)
            audio = audio or what == b"soun"
    if video is None:
        raise DecodeError("the MP4 file has no video track")
    times, track = _frames(data, moov, video, fragments)
    return described("MP4", track, times, bool(audio))


def _top(data: Data) -> Iterator[tuple[bytes, int, int]]:
    """The boxes of a file. What it needs must be whole; junk at its end is nobody's."""
    at, total = 0, len(data)
    while at + 8 <= total:
        kind = bytes(data[at + 4 : at + 8])
        size, body = int.from_bytes(data[at : at + 4], "big"), at + 8
        if size == 1:
            size, body = int.from_bytes(data[at + 8 : at + 16], "big"), at + 16
        end = total if size == 0 else at + size
        if end > total and kind in _NEEDED:
            raise DecodeError(f"the MP4 file ends early: {end} bytes are announced, {total} are there")
        if end < body or end > total:
            return
        yield kind, body, end
        at = end


def _frames(data: Data, moov: _Span, trak: _Span, fragments: list[_Span]) -> tuple[np.ndarray, Track]:
    """When each frame is shown and how long, in seconds (frames x 2, as they are stored); and what the track is."""
    head, media = inside(data, *trak, b"tkhd"), inside(data, *trak, b"mdia")
    clock = media and inside(data, *media, b"mdhd")
    table = media and inside(data, *media, b"minf", b"stbl")
    look = table and inside(data, *table, b"stsd")
    if not (head and clock and table and look):
        raise DecodeError("the MP4 file's video track is damaged: its headers are not all there")
    scale = _number(data, clock[0] + (20 if data[clock[0]] else 12), 4)
    if not scale:
        raise DecodeError("the MP4 file's video track has no clock")
    entry = look[0] + 8
    size = _number(data, entry + 34, 2), _number(data, entry + 32, 2)
    at = head[0] + (52 if data[head[0]] else 40)
    a, b, _, c, d = Struct(">5i").unpack(bytes(data[at : at + 20]))
    number = _number(data, head[0] + (20 if data[head[0]] else 12), 4)
    lengths, late = _table(data, table, b"stts"), _table(data, table, b"ctts", signed=True)
    if fragments:
        more, more_late = _runs(data, moov, fragments, number)
        lengths = np.concatenate([lengths, more])
        late = np.concatenate([late if len(late) else np.zeros(len(lengths) - len(more), np.int64), more_late])
    starts = np.cumsum(lengths) - lengths
    shown = starts + (late if len(late) == len(starts) else 0)
    for first, last in _edits(data, moov, trak, scale):
        inside_edit = (shown >= first) & (shown < last)
        shown, lengths = shown[inside_edit], lengths[inside_edit]
    turn = _TURNS.get((_sign(a), _sign(b), _sign(c), _sign(d)), 1)
    return np.stack([shown, lengths], 1) / scale, Track(*size, turn)


def _sign(number: int) -> int:
    """Of a number with 16 bits behind the point: -1, 0 or 1, the nearest."""
    return (number > 1 << 15) - (number < -(1 << 15))


def _number(data: Data, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "big")


def _table(data: Data, stbl: _Span, kind: bytes, signed: bool = False) -> np.ndarray:
    """A table of (how often, value), written out."""
    found = inside(data, *stbl, kind)
    if found is None:
        return np.zeros(0, np.int64)
    count = _number(data, found[0] + 4, 4)
    pairs = np.frombuffer(data, ">u4", min(2 * count, (found[1] - found[0] - 8) // 4), found[0] + 8).reshape(-1, 2)
    often = pairs[:, 0].astype(np.int64)
    if often.sum() > len(data):  # a frame has a byte at least
        raise DecodeError("the MP4 file's tables have more frames than it has bytes: it is damaged")
    return np.repeat(pairs[:, 1].astype(np.int32 if signed else np.uint32).astype(np.int64), often)


def _edits(data: Data, moov: _Span, trak: _Span, scale: int) -> Iterator[_Span]:
    """The part of the track that is shown, in its own clock, where its edit list says one."""
    found, movie = inside(data, *trak, b"edts", b"elst"), inside(data, *moov, b"mvhd")
    if found is None or movie is None:
        return
    own = _number(data, movie[0] + (20 if data[movie[0]] else 12), 4) or 1
    wide = 8 if data[found[0]] else 4
    each = []
    for i in range(min(_number(data, found[0] + 4, 4), (found[1] - found[0] - 8) // (2 * wide + 4))):
        at = found[0] + 8 + i * (2 * wide + 4)
        start = int.from_bytes(data[at + wide : at + 2 * wide], "big", signed=True)
        if start >= 0:  # else: nothing is shown for a while
            length = _number(data, at, wide)
            each.append((start, start + -(-length * scale // own) if length else 1 << 62))
    if len(each) == 1:
        yield each[0]


def _runs(data: Data, moov: _Span, fragments: list[_Span], track: int) -> tuple[np.ndarray, np.ndarray]:
    """The lengths of a track's frames in fragments, and how much later than they begin they are shown."""
    usual = 0
    for kind, start, _ in boxes(data, *(inside(data, *moov, b"mvex") or (0, 0))):
        if kind == b"trex" and _number(data, start + 4, 4) == track:
            usual = _number(data, start + 12, 4)
    lengths, late = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for fragment in fragments:
        for kind, start, end in boxes(data, *fragment):
            head = inside(data, start, end, b"tfhd") if kind == b"traf" else None
            if head is None or _number(data, head[0] + 4, 4) != track:
                continue
            flags, at = _number(data, head[0] + 1, 3), head[0] + 8
            at += 8 * bool(flags & 1) + 4 * bool(flags & 2)
            own = _number(data, at, 4) if flags & 8 else usual
            for run in (each for each in boxes(data, start, end) if each[0] == b"trun"):
                found = _run(data, run[1], run[2], own)
                lengths.append(found[0])
                late.append(found[1])
    return np.concatenate(lengths), np.concatenate(late)


def _run(data: Data, start: int, end: int, usual: int) -> tuple[np.ndarray, np.ndarray]:
    flags, count = _number(data, start + 1, 3), _number(data, start + 4, 4)
    at = start + 8 + 4 * bool(flags & 1) + 4 * bool(flags & 4)
    there = [each for each in (_DURATION, _SIZE, _FLAGS, _OFFSET) if flags & each]
    count = min(count, (end - at) // (4 * len(there))) if there else min(count, len(data))
    rows = np.frombuffer(data, ">u4", count * len(there), at).reshape(count, len(there))
    lengths = rows[:, there.index(_DURATION)].astype(np.int64) if flags & _DURATION else np.full(count, usual, np.int64)
    late = rows[:, there.index(_OFFSET)].astype(np.int32).astype(np.int64) if flags & _OFFSET else np.zeros(count, int)
    return lengths, late
