"""ISO media files (AVIF, HEIC, JPEG 2000, JPEG XL are made of the same boxes): what a header needs of them."""

from __future__ import annotations

from collections.abc import Iterator

from streampipe.decoding.codec import Data

_MOST = 1000  # boxes side by side


def brands(head: bytes) -> list[bytes]:
    """The brands of a file's first box: the main one, and those that it is compatible with."""
    if head[4:8] != b"ftyp":
        return []
    body = head[8 : min(len(head), int.from_bytes(head[:4], "big"))]
    return [body[:4], *(body[at : at + 4] for at in range(8, len(body) - 3, 4))]


def boxes(data: Data, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, end) of the bodies of the boxes in a part of a file."""
    for _ in range(_MOST):
        if at + 8 > end:
            return
        size, body = int.from_bytes(data[at : at + 4], "big"), at + 8
        if size == 1:
            size, body = int.from_bytes(data[at + 8 : at + 16], "big"), at + 16
        stop = end if size == 0 else at + size
        if stop < body or stop > end:
            return
        yield bytes(data[at + 4 : at + 8]), body, stop
        at = stop


def inside(data: Data, at: int, end: int, *path: bytes) -> tuple[int, int] | None:
    """The body of the first box of each kind of a path, each in the one before it."""
    for kind in path:
        found = next(((start, stop) for name, start, stop in boxes(data, at, end) if name == kind), None)
        if found is None:
            return None
        at, end = found[0] + (4 if kind == b"meta" else 0), found[1]  # meta has a version in front of its boxes
    return at, end


def heif_size(data: Data) -> tuple[int, int] | None:
    """(height, width) of the main picture of a HEIF file as shown, after its rotation box."""
    meta = inside(data, 0, len(data), b"meta")
    main = meta and inside(data, *meta, b"pitm")
    shelf = meta and inside(data, *meta, b"iprp", b"ipco")
    ties = meta and inside(data, *meta, b"iprp", b"ipma")
    if not main or not shelf or not ties:
        return None
    version = data[main[0]]
    item = int.from_bytes(data[main[0] + 4 : main[0] + (6 if version == 0 else 8)], "big")
    properties = list(boxes(data, *shelf))
    size = None
    turned = False
    for number in _tied(data, *ties, item):
        if not 1 <= number <= len(properties):
            continue
        kind, at, _ = properties[number - 1]
        if kind == b"ispe":
            size = int.from_bytes(data[at + 8 : at + 12], "big"), int.from_bytes(data[at + 4 : at + 8], "big")
        elif kind == b"irot":
            turned = bool(data[at] & 1)
        elif kind == b"clap":  # a part of it, in fractions
            parts = [int.from_bytes(data[at + 4 * i : at + 4 * i + 4], "big") for i in range(4)]
            size = (parts[2] // parts[3], parts[0] // parts[1]) if parts[1] and parts[3] else None
    return size[::-1] if size and turned else size


def _tied(data: Data, at: int, end: int, item: int) -> Iterator[int]:
    """The numbers of the properties that belong to an item. (ISO/IEC 23008-12, 9.3)"""
    version, wide = data[at], data[at + 3] & 1
    width = 2 if version == 0 else 4
    count, at = int.from_bytes(data[at + 4 : at + 8], "big"), at + 8
    for _ in range(min(count, _MOST)):
        mine = int.from_bytes(data[at : at + width], "big") == item
        number, at = int.from_bytes(data[at + width : at + width + 1], "big"), at + width + 1
        for _ in range(number):
            if at >= end:
                return
            if mine:
                yield int.from_bytes(data[at : at + 1 + wide], "big") & (0x7FFF if wide else 0x7F)
            at += 1 + wide


def without_exif(data: Data) -> bytes:
    """A file whose EXIF item is no longer called so, and is passed over."""
    meta = inside(data, 0, len(data), b"meta")
    if meta is None:
        return bytes(data)
    start, end = meta
    return bytes(data[:start]) + bytes(data[start:end]).replace(b"Exif", b"skip") + bytes(data[end:])
