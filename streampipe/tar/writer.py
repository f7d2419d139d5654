"""Writing shards: the same samples always give the same bytes, and what is written reads back as what was meant.

No file is opened here: a ``TarWriter`` is given a function that writes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

from streampipe.errors import ConfigError, DuplicateKey, UnsafeName
from streampipe.tar.header import BLOCK, sum_of
from streampipe.tar.names import JUNK, JUNK_FIELDS, passed_over

END = bytes(2 * BLOCK)
RECORD = 10_240  # archives are filled up to a multiple of this, as tar does
_PLAIN_KEY = re.compile(r"(?!__)[\w+-]+(/[\w+-]+)*", re.ASCII)
"""What keys nearly always are, in which there is nothing to refuse."""
_OCTAL_SIZE = 8 << 30  # sizes from here on need more than eleven octal digits
_SMALL = 8 << 10  # bytes of a field that is copied, to be handed over with what stands around it


class Field(NamedTuple):
    """Where the bytes of one field stand in the archive."""

    offset: int
    size: int


class Written(NamedTuple):
    """Where a sample stands in the archive: its first header, all its bytes, its fields."""

    key: str
    offset: int
    size: int
    fields: dict[str, Field]


def padding(size: int) -> bytes:
    """The zeros that fill up the last block of ``size`` bytes.

    >>> len(padding(1000))
    24
    """
    return bytes(-size % BLOCK)


def header_bytes(name: str, size: int, mtime: int = 0, mode: int = 0o444) -> bytes:
    """The header or headers of a regular file: ustar; a PAX header before it only where ustar cannot say it.

    >>> len(header_bytes("0001.jpg", 5)), len(header_bytes("ü.jpg", 5))
    (512, 1536)
    """
    raw = name.encode()
    if len(raw) <= 100 and size < _OCTAL_SIZE and name.isascii():  # nearly always
        return _ustar((b"", raw), size, mtime, mode, b"0")
    split = _split(raw)
    records = b""
    if split is None or not name.isascii():
        records += _record(b"path", raw)
        split = split or (b"", raw[:100])
    if size >= _OCTAL_SIZE:
        records += _record(b"size", b"%d" % size)
    plain = _ustar(split, size if size < _OCTAL_SIZE else 0, mtime, mode, b"0")
    if not records:
        return plain
    before = _ustar((b"", b"PaxHeader"), len(records), mtime, mode, b"x")
    return before + records + padding(len(records)) + plain


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """(prefix, name) as ustar stores a name of up to 256 bytes, split at a slash; None if it does not fit."""
    if len(name) <= 100:
        return b"", name
    slash = name.rfind(b"/", 0, 156)
    first = name.find(b"/", max(0, len(name) - 101))
    at = first if 0 < first <= slash else -1
    return (name[:at], name[at + 1 :]) if at > 0 and len(name) - at - 1 <= 100 else None


def _record(keyword: bytes, value: bytes) -> bytes:
    """One PAX record; its length counts its own digits."""
    rest = b" " + keyword + b"=" + value + b"\n"
    length = len(rest)
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d" % length + rest


def _ustar(name: tuple[bytes, bytes], size: int, mtime: int, mode: int, kind: bytes) -> bytes:
    prefix, last = name
    digits = b"%011o" % size
    owner, time, rest, total = _always(mtime, mode, kind, prefix)
    return b"%b%b%b%b%06o\0 %b" % (last.ljust(100, b"\0"), owner, digits, time, total + sum_of(last + digits), rest)


@lru_cache(16)
def _always(mtime: int, mode: int, kind: bytes, prefix: bytes) -> tuple[bytes, bytes, bytes, int]:
    """The parts of a header that are the same for all files of a folder: before the size, behind it, behind the
    checksum; and what they add to that.
    """
    owner = b"%07o\0" % mode + b"0000000\0" * 2  # user and group by number
    time = b"\0%011o\0" % mtime
    names = b"bigdata".ljust(32, b"\0") * 2  # user and group by name, as webdataset's writer has it
    rest = kind + bytes(100) + b"ustar\x0000" + names + b"0000000\0" * 2
    total = sum_of(owner) + sum_of(time) + sum_of(rest) + sum_of(prefix) + sum_of(b" " * 8)
    return owner, time, rest + prefix.ljust(167, b"\0"), total


class TarWriter:
    """Writes samples as members ``key.field``, fields in sorted order, through ``write``.

    >>> import io
    >>> file = io.BytesIO()
    >>> shard = TarWriter(file.write)
    >>> shard.add("0001", {"txt": "a cat", "cls": "3"}).fields["txt"]
    Field(offset=1536, size=5)
    >>> shard.close()
    >>> len(file.getvalue())
    10240
    """

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._keys: set[str] = set()
        self._fields: set[str] = set()  # those that were found to be right
        self.offset = 0

    def add(self, key: str, fields: Mapping[str, bytes | str], mtime: int = 0) -> Written:
        """Write one sample; text as UTF-8. Nothing is written if any of it is refused.

        Raises:
            UnsafeName: a key or field that would read back as another one, or is absolute, climbs, or is reserved.
            DuplicateKey: the key is in this shard already.
            ConfigError: a sample without fields, a value that is neither bytes nor text, a negative time.
        """
        check_key(key)
        if key in self._keys:
            raise DuplicateKey(f"key {key!r} is in this shard already; keys must be unique")
        if not fields:
            raise ConfigError(f"sample {key!r} has no fields; there is nothing to write")
        if not 0 <= mtime < _OCTAL_SIZE:
            raise ConfigError(f"sample {key!r}: mtime is a number of seconds since 1970, not {mtime}")
        payloads: list[tuple[str, bytes]] = []
        for field, value in sorted(fields.items()):
            if field not in self._fields:
                check_field(key, field)
                if field not in JUNK_FIELDS:  # which are right under most keys, and not under all
                    self._fields.add(field)
            payloads.append((field, value if type(value) is bytes else _payload(key, field, value)))
        start = at = self.offset
        places: dict[str, Field] = {}
        small: list[bytes] = []  # handed over together: each piece is a call of all that look at what is written
        for field, payload in payloads:
            size = len(payload)
            small.append(header := header_bytes(f"{key}.{field}", size, mtime))
            at += len(header)
            places[field] = Field(at, size)
            if size <= _SMALL:
                small.append(payload)
            else:
                self._write(b"".join(small))
                self._write(payload)
                small.clear()
            if more := -size % BLOCK:
                small.append(bytes(more))
            at += size + more
        if small:
            self._write(b"".join(small))
        self.offset = at
        self._keys.add(key)
        return Written(key, start, self.offset - start, places)

    def close(self) -> None:
        """Write the end marker and fill up the last record."""
        self._put(END)
        self._put(bytes(-self.offset % RECORD))

    def _put(self, data: bytes) -> None:
        self._write(data)
        self.offset += len(data)


def check_key(key: str) -> None:
    """Refuse a key that would not read back as itself.

    >>> check_key("img1.5")
    Traceback (most recent call last):
        ...
    streampipe.errors.UnsafeName: key 'img1.5' has a dot in its last part: readers would take 'img1' for the key; ...
    """
    if _PLAIN_KEY.fullmatch(key) and "PaxHeader" not in key:
        return
    base = key.rpartition("/")[2]
    if "." in base:
        short = key[: len(key) - len(base)] + base.partition(".")[0]
        raise UnsafeName(
            f"key {key!r} has a dot in its last part: readers would take {short!r} for the key; replace the dot"
        )
    if not base or key.startswith("/") or ".." in key.split("/") or any(char in key for char in "\0\n\r"):
        raise UnsafeName(f"key {key!r} is empty, absolute, climbs with '..' or holds a control character; rename it")
    if passed_over(key if "/" in key else key + "/") == "reserved names":
        raise UnsafeName(f"key {key!r} looks like webdataset's reserved names (__x__), which readers skip; rename it")
    if passed_over(key) == "PaxHeaders":
        raise UnsafeName(f"key {key!r} looks like extended headers that were unpacked, which readers skip; rename it")
    if not _is_text(key):
        raise UnsafeName(f"key {key!r} is no valid text (UTF-8); rename it")


def check_field(key: str, field: str) -> None:
    """Refuse a field name that would not read back as itself."""
    if not field or field != field.lower() or "/" in field or any(char in field for char in "\0\n\r"):
        raise UnsafeName(
            f"sample {key!r}: field {field!r} is empty, has upper-case letters (read back as lower case), a slash or a "
            f"control character; rename it"
        )
    if f"{key.rpartition('/')[2]}.{field}" in JUNK:
        raise UnsafeName(
            f"sample {key!r}: with field {field!r} it is called as what systems put into every folder, which readers "
            f"skip; rename one of the two"
        )
    if not _is_text(field):
        raise UnsafeName(f"sample {key!r}: field {field!r} is no valid text (UTF-8); rename it")
    if field.startswith("__"):
        raise UnsafeName(f"sample {key!r}: field {field!r} is metadata and never written; leave it out or rename it")


def _is_text(name: str) -> bool:
    """Whether a name can be written: one with half of a pair of characters cannot."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _payload(key: str, field: str, value: object) -> bytes:
    if isinstance(value, str):
        try:
            return value.encode("utf-8")
        except UnicodeEncodeError:
            raise ConfigError(
                f"sample {key!r}: field {field!r} is no valid text (UTF-8); give its bytes, or mend it"
            ) from None
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise ConfigError(
        f"sample {key!r}: field {field!r} is a {type(value).__name__}; encode it to bytes or text before it is written"
    )
