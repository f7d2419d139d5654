"""Gzipped fields, inflated within a bound."""

from __future__ import annotations

import io
import zlib

from streampipe.errors import DecodeError

MAX_INFLATED = 256 << 20
"""Bytes that a .gz field, all of its layers together, or a .npz may inflate to."""
_FED = 1 << 16  # bytes at once: what stands behind a member is copied, and a piece may hold thousands of them


def gunzip(data: bytes | memoryview, most: int = MAX_INFLATED) -> bytes:
    """A gzipped field's content: all members that follow each other; zeros may stand behind the last one.

    Raises:
        DecodeError: it is damaged, ends too early, has something else behind it, or inflates to more than ``most``
            bytes.

    >>> import gzip
    >>> gunzip(gzip.compress(b"a ") + gzip.compress(b"cat"))
    b'a cat'
    """
    made, members, inflater = io.BytesIO(), 0, None
    view = memoryview(data)
    for start in range(0, len(view), _FED):
        rest = bytes(view[start : start + _FED])
        while rest:
            if inflater is None:
                rest = rest.lstrip(b"\0") if members else rest
                if not rest:
                    break
                inflater = zlib.decompressobj(wbits=31)
            try:
                piece = inflater.decompress(rest, most - made.tell() + 1)  # one more tells a full measure from too much
            except zlib.error as error:
                where = f" behind the first {members} members" if members else ""
                raise DecodeError(f"{len(data)} bytes are no sound gzip data{where} ({error})") from error
            made.write(piece)
            if made.tell() > most:
                raise DecodeError(f"{len(data)} bytes of gzip data inflate to more than {most} bytes, the most allowed")
            rest = inflater.unused_data
            if inflater.eof:
                members, inflater = members + 1, None
    if inflater is not None or not members:
        raise DecodeError(f"the gzip data of {len(data)} bytes ends too early")
    return made.getvalue()


def unwrapped(name: str, data: bytes | memoryview) -> tuple[str, bytes | memoryview]:
    """A field without its ``.gz`` layers: its name and its content, all layers together within ``MAX_INFLATED``.

    >>> import gzip
    >>> unwrapped("txt.gz.gz", gzip.compress(gzip.compress(b"a cat")))
    ('txt', b'a cat')
    """
    left = MAX_INFLATED
    while name.lower().endswith(".gz"):
        name, data = name[: -len(".gz")], gunzip(data, left)
        left -= len(data)
    if name.lower() == "gz":
        return "bytes", gunzip(data, left)
    return name, data
