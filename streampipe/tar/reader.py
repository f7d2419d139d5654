"""A strict, forward-only tar reader without I/O.

Python's tarfile takes damage for the end of the archive. Here an archive ends at its end marker, two blocks of zeros,
and nowhere else; every header's checksum is verified; whatever is not a well-formed header is an error that says where.

Strategy: ``read_members`` is the whole reader, over a buffer. ``stream_members`` feeds it: it keeps the bytes of one
entry at a time, and asks for as many more as the reader says it is short of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from mmap import mmap
from typing import Any

from streampipe.tar.entries import End, Entries, Member, MissingEnd, Short, first_non_zero
from streampipe.tar.header import BLOCK
from streampipe.tar.limits import Limits

_MOST_KEPT = 256 << 20
_LARGE = 1 << 20

__all__ = ["Member", "MissingEnd", "read_members", "read_range", "stream_members"]


def read_members(
    data: bytes | bytearray | memoryview, *, shard: str, limits: Limits | None = None, needs: set[str] | None = None
) -> Iterator[Member]:
    """The regular files of an archive in memory; each member's ``data`` is a view of ``data``.

    Directories are passed over. With ``Limits(concatenated=True)`` an archive may follow the end of another one; where
    one did, ``needs`` is told.

    Raises:
        TruncatedShard: the archive ends before its end marker (``MissingEnd``, if that alone is not there).
        CorruptShard: a checksum or a number is wrong, or there is something that is no header.
        UnsupportedMember: a link, a sparse file, a device.
        UnsafeName: a name that is absolute, climbs with "..", or holds a NUL or a line break.
        LimitExceeded: a member or an extended header is larger than ``limits`` allow.
    """
    view = memoryview(data)
    raw: Any = _whole_of(view)
    entries = Entries(shard, limits or Limits())
    names: dict[str, Member] = {}
    if entries.limits.hard_links:
        entries.earlier = names.get
    at = 0
    while True:
        try:
            member, at = entries.next(view, raw, at, 0)
        except Short as short:
            raise entries.truncated(len(view), short, view[at:]) from None
        except End as end:
            following = first_non_zero(view[end.at :])
            if following is None:
                return
            at = entries.next_archive(end.at, following, needs)
            continue
        if member is not None:
            yield member
            if entries.earlier is not None:
                names[member.name] = member


def stream_members(
    chunks: Iterable[bytes], *, shard: str, limits: Limits | None = None, needs: set[str] | None = None
) -> Iterator[Member]:
    """The same over a stream of chunks of any size; at most one member and one chunk are held.

    With ``Limits(hard_links=True)`` also the last 256 MiB of members, which links may lead to.
    """
    entries = Entries(shard, limits or Limits())
    kept = _Kept() if entries.limits.hard_links else None
    if kept is not None:
        entries.earlier = kept.members.get
    source = iter(chunks)
    held, base, at = b"", 0, 0  # held[at:] is unread; held[0] is byte `base` of the archive
    while True:
        try:
            member, at = entries.next(memoryview(held), held, at, base)
        except Short as short:
            base, at, held = base + at, 0, _gather(held[at:], source, short.need)
            if len(held) < short.need:
                raise entries.truncated(base + len(held), short, held) from None
            continue
        except End as end:
            base, held = end.at, held[end.at - base :]
            while (following := first_non_zero(held)) is None:  # zeros may fill up the last record: let them pass
                skipped = len(held) - len(held) % BLOCK
                piece = next(source, None)
                if piece is None:
                    return
                base, held = base + skipped, held[skipped:] + piece
            at = entries.next_archive(base, following, needs) - base
            continue
        if member is not None:
            if member.size >= _LARGE and len(held) - at < at:  # or a reader that pauses here holds it twice
                base, held, at = base + at, held[at:], 0
            yield member
            if kept is not None:
                kept.add(member)


def read_range(data: bytes | memoryview, *, shard: str, base: int, limits: Limits | None = None) -> Iterator[Member]:
    """The members of a piece of an archive that an index knows: whole entries, from byte ``base`` of it on.

    Where archives may follow each other, the piece may begin in one and end in the next.

    Raises:
        TruncatedShard: the piece ends inside an entry.
        CorruptShard, UnsupportedMember, UnsafeName, LimitExceeded: as ``read_members``.
    """
    view = memoryview(data)
    raw: Any = _whole_of(view)
    entries = Entries(shard, limits or Limits())
    at = 0
    while at < len(view):
        try:
            member, at = entries.next(view, raw, at, base)
        except Short as short:
            raise entries.truncated(base + len(view), short, b"x") from None
        except End as end:
            following = first_non_zero(view[end.at - base :])
            if following is None or not entries.limits.concatenated:
                raise entries.early_end(end.at) from None
            at = entries.next_archive(end.at - base, following)
            continue
        if member is not None:
            yield member


def _whole_of(view: memoryview) -> Any:
    """What a view shows, if it shows all of it and its slices are bytes; else something like that."""
    whole = view.obj
    return whole if isinstance(whole, (bytes, mmap)) and len(whole) == view.nbytes else _Slices(view)


class _Kept:
    """The members that came last, as many as fit into a bound."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self._size = 0

    def add(self, member: Member) -> None:
        """Keep a member, and let go of the oldest."""
        copy = Member(member.name, bytes(member.data), member.size, member.offset, member.data_offset, b"")
        self.members[member.name] = copy
        self._size += len(copy.data)
        while self._size > _MOST_KEPT:
            self._size -= len(self.members.pop(next(iter(self.members))).data)


class _Slices:
    """A view whose slices are bytes."""

    def __init__(self, view: memoryview) -> None:
        self._view = view

    def __getitem__(self, where: slice) -> bytes:
        return self._view[where].tobytes()


def _gather(held: bytes, source: Iterator[bytes], need: int) -> bytes:
    pieces, size = [held], len(held)
    while size < need:
        piece = next(source, None)
        if piece is None:
            break
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)
