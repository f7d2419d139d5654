"""One 512-byte tar header: its checksum and its numbers. POSIX.1-2017, "ustar Interchange Format"."""

from __future__ import annotations

from zlib import adler32

BLOCK = 512
ZERO_BLOCK = bytes(BLOCK)
_SPACES = 8 * 32  # the checksum field counts as eight spaces


def stored_checksum(block: bytes) -> int | None:
    """The checksum that a header states; None if the field is not written as writers write it.

    Forms: ``dddddd\\0 `` (nearly all), ``dddddd \\0``, ``dddddd\\0\\0``, seven digits and one end; zeros or spaces in
    front. Spaces in front count only if the size has them too, because one flipped bit makes a ``0`` a space.
    """
    field = block[148:156]
    if field[6:] not in (b"\0 ", b" \0", b"\0\0") and not (field[6:7].isdigit() and field[7] in (0, 32)):
        return None
    if field[:1] == b" " and (block[124:125] == b"0" or b" 0" in field[:6]):
        return None
    return octal(field) if field.strip(b"\0 ") else None


def checksum(block: bytes) -> int:
    """The sum of a header's bytes, its checksum field taken as spaces."""
    return sum_of(block[:148]) + sum_of(block[156:412]) + sum_of(block[412:512]) + _SPACES


def sum_of(piece: bytes) -> int:
    """The sum of at most 256 bytes.

    The low half of adler32 is one more than the sum of its input modulo 65521. A piece so short stays below that, so
    it is exact, at a tenth of the cost of adding in Python.
    """
    return (adler32(piece) & 0xFFFF) - 1


def signed_checksum(block: bytes) -> int:
    """The same sum with bytes as signed numbers: what some historical writers stored."""
    return checksum(block) - 256 * sum(byte > 127 for byte in block[:148] + block[156:])


def is_header(block: bytes) -> bool:
    """Whether a block is a sound header: its checksum is the one that it states."""
    stored = stored_checksum(block)
    return stored is not None and stored in (checksum(block), signed_checksum(block))


def octal(field: bytes) -> int | None:
    """A number of octal digits with spaces before and spaces or NULs after it; None for anything else.

    >>> octal(b"0000644\\0"), octal(b"   17 \\0"), octal(b"+17\\0"), octal(b"1_7\\0"), octal(b"8\\0"), octal(b"\\0" * 8)
    (420, 15, None, None, None, 0)
    """
    digits = field.rstrip(b"\0 ").lstrip(b" ")
    if not digits:
        return 0
    if not digits.isdigit():
        return None
    try:
        return int(digits, 8)
    except ValueError:
        return None


def number(field: bytes) -> int | None:
    """A header's number: octal, or GNU's base-256 (first bit set, two's complement); None if it is neither.

    >>> number(b"\\x80" + bytes(6) + b"\\x01\\x00\\x00\\x00\\x00")
    4294967296
    """
    if field and field[0] in (0x80, 0xFF):
        value = int.from_bytes(field[1:], "big")
        return value - (1 << (8 * (len(field) - 1))) if field[0] == 0xFF else value
    return octal(field)


class _ExpectedSums(dict[bytes, int]):
    """For a checksum field as nearly all writers write it: adler32's low half over a sound block, field included."""

    def __missing__(self, field: bytes) -> int:
        if field[6:] != b"\0 " or not field[:6].isdigit() or octal(field) is None:
            return -1  # an unusual form: the caller looks closer
        expected = (octal(field) or 0) - _SPACES + sum(field) + 1
        if len(self) < 1 << 16:
            self[field] = expected
        return expected


EXPECTED_SUMS = _ExpectedSums()
