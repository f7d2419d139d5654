"""Matroska and WebM files: what their elements say of their video, without decoding. (RFC 9559)

A file is walked element by element. Segments, clusters and groups of blocks are gone into, all else is passed over by
its size; so elements of unknown size, as live streams have them, need no care of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import unpack

import numpy as np

from streampipe.decoding.codec import Data
from streampipe.decoding.container import Track, VideoHeader, described
from streampipe.errors import DecodeError

_SEGMENT, _CLUSTER, _GROUP = 0x18538067, 0x1F43B675, 0xA0
_INTO = frozenset((_SEGMENT, _CLUSTER, _GROUP))
_INFO, _TRACKS, _TRACK = 0x1549A966, 0x1654AE6B, 0xAE
_SCALE, _TIME, _SIMPLE, _BLOCK = 0x2AD7B1, 0xE7, 0xA3, 0xA1
_NUMBER, _KIND, _CODEC, _LENGTH, _VIDEO = 0xD7, 0x83, 0x86, 0x23E383, 0xE0
_WIDTH, _HEIGHT, _BOTTOM, _TOP, _LEFT, _RIGHT = 0xB0, 0xBA, 0x54AA, 0x54BB, 0x54CC, 0x54DD
_MAGIC = b"\x1a\x45\xdf\xa3"
_Element = tuple[int, int, int]


def recognises(head: bytes) -> bool:
    """Whether a file that begins so is Matroska or WebM."""
    return head[:4] == _MAGIC


def header(data: Data) -> VideoHeader:
    """What the elements say.

    Raises:
        DecodeError: the file ends too early, or there is no video in it.
    """
    scale, cluster, track, audio, usual = 1_000_000, 0, None, False, 0
    number, hides, times = -1, False, list[int]()
    for kind, start, end in _walk(data):
        if kind == _INFO:
            scale = _uint(data, _first(data, start, end, _SCALE)) or scale
        elif kind == _TRACKS:
            for each, a, b in _inside(data, start, end):
                what = _uint(data, _first(data, a, b, _KIND)) if each == _TRACK else 0
                audio = audio or what == 2
                if what == 1 and track is None:
                    track = _track(data, a, b)
                    number, usual = (_uint(data, _first(data, a, b, kind)) for kind in (_NUMBER, _LENGTH))
                    codec = _first(data, a, b, _CODEC)
                    hides = codec is not None and bytes(data[codec[0] : codec[1]]) == b"V_VP8"
        elif kind == _TIME:
            cluster = _uint(data, (start, end))
        elif kind in (_SIMPLE, _BLOCK):
            mine, at = _varint(data, start)
            if mine == number and not (hides and not data[at + 3] & 0x10):  # VP8 has frames that are never shown
                times.append(cluster + int.from_bytes(data[at : at + 2], "big", signed=True))
    if track is None:
        raise DecodeError("the Matroska file has no video track")
    shown = np.sort(np.array(times, np.float64)) * (scale / 1e9)
    steps = np.diff(shown, append=np.nan)
    if len(steps):
        steps[-1] = usual / 1e9 if usual else steps[-2] if len(steps) > 1 else 0.0
    return described("Matroska", track, np.stack([shown, steps], 1), audio)


def _walk(data: Data) -> Iterator[_Element]:
    """All elements but those that are gone into: what they are, and where their contents begin and end."""
    at, total = 0, len(data)
    while at < total:
        kind, start, end = _element(data, at)
        if end is not None and end > total:
            raise DecodeError(f"the Matroska file ends early: {end} bytes are announced, {total} are there")
        if kind not in _INTO and end is None:
            raise DecodeError(f"the Matroska file has no size for the element at byte {at}: it is damaged")
        if kind in _INTO:
            at = start
        else:
            assert end is not None
            yield kind, start, end
            at = end


def _element(data: Data, at: int) -> tuple[int, int, int | None]:
    first = data[at]
    width = 9 - first.bit_length()
    if width > 4 or at + width >= len(data):
        raise DecodeError(f"the Matroska file has no element at byte {at}, where one should begin: it is damaged")
    kind = int.from_bytes(data[at : at + width], "big")
    size, start = _varint(data, at + width)
    unknown = size == (1 << 7 * (start - at - width)) - 1
    return kind, start, None if unknown else start + size


def _varint(data: Data, at: int) -> tuple[int, int]:
    """A number of variable length, and where it ends."""
    width = 9 - data[at].bit_length()
    if width > 8 or at + width > len(data):
        raise DecodeError(f"the Matroska file has no number at byte {at}, where one should be: it is damaged")
    return int.from_bytes(data[at : at + width], "big") & ((1 << 7 * width) - 1), at + width


def _inside(data: Data, at: int, end: int) -> Iterator[_Element]:
    while at < end:
        kind, start, stop = _element(data, at)
        if stop is None or stop > end:
            raise DecodeError(f"the Matroska file's element at byte {at} is larger than what it is in: it is damaged")
        yield kind, start, stop
        at = stop


def _first(data: Data, at: int, end: int, wanted: int) -> tuple[int, int] | None:
    return next(((start, stop) for kind, start, stop in _inside(data, at, end) if kind == wanted), None)


def _uint(data: Data, where: tuple[int, int] | None) -> int:
    return int.from_bytes(data[where[0] : where[1]], "big") if where else 0


def _track(data: Data, at: int, end: int) -> Track:
    """The size of a video as it is shown."""
    video = _first(data, at, end, _VIDEO)
    if video is None:
        raise DecodeError("the Matroska file's video track has no size: it is damaged")
    top, bottom, left, right = (_uint(data, _first(data, *video, each)) for each in (_TOP, _BOTTOM, _LEFT, _RIGHT))
    height, width = (_uint(data, _first(data, *video, each)) for each in (_HEIGHT, _WIDTH))
    return Track(height - top - bottom, width - left - right, _turned(data, video))


def _turned(data: Data, video: tuple[int, int]) -> int:
    """The EXIF orientation of a projection that is a mere turn."""
    found = _first(data, *video, 0x7670)
    if found is None:
        return 1
    roll, yaw, pitch = (_float(data, _first(data, *found, each)) for each in (0x7675, 0x7673, 0x7674))
    if pitch or yaw not in (0, 180, -180) or roll % 90:
        return 1
    plain = {0: 1, 90: 8, 180: 3, 270: 6}[int(roll) % 360]
    return {1: 2, 8: 7, 3: 4, 6: 5}[plain] if yaw else plain


def _float(data: Data, where: tuple[int, int] | None) -> float:
    if where is None or where[1] - where[0] not in (4, 8):
        return 0.0
    return float(unpack(">f" if where[1] - where[0] == 4 else ">d", bytes(data[where[0] : where[1]]))[0])
