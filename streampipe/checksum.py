"""crc32 as zlib counts it, by zlib-ng: ten times as fast, so that checking a sample costs less than copying it."""

from __future__ import annotations

from collections.abc import Sequence

from zlib_ng.zlib_ng import crc32

_BLOCK = 512


def headers_crc32(data: bytes | memoryview, starts: Sequence[int], ends: Sequence[int]) -> int:
    """Of a piece of an archive, what stands in front of each field: its headers, and what else lies between fields.

    ``starts`` and ``ends``: the fields' bytes, counted from the beginning of ``data``.
    """
    found, at = 0, 0
    for start, end in zip(starts, ends, strict=True):
        found = crc32(data[at:start], found)
        at = end + (-end & (_BLOCK - 1))
    return found


__all__ = ["crc32", "headers_crc32"]
