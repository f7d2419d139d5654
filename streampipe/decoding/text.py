"""Bytes to text: UTF-8, and what people save who do not know what that is."""

from __future__ import annotations

import codecs

from streampipe.counters import counters
from streampipe.errors import DecodeError

_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def decode_text(data: bytes) -> str:
    """UTF-8, with or without a byte order mark; else Windows-1252, counted under ``texts``.

    Bytes that Windows-1252 has no character for become U+FFFD.

    Raises:
        DecodeError: the bytes are UTF-16, or no text.

    >>> decode_text("caf\u00e9".encode("cp1252")) == decode_text("\ufeffcaf\u00e9".encode())
    True
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if data.startswith(_WIDE) or b"\0" in data:
            raise DecodeError(f"{len(data)} bytes are no UTF-8 text ({error}); save it as UTF-8") from error
    counters.add("texts", "read as cp1252 (not UTF-8)")
    return data.decode("cp1252", "replace")
