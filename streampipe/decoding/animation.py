"""Animated GIFs: how many frames they have and how long they are shown, without decoding."""

from __future__ import annotations

import numpy as np

from streampipe.decoding.codec import Data
from streampipe.decoding.container import Track, VideoHeader, described
from streampipe.errors import DecodeError

_LEAST, _USUAL = 2, 10  # hundredths of a second: what is shown for less is shown for as long as browsers do


def recognises(head: bytes) -> bool:
    """Whether a file that begins so is a GIF."""
    return head[:6] in (b"GIF87a", b"GIF89a")


def header(data: Data) -> VideoHeader:
    """What the blocks say.

    Raises:
        DecodeError: the file ends too early.
    """
    try:
        delays = _delays(data)
    except IndexError:
        raise DecodeError(f"the GIF file ends early, after {len(data)} bytes") from None
    lengths = np.array([_USUAL if each < _LEAST else each for each in delays]) / 100
    width, height = (int.from_bytes(data[at : at + 2], "little") for at in (6, 8))
    return described("GIF", Track(height, width), np.stack([np.cumsum(lengths) - lengths, lengths], 1), False)


def _delays(data: Data) -> list[int]:
    """Of each frame, in hundredths of a second."""
    found, delay, at = list[int](), 0, 13 + _colours(data[10])
    while True:
        kind = data[at]
        if kind == 0x3B:
            return found
        if kind == 0x21:
            if data[at + 1] == 0xF9:
                delay = data[at + 4] | data[at + 5] << 8
            at += 2
        elif kind == 0x2C:
            found.append(delay)
            delay = 0
            at += 11 + _colours(data[at + 9])
        else:
            raise DecodeError(f"the GIF file has no block at byte {at}, where one should begin: it is damaged")
        while data[at]:
            at += data[at] + 1
        at += 1


def _colours(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0
