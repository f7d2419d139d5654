"""Extended headers: PAX records and GNU long names. They stand before the header that they speak of."""

from __future__ import annotations

import re

_NUMBER = re.compile(rb"-?\d+(\.\d*)?([eE][-+]?\d+)?\Z")
_SIZE = re.compile(rb"\d{1,19}\Z")


class Malformed(ValueError):
    """An extended header that breaks its own syntax; the reader says where."""


def pax_records(data: bytes) -> dict[str, bytes]:
    """The records ``LENGTH KEYWORD=VALUE\\n`` of a PAX header, in one linear pass.

    >>> pax_records(b"19 mtime=1700000.5\\n")
    {'mtime': b'1700000.5'}
    """
    records: dict[str, bytes] = {}
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 11)
        digits = data[at:space] if space > 0 else b""
        if not digits.isdigit():
            raise Malformed("a PAX record does not begin with its length")
        end = at + int(digits)
        equals = data.find(b"=", space + 1, end)
        if end > len(data) or equals < 0 or data[end - 1] != 10:
            raise Malformed("a PAX record is not 'LENGTH KEYWORD=VALUE' and a line break, as long as it says")
        keyword = data[space + 1 : equals]
        if not keyword:
            raise Malformed("a PAX record has no keyword")
        records[keyword.decode("utf-8", "surrogateescape")] = data[equals + 1 : end - 1]
        at = end
    return records


def checked(records: dict[str, bytes]) -> dict[str, bytes]:
    """The records, if a size among them is one. All others may be anything: they are not used, or used as they are."""
    if records.get("size") and not _SIZE.match(records["size"]):
        raise Malformed(f"the PAX record size={records['size']!r} is no size")
    return records


def joined(before: dict[str, bytes], after: dict[str, bytes]) -> dict[str, bytes]:
    """Records with those of a later header. An empty value takes an earlier one back (POSIX.1-2017, pax).

    >>> joined({"path": b"a", "size": b"1"}, {"path": b"", "size": b"2"})
    {'size': b'2'}
    """
    both = {**before, **after}
    return both if all(both.values()) else {name: value for name, value in both.items() if value}


def is_number(value: bytes) -> bool:
    """Whether a PAX time is a number as POSIX has it, or as Python writes a float."""
    return _NUMBER.match(value) is not None


def is_plain_mtime(data: bytes) -> bool:
    """Whether a PAX header is one sound ``mtime`` record, as webdataset's writer puts before every member."""
    return len(data) < 100 and data.startswith(b"%d mtime=" % len(data)) and is_mtime_end(data)


def is_mtime_end(record: bytes) -> bool:
    """Whether a record that begins ``NN mtime=`` ends as one: a plain number, a line break."""
    return record[-1] == 10 and record[9:-1].replace(b".", b"", 1).isdigit()
