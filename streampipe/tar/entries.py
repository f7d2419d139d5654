"""One entry of an archive after the other: a member with the extended headers before it. No I/O, no buffering."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from zlib import adler32

from streampipe.counters import counters
from streampipe.errors import CorruptShard, LimitExceeded, TruncatedShard, UnsafeName, UnsupportedMember
from streampipe.tar.extended import (
    Malformed,
    checked,
    is_mtime_end,
    is_number,
    is_plain_mtime,
    joined,
    pax_records,
)
from streampipe.tar.foreign import what_it_is
from streampipe.tar.header import BLOCK, EXPECTED_SUMS, ZERO_BLOCK, is_header, number
from streampipe.tar.limits import Limits

_REGULAR = frozenset((b"0", b"\0", b"7"))
_EXTENDED = frozenset((b"x", b"g", b"X", b"L", b"K"))  # X: Solaris' x
_PASSED = {b"D": "GNU directories", b"V": "volume labels", b"A": "access control lists"}
"""Entries that hold nothing of a sample, by the names under which they are counted."""
_EMPTY = frozenset((b"1", b"2", b"3", b"4", b"6"))
"""Links and devices: nothing stands behind their headers."""
_NOT_FILES = {b"3": "character device", b"4": "block device", b"6": "fifo", b"S": "sparse file"}
_TERMINATORS = (0, 32)
_USED = frozenset(("path", "size", "mtime", "linkpath"))
_SPARSE = "GNU.sparse."
_MOST_PAX = 64  # headers that are remembered
_NO_RECORDS: dict[str, bytes] = {}


class Member:
    """One file of an archive: its name and bytes, and where they stand in it."""

    __slots__ = ("_mtime", "data", "data_offset", "name", "offset", "size")

    def __init__(
        self, name: str, data: memoryview | bytes, size: int, offset: int, data_offset: int, mtime: bytes
    ) -> None:
        self.name = name
        self.data = data
        self.size = size
        self.offset = offset  # of the member's first header, extended headers included
        self.data_offset = data_offset
        self._mtime = mtime  # a header's field, or a PAX value with a "=" before it

    @property
    def mtime(self) -> float:
        """Seconds since 1970, fractional where a PAX header says so."""
        if self._mtime[:1] == b"=":
            return float(self._mtime[1:] or 0)
        return float(number(self._mtime) or 0)

    def __repr__(self) -> str:
        return f"Member({self.name!r}, {self.size} bytes at {self.data_offset})"


class Short(Exception):
    """The data ends too early: ``need`` bytes are needed to go on, for ``what``."""

    def __init__(self, need: int, what: str) -> None:
        self.need = need
        self.what = what


class MissingEnd(TruncatedShard):
    """Nothing is wrong with an archive but that its end marker is not there, or not whole."""


class End(Exception):
    """The end marker was read; ``at`` is the first byte behind it."""

    def __init__(self, at: int) -> None:
        self.at = at


def first_non_zero(data: memoryview | bytes) -> int | None:
    """The number of the first byte that is not zero."""
    for start in range(0, len(data), 1 << 16):
        piece = bytes(data[start : start + (1 << 16)])
        if rest := piece.lstrip(b"\0"):
            return start + len(piece) - len(rest)
    return None


class Entries:
    """Parses one entry after the other: a member with the extended headers before it."""

    def __init__(self, shard: str, limits: Limits) -> None:
        self.shard = shard
        self.limits = limits
        self.common: dict[str, bytes] = _NO_RECORDS  # of PAX global headers
        self.earlier: Callable[[str], Member | None] | None = None  # finds what a hard link leads to
        # Sound blocks of short PAX headers, which writers repeat byte for byte: how a lone mtime record of that size
        # begins, and the size. One for each number of digits that a time has.
        self._pax: dict[bytes, tuple[bytes, int]] = {}

    def next(self, view: memoryview, raw: Any, at: int, base: int) -> tuple[Member | None, int]:
        """The entry at ``view[at]`` (None for a directory) and where the next one begins. Raises Short or End.

        ``raw`` is what ``view`` shows; slices of it are bytes, without a view between.
        """
        # Strategy: a member of an archive costs as many calls as stand here, so what nearly all headers are is decided
        # in place: a block of ASCII with a right sum, an octal size, a name that needs no check. What is rare (extended
        # headers, names and kinds to look at, errors) is in the methods below, each of which is called for it alone.
        start, total = at, len(view)
        records, long_name, mtime = self.common, None, b""
        while True:
            blocks = raw[at : at + 3 * BLOCK]
            block = blocks[:BLOCK]
            pax = self._pax.get(block)
            if pax is not None and len(blocks) == 3 * BLOCK:
                begins, pax_size = pax
                end = BLOCK + pax_size
                record = blocks[BLOCK:end]
                if (
                    record.startswith(begins)
                    and is_mtime_end(record)
                    and blocks[end : 2 * BLOCK] == ZERO_BLOCK[pax_size:]
                ):
                    mtime, at, block = record[8:-1], at + 2 * BLOCK, blocks[2 * BLOCK :]
            data_at = at + BLOCK
            if data_at > total:
                raise Short(data_at - start, "in a header")
            # All bytes below 128: the sum of the block is below 65521, so adler32 gives it exactly.
            if not block.isascii() or adler32(block) & 0xFFFF != EXPECTED_SUMS[block[148:156]]:
                if block == ZERO_BLOCK:
                    self._end(view, at, start, base)
                self._verify(block, base + at)
            digits = block[124:135]
            try:
                size = int(digits, 8) if digits.isdigit() and block[135] in _TERMINATORS else -1
            except ValueError:  # an 8 or a 9
                size = -1
            if size < 0:
                size = self._size(block[124:136], base + at)
            kind = block[156:157]
            if kind not in _EXTENDED:
                break
            after = data_at + size + (-size & 511)
            payload = self._payload(view, data_at, size, after, start, base)
            if kind == b"x" and is_plain_mtime(payload):
                mtime = payload[8:-1]
                if len(self._pax) < _MOST_PAX:
                    self._pax[block] = payload[:9], size
            else:
                records, long_name = self._extended(kind, payload, records, long_name, base + at)
            at = after
        if records:
            size = int(records.get("size", size))
            if "mtime" in records and not mtime and is_number(records["mtime"]):
                mtime = b"=" + records["mtime"]
        if records or long_name is not None or block[345] or not block.isascii():
            name = self._name(block, records, long_name)
        else:
            name = block[:100].partition(b"\0")[0].decode()
        if not name or name[0] == "/" or ".." in name or not name.isprintable():
            if kind in _PASSED or kind == b"5":
                name = "./"  # of what is passed over no name is used
            self._check_name(name, base + start)
        if kind not in _REGULAR or records:
            size, linked = self._special(kind, name, block, records, size, base + start)
            if linked is not None:
                where = base + start, linked.data_offset
                return Member(name, linked.data, linked.size, *where, mtime or block[136:148]), data_at
            if kind not in _REGULAR:
                name = "./"  # passed over as a directory is
        if size > self.limits.max_member_bytes:
            raise self._too_large(base + start, f"member {name!r}", size, "max_member_bytes")
        end = data_at + size
        after = end + (-size & 511)
        if after > total:
            raise Short(after - start, f"inside {name!r} (of {size} bytes)")
        if name[-1] == "/":  # version 7 archives mark directories by their names
            return None, after
        return Member(name, view[data_at:end], size, base + start, base + data_at, mtime or block[136:148]), after

    def _payload(self, view: memoryview, at: int, size: int, after: int, start: int, base: int) -> bytes:
        """What an extended header holds: ``size`` bytes at ``view[at]``."""
        if (whole := at - BLOCK - start + size) > self.limits.max_header_bytes:
            raise self._too_large(base + at - BLOCK, "extended headers before one member", whole, "max_header_bytes")
        if after > len(view):
            raise Short(after - start, "in an extended header")
        return view[at : at + size].tobytes()

    def _end(self, view: memoryview, at: int, start: int, base: int) -> None:
        """A block of zeros at ``at``: raise End if it is the end marker, or the error that it is."""
        if at != start:
            raise self._corrupt(base + at, "zeros where the header should be that an extended header speaks of")
        if at + 2 * BLOCK > len(view):
            raise Short(at + 2 * BLOCK - start, "in the end marker")
        if view[at + BLOCK : at + 2 * BLOCK] != ZERO_BLOCK:
            raise self._corrupt(base + at, "a lone block of zeros (the end marker is two)")
        raise End(base + at + 2 * BLOCK)

    def next_archive(self, behind: int, following: int, needs: set[str] | None = None) -> int:
        """Where another archive begins whose first byte is ``following`` bytes behind the end marker."""
        if not self.limits.concatenated:
            raise self._corrupt(
                behind + following,
                "more data behind the end marker (archives put together? allow it: sp.Limits(concatenated=True))",
            )
        if needs is not None:
            needs.add("concatenated")
        self.common = _NO_RECORDS
        return behind + following - following % BLOCK

    def _verify(self, block: bytes, at: int) -> None:
        if is_header(block):
            return
        known = what_it_is(block) if at == 0 else None
        if known is not None:
            raise CorruptShard(self._at(at, f"no tar header; it is {known}"))
        raise self._corrupt(at, f"no tar header, or a damaged one (checksum); it begins {block[:32]!r}")

    def _size(self, field: bytes, at: int) -> int:
        size = number(field)
        if size is None or size < 0:
            raise self._corrupt(at, f"the size field {field!r} is no size")
        return size

    def _extended(
        self, kind: bytes, payload: bytes, records: dict[str, bytes], long_name: bytes | None, at: int
    ) -> tuple[dict[str, bytes], bytes | None]:
        if kind == b"L":
            name = payload.rstrip(b"\0")
            if not name:
                raise self._corrupt(at, "an empty long name")
            return records, name
        if kind == b"K":
            return joined(records, {"linkpath": payload.rstrip(b"\0")}), long_name
        try:
            found = checked(pax_records(payload))
        except Malformed as error:
            raise self._corrupt(at, str(error)) from None
        if kind == b"g":  # kept is only what is used here: there may be any number of them
            used = {
                _SPARSE if name.startswith(_SPARSE) else name: each
                for name, each in found.items()
                if name in _USED or name.startswith(_SPARSE)
            }
            self.common = joined(self.common, used)
            return joined(joined(self.common, found), records), long_name
        return joined(records, found), long_name

    def _name(self, block: bytes, records: dict[str, bytes], long_name: bytes | None) -> str:
        if records and "path" in records:
            raw = records["path"]
        elif long_name is not None:
            raw = long_name
        else:
            raw = block[:100].partition(b"\0")[0]
            if block[345] and block[257:263] == b"ustar\0":
                raw = block[345:500].partition(b"\0")[0] + b"/" + raw
        try:
            return raw.decode()
        except UnicodeDecodeError:
            counters.add("reading", "names that are not UTF-8")
            return raw.decode("utf-8", "backslashreplace")

    def _check_name(self, name: str, at: int) -> None:
        if not name:
            raise self._corrupt(at, "a member without a name")
        if name[0] == "/" or ".." in name.split("/"):
            raise UnsafeName(
                self._at(at, f"member {name!r} is absolute or climbs out of its folder; give it a relative name")
            )
        if any(char in name for char in "\0\n\r"):
            raise UnsafeName(self._at(at, f"member {name!r} has a NUL or a line break in its name; rename it"))

    def _special(
        self, kind: bytes, name: str, block: bytes, records: dict[str, bytes], size: int, at: int
    ) -> tuple[int, Member | None]:
        """The size of the data, in the archive, of what is no plain file, and the member that a hard link leads to.

        Refused is what may be a field of a sample; what cannot be one is passed over.
        """
        sparse = any(record.startswith(_SPARSE) for record in records) or records.get("SCHILY.filetype") == b"sparse"
        if sparse:
            raise self._unsupported(name, "sparse file", at)
        if kind in _REGULAR:
            return size, None
        if kind == b"5":
            return 0 if block[257:262] == b"ustar" else size, None
        if kind in _PASSED:
            counters.add("ignored members", _PASSED[kind])
            return size, None
        if kind in (b"1", b"2"):
            raw = records["linkpath"] if "linkpath" in records else block[157:257].partition(b"\0")[0]
            target = raw.decode("utf-8", "backslashreplace")
            found = self.earlier(target) if kind == b"1" and self.earlier else None
            if found is not None:
                return 0, found
            what = f"{'hard' if kind == b'1' else 'symbolic'} link to {target!r}"
        else:
            what = _NOT_FILES.get(kind, f"member of unknown type {kind!r}")
        if kind in _EMPTY and "." not in name.rpartition("/")[2].lstrip("."):  # without a field no sample can lack it
            counters.add("ignored members", "links and devices without a field")
            return 0, None
        raise self._unsupported(name, what, at)

    def _unsupported(self, name: str, what: str, at: int) -> UnsupportedMember:
        return UnsupportedMember(
            self._at(
                at,
                f"member {name!r} is a {what}: its bytes are not in the archive; pack the files themselves "
                f"(tar --dereference --hard-dereference, without --sparse)"
                + ("; hard links to earlier members can be read: sp.Limits(hard_links=True)" if "hard" in what else ""),
            )
        )

    def _corrupt(self, at: int, what: str) -> CorruptShard:
        return CorruptShard(self._at(at, what + "; fetch or write the shard again"))

    def _at(self, at: int, what: str) -> str:
        return f"{self.shard}, byte {at}: {what}"

    def _too_large(self, at: int, what: str, size: int, limit: str) -> LimitExceeded:
        most = getattr(self.limits, limit)
        return LimitExceeded(
            self._at(at, f"{what} of {size} bytes (at most {most}); raise Limits.{limit} if it is meant")
        )

    def early_end(self, at: int) -> CorruptShard:
        """The error for an end marker where an index says that members are."""
        return self._corrupt(at - 2 * BLOCK, "the end of the archive, in the middle of a sample")

    def truncated(self, total: int, short: Short, rest: memoryview | bytes) -> CorruptShard | TruncatedShard:
        """The error for an archive that ends after ``total`` bytes, the last ``rest`` of them no whole entry."""
        if not total:
            return TruncatedShard(f"{self.shard} ends at byte 0, for it is empty; fetch or write the shard again")
        if total == len(rest) < BLOCK and (known := what_it_is(bytes(rest))):  # what is so short has no header to check
            return CorruptShard(self._at(0, f"no tar header; it is {known}"))
        text = f"{self.shard} ends at byte {total}, {short.what}, before its end marker; fetch or write the shard again"
        if first_non_zero(rest) is not None:
            return TruncatedShard(text)
        if self.limits.missing_end:
            return MissingEnd(text + ": its last sample has fewer fields than the one before it, or is the only one")
        return MissingEnd(text + ", or allow it if nothing else is missing: sp.Limits(missing_end=True)")
