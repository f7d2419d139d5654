"""Bytes to text and to json: UTF-8, and what people save who do not know what that is. One rule for every reader."""

from __future__ import annotations

import codecs
import json
import re
from typing import Any

from streampipe.counters import counters
from streampipe.decoding.extensions import JSONS, extension_of
from streampipe.decoding.inflate import MAX_INFLATED, unwrapped
from streampipe.errors import DecodeError

_MARKS = (  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
LINE_END = re.compile(r"\r\n|\n|\r")
"""Where a line of a text ends: on Unix, on Windows, on old Macs."""
_SMALL = 1 << 20  # a json text whose objects cannot take much


def decode_text(data: bytes | memoryview) -> str:
    """UTF-8, with or without a byte order mark; UTF-16 and UTF-32 with one; else Windows-1252.

    A UTF-8 text that was cut or damaged stays UTF-8: each damaged character becomes U+FFFD. It is one where it has no
    more damaged places than sound characters of several bytes, or where only its very end is half a character. That,
    and what is read as Windows-1252, is counted under ``texts``.

    Raises:
        DecodeError: the bytes are no text: there are NULs among them, or a byte order mark lies.

    >>> decode_text("café".encode("cp1252")) == decode_text("\\ufeffcafé".encode()) == "café"
    True
    >>> decode_text("two cafés, naïve".encode().replace(b"\\xaf", b"")) == "two cafés, na\\ufffdve"
    True
    """
    data = bytes(data)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        text = _of_others(data, error)
    if "\0" in text:
        raise DecodeError(
            f"{len(data)} bytes are no text: byte {data.find(0)} is a NUL (UTF-16 without a byte order mark?); save it "
            f"as UTF-8"
        )
    return text[1:] if text[:1] == "\ufeff" else text


def _of_others(data: bytes, error: UnicodeDecodeError) -> str:
    """What is no sound UTF-8."""
    kind = next((kind for mark, kind in _MARKS if data.startswith(mark)), None)
    if kind is not None:
        try:
            return data.decode(kind)
        except UnicodeDecodeError as wrong:
            raise DecodeError(
                f"{len(data)} bytes begin as {kind} text, but are none ({wrong}); save it as UTF-8"
            ) from wrong
    if b"\0" not in data:
        text = data.decode(errors="replace")
        damaged = text.count("\ufffd") - data.count(b"\xef\xbf\xbd")
        longer = len(text) - len(text.encode("ascii", "ignore")) - damaged  # characters of several bytes
        if longer >= damaged or _ends_in_half(data, error):
            counters.add("texts", "with damaged UTF-8")
            return text
        counters.add("texts", "read as cp1252 (not UTF-8)")
    return data.decode("cp1252", "replace")


def _ends_in_half(data: bytes, error: UnicodeDecodeError) -> bool:
    """Whether a text is ASCII up to half a character at its end that no Windows-1252 text ends in.

    A single half must be of a Latin letter: in Windows-1252 a capital A with an accent behind a small letter. Longer
    ones are of symbols and emoji; those of other scripts could be an accented letter and a closing quotation mark.
    """
    if error.reason != "unexpected end of data" or not data[: error.start].isascii():
        return False
    half = data[error.start :]
    if len(half) == 1:
        return half in (b"\xc2", b"\xc3") and data[: error.start][-1:].islower()
    return half[0] == 0xE2 or half[0] >= 0xF0


def decode_json(data: bytes | memoryview, most: int = MAX_INFLATED) -> Any:
    """The value of a json text, in any encoding that ``decode_text`` reads. NaN and Infinity are read as numbers.

    Raises:
        DecodeError: it is no text or no sound json, or its objects could take more than ``most`` bytes.

    >>> decode_json('{"n": NaN}'.encode("utf-16"))
    {'n': nan}
    """
    data = bytes(data)
    detected = json.detect_encoding(data) if b"\0" in data else "utf-8"
    try:
        text = decode_text(data) if detected in ("utf-8", "utf-8-sig") else data.decode(detected)
        check_parsed(data, most)
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        if isinstance(error, DecodeError):
            raise
        raise DecodeError(f"{len(data)} bytes are no sound json ({error})") from error


def check_parsed(data: bytes, most: int) -> None:
    """Refuse a json text whose objects could take more than ``most`` bytes.

    A text grows up to thirty times when it becomes Python's objects. So what they can take at most is counted before.
    """
    if len(data) <= min(_SMALL, most // 32):
        return
    wide = 4 if b"\\u" in data or not data.isascii() else 1
    lists, objects, values = data.count(b"["), data.count(b"{"), data.count(b",") + data.count(b":")
    size = wide * len(data) + 40 * data.count(b'"') + 90 * lists + 250 * objects + 40 * values
    if size > most:
        raise DecodeError(
            f"{len(data)} bytes of json could take {size} bytes as objects, at most {most} are allowed; store large "
            f"tables as .npy, .safetensors or Parquet"
        )


def decode_text_or_json(name: str, data: bytes | memoryview) -> Any:
    """The value of a field that is a text, or json by the last part of its name; ``.gz`` layers are taken off."""
    name, data = unwrapped(name, data)
    return decode_json(data) if extension_of(name) in JSONS else decode_text(data)
