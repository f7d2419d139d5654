"""A shard's index from the shard itself."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

from streampipe.checksum import crc32, headers_crc32
from streampipe.errors import ConfigError, UnsupportedMember
from streampipe.index.columns import Columns
from streampipe.index.facts import image_size, scalars_of
from streampipe.index.known import Known, columns_beside
from streampipe.index.table import NEEDS, SUMS, ShardIndex, make
from streampipe.samples import group
from streampipe.source import Source, redact
from streampipe.tar import Limits, Member, compression_of, read_members, stream_members


class HasLinks(UnsupportedMember):
    """A shard holds a hard link, whose bytes do not stand with its sample: it can be read forward only."""


def scan(url: str, source: Source, limits: Limits, *, checksums: bool = True) -> ShardIndex:
    """Read a shard once, front to back, strictly: damage is an error as in any other reading of it.

    Columns of img2dataset's Parquet file beside it are taken over. With ``checksums`` all bytes are read; without, of a
    local shard only headers, whose checksums are kept, image headers and json members. A local shard is read through
    before a byte is hashed.

    Raises:
        ConfigError: the shard is compressed: single samples of it cannot be read.
        HasLinks: it holds hard links, and ``limits`` allow them.
    """
    shown = redact(url)
    known = columns_beside(url, source, limits)
    needs: set[str] = set()
    data = source.buffer(url)
    if data is not None:
        check_plain(url, bytes(data[:8]))
        members = read_members(data, shard=shown, limits=limits, needs=needs)
        rows, columns = _rows(members, shown, limits, known, needs)
        facts: dict[str, Any] = {"bytes": len(data)}
        if checksums:
            facts["sha256"] = _hashed(data, rows)
        else:
            facts[SUMS] = "headers"
            for row in rows:
                row["crc32"] = _of_headers(data, row)
    else:
        chunks = iter(source.chunks(url))
        head = next(chunks, b"")
        check_plain(url, head[:8])
        tape = _Tape(chain([head], chunks) if head else chunks)
        members = stream_members(tape, shard=shown, limits=limits, needs=needs)
        rows, columns = _rows(members, shown, limits, known, needs, tape.crc32)
        facts = {"bytes": tape.end, "sha256": tape.digest.hexdigest()}
    return make(rows, columns, {**facts, NEEDS: sorted(needs)} if needs else facts)


def check(url: str, source: Source, limits: Limits) -> None:
    """Read the headers of a local shard, which finds all damage to its structure; nothing of one from elsewhere.

    Raises:
        ConfigError, ShardError: as ``scan``.
    """
    data = source.buffer(url)
    if data is not None:
        check_plain(url, bytes(data[:8]))
        shown = redact(url)
        for _ in group(
            read_members(data, shard=shown, limits=limits), shown, views=True, limits=limits, place="checking"
        ):
            pass


def check_plain(url: str, head: bytes) -> None:
    """Refuse a compressed shard, by its first bytes."""
    kind = compression_of(url, head)
    if kind is not None:
        raise ConfigError(
            f"{redact(url)} is compressed ({kind}): single samples of it cannot be read, so it cannot be indexed; "
            f"decompress it, or stream it as it is (tier='sequential')"
        )


def _standing(members: Iterable[Member], shown: str) -> Iterator[Member]:
    """The members, if the bytes of all of them stand behind their headers."""
    for member in members:
        if member.data_offset < member.offset:
            raise HasLinks(
                f"{shown}, byte {member.offset}: member {member.name!r} is a hard link: the shard can be read forward "
                f"(tier='sequential'), but not indexed; pack the files themselves to do so"
            )
        yield member


def _hashed(data: memoryview, rows: list[dict[str, Any]]) -> str:
    """The checksums of samples, put into their rows, and that of the whole shard, in one pass."""
    digest, at = hashlib.sha256(), 0
    for row in rows:
        end = row["offset"] + row["size"]
        digest.update(data[at : row["offset"]])
        row["crc32"] = crc32(data[row["offset"] : end])
        digest.update(data[row["offset"] : end])
        at = end
    digest.update(data[at:])
    return digest.hexdigest()


def _of_headers(data: memoryview, row: dict[str, Any]) -> int:
    """The checksum of a sample's headers."""
    begin, fields = row["offset"], row["fields"]
    starts = [each["offset"] - begin for each in fields]
    ends = [start + each["size"] for start, each in zip(starts, fields, strict=True)]
    return headers_crc32(data[begin : begin + row["size"]], starts, ends)


def _rows(
    members: Iterable[Member],
    shown: str,
    limits: Limits,
    known: Known,
    needs: set[str],
    sum_of: Callable[[int, int], int] | None = None,
) -> tuple[list[dict[str, Any]], Columns]:
    rows: list[dict[str, Any]] = []
    columns = Columns()
    seen: list[Member] = []

    def watched() -> Iterator[Member]:
        for member in _standing(members, shown):
            seen.append(member)
            yield member

    for sample in group(watched(), shown, views=True, limits=limits, place="indexing", needs=needs):
        # Seen, but not of this sample: hidden files, and the next sample's first member.
        names = {f"{sample['__key__']}.{name}": name for name in sample if not name.startswith("__")}
        mine = [(each, _field_of(each.name, names)) for each in seen]
        own = [(member, field) for member, field in mine if field is not None]
        del seen[: 1 + max(i for i, (_, field) in enumerate(mine) if field is not None)]
        start = own[0][0].offset
        end = max(member.data_offset + member.size + (-member.size & 511) for member, _ in own)
        width, height = image_size(sample)
        rows.append(
            {
                "key": sample["__key__"],
                "offset": start,
                "size": end - start,
                "crc32": sum_of(start, end) if sum_of else None,
                "fields": [{"name": f, "offset": m.data_offset, "size": m.size} for m, f in own],
                "width": width,
                "height": height,
            }
        )
        columns.add({**known.get(sample["__key__"]), **(scalars_of(sample["json"]) if "json" in sample else {})})
    return rows, columns


def _field_of(name: str, names: dict[str, str]) -> str | None:
    """The field of a member's name, where the sample has it; field names are lower-cased, keys are not."""
    base = name.rfind("/") + 1
    dot = name.find(".", base)
    return names.get(name[:dot] + name[dot:].lower()) if dot > base else None


class _Tape:
    """Chunks on their way to a reader. The last bytes are kept, so that a sample's checksum can be had behind it."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self.digest = hashlib.sha256()
        self._held = bytearray()
        self._start = 0
        self.end = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self.digest.update(chunk)
            self._held += chunk
            self.end += len(chunk)
            yield chunk

    def crc32(self, start: int, end: int) -> int:
        """Of the bytes [start, end), which are then let go."""
        with memoryview(self._held) as view:
            found = crc32(view[start - self._start : end - self._start])
        del self._held[: end - self._start]
        self._start = end
        return found
