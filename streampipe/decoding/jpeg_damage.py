"""Whether what the JPEG codec complains about concerns the pixels.

libjpeg goes on behind damage with a warning, of which it keeps the first. Many warnings are about what no pixel depends
on: metadata, a missing end marker behind a whole scan, padding. So a file that it complains about is judged without
those: what is left is a warning about pixels, or none.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from streampipe.decoding.codec import Data
from streampipe.decoding.segments import FRAMES, SCAN, segments

ACCEPTED = "damaged images accepted"
END = b"\xff\xd9"
_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
_EXTRA = re.compile(r"(\d+) extraneous bytes before marker 0x([0-9a-f]{2})")
_ROUNDS = 8


class Verdict(NamedTuple):
    """A file, without what is harmless, and what is wrong with its pixels: empty if nothing is."""

    data: bytes
    damage: str


def judge(data: bytes, decode: Callable[[bytes], Any], fatal_is_damage: bool = True) -> Verdict:
    """What is left to complain about once padding is taken out. ``decode`` raises ValueError with the complaint.

    ``fatal_is_damage``: False says nothing about files that the codec does not decode at all.
    """
    problem = ""
    for _ in range(_ROUNDS):
        try:
            decode(data)
            return Verdict(data, "")
        except ValueError as error:
            problem = str(error)
        without = _without_padding(data, problem)
        if without is None:
            break
        data = without
    if not fatal_is_damage and not problem.startswith(("Corrupt", "Premature", "Inconsistent", "Warning")):
        return Verdict(data, "")
    return Verdict(data, problem)


def cleaned(data: Data) -> bytes:
    """The same pixels without metadata and junk between segments, and with an end.

    A progressive file without an end gets one where its scans give every bit of every coefficient: else some are lost.
    """
    kept, frame, scan = [b"\xff\xd8"], b"", None
    progressive = False
    for each in segments(data):
        body = bytes(data[each.start : each.end])
        if each.marker == SCAN:
            if not progressive and len(body) >= 3:
                body = body[:-3] + b"\x00\x3f\x00"  # sequential files have one choice, and some tools write others
            scan = each.end
        elif each.marker == 0xE0 and body.startswith(b"JFIF\0"):
            body = body[:5] + b"\x01\x01" + body[7:]
        elif (
            0xE0 <= each.marker <= 0xEF and not (each.marker == 0xEE and body.startswith(b"Adobe"))
        ) or each.marker == 0xFE:
            continue
        elif each.marker in FRAMES:
            frame, progressive = body, each.marker in _PROGRESSIVE
        kept.append(bytes((0xFF, each.marker)) + (len(body) + 2).to_bytes(2, "big") + body)
    if scan is None:
        return bytes(data)
    whole = b"".join(kept) + bytes(data[scan:])
    return whole if progressive and not _all_bits(frame, whole) else whole + END


def _all_bits(frame: bytes, data: bytes) -> bool:
    """Whether the scans of a progressive file give all bits of all 64 coefficients of its components.

    (ITU T.81, G.1)
    """
    lacking = {(each, k) for each in frame[6::3] for k in range(64)}
    at = 0
    while (at := data.find(b"\xff\xda", at)) >= 0:
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        head = data[at + 4 : at + 2 + size]
        if len(head) >= 6 and len(head) == 4 + 2 * head[0] and not head[-1] & 15:  # the last bits of these
            lacking -= {(each, k) for each in head[1:-3:2] for k in range(head[-3], min(head[-2], 63) + 1)}
        at += 2
    return not lacking


def _without_padding(data: bytes, problem: str) -> bytes | None:
    """The file without the bytes before a marker that the codec passed over, if they are padding: all the same.

    Of a scan that lost bytes the codec passes over the rest too, but that is not all the same.
    """
    found = _EXTRA.search(problem)
    if found is None:
        return None
    count, marker = int(found.group(1)), bytes((0xFF, int(found.group(2), 16)))
    if 0xD0 <= marker[1] <= 0xD7:  # restart markers stand inside a scan
        return None
    at = data.find(marker)
    while at >= 0:
        start = at - count
        if start > 0 and len(set(data[start:at])) == 1:
            return data[:start] + data[at:]
        at = data.find(marker, at + 2)
    return None
