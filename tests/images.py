"""Broken images, and a child process that decodes them: ``python -m tests.images SEED FILES_A_KIND``.

A codec that writes past a buffer may crash at once, much later, or never. So the process is one of its own, and the
memory that the fast codec is given has known bytes behind it, which are looked at.
"""

from __future__ import annotations

import random
import sys
import warnings

import numpy as np

import streampipe as sp
from streampipe.decoding import decode_image, jpeg
from tests.kinds import kinds_of

_BEHIND = 1 << 16
_SIZES = ((16, 16), (64, 9), None, (1, 1), (200, 300))
_memory = np.empty(0, np.uint8)


def guarded(size: int) -> np.ndarray:
    """Memory for the fast codec, with known bytes behind it."""
    global _memory
    _memory = np.full(size + _BEHIND, 0xA5, np.uint8)
    return _memory[:size]


def check_image(data: bytes, how: int) -> None:
    """Any bytes are decoded to the size that was asked for, or refused."""
    jpeg._buffer = guarded
    size = _SIZES[how % len(_SIZES)]
    options = {"damaged": ("error", "accept")[how // 8 % 2], "icc": "srgb", "labels": bool(how // 16 % 2)}
    options["interpolation"] = "nearest" if options["labels"] else "bicubic"
    try:
        found = decode_image(data, size=size, max_pixels=1 << 20, **options)
    except sp.DecodeError:
        found = None
    assert found is None or size is None or tuple(found.shape[1:]) == size
    assert (_memory[-_BEHIND:] == 0xA5).all(), "the codec wrote past its buffer"


def broken(data: bytes, rng: random.Random) -> bytes:
    """A file with some of its bytes changed, left out, or doubled; most of them in its header."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(min(len(changed), rng.choice((40, 200, len(changed)))))
        kind = rng.randrange(5)
        if kind == 0:
            changed[at] = rng.randrange(256)
        elif kind == 1:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            changed[at : at + 2] = rng.choice((b"\0\0", b"\xff\xff", b"\x7f\xff", b"\x80\0", b"\xff\xc3", b"\xff\xda"))
        elif kind == 3 and len(changed) > 60:
            del changed[at : at + rng.randint(1, 40)]
        else:
            changed[at:at] = changed[at : at + rng.randint(1, 40)]
    return bytes(changed)


def main(seed: int, rounds: int) -> None:
    rng = random.Random(seed)
    warnings.simplefilter("ignore")  # Pillow's about what it finds
    seeds = [data for name in ("jpeg", "jpeg", "png", "webp", "gif", "avif") for data in kinds_of(name).values()]
    for _ in range(rounds):
        for data in seeds:
            check_image(broken(data, rng), rng.randrange(256))
    print("alive")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
