"""A shard's index from the shard itself."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from streampipe.checksum import crc32, headers_crc32
from streampipe.context import Sample
from streampipe.decoding.codec import ImageHeader
from streampipe.errors import ConfigError, UnsupportedMember
from streampipe.index.columns import Columns
from streampipe.index.facts import scalars_of, seen_in
from streampipe.index.known import Known, columns_beside
from streampipe.index.table import NEEDS, SUMS, ShardIndex, make_of
from streampipe.samples import group
from streampipe.source import Source, redact
from streampipe.tar import BLOCK, Limits, Member, begun, compression_of, read_members, stream_members
from streampipe.tar.writer import Written

_HELD = 128 << 20  # bytes of a shard that is held whole while its index is made


class HasLinks(UnsupportedMember):
    """A shard holds a hard link, whose bytes do not stand with its sample: it can be read forward only."""


def scan(url: str, source: Source, limits: Limits, *, checksums: bool = True) -> ShardIndex:
    """Read a shard once, front to back, strictly: damage is an error as in any other reading of it.

    Columns of img2dataset's Parquet file beside it are taken over. With ``checksums`` all bytes are read; without, of a
    local shard only headers, whose checksums are kept, image headers and json members. A local shard of up to 128 MB is
    read through before a byte is hashed.

    Raises:
        ConfigError: the shard is compressed: single samples of it cannot be read.
        HasLinks: it holds hard links, and ``limits`` allow them.
    """
    shown = redact(url)
    known = columns_beside(url, source, limits)
    needs: set[str] = set()
    data = _read(url, source) if checksums else source.buffer(url)
    if data is not None:
        check_plain(url, bytes(data[:BLOCK]))
        rows = Rows(shown, known)
        rows.read(read_members(data, shard=shown, limits=limits, needs=needs), limits, needs)
        facts: dict[str, Any] = {"bytes": len(data)}
        if checksums:
            facts["sha256"] = _hashed(data, rows)
        else:
            facts[SUMS] = "headers"
            rows.sum_headers(data)
    else:
        head, chunks = begun(source.chunks(url))
        check_plain(url, head)
        tape = Tape(chunks)
        rows = Rows(shown, known, tape.crc32)
        rows.read(stream_members(tape, shard=shown, limits=limits, needs=needs), limits, needs)
        facts = tape.facts
    return rows.to_index(facts, needs)


def _read(url: str, source: Source) -> memoryview | None:
    """A local shard that is not large, read and not mapped: one that shrinks meanwhile would end the process."""
    file = source.file(url)
    return None if file is None or file.size > _HELD else memoryview(file.read(0, file.size))


def check(url: str, source: Source, limits: Limits) -> None:
    """Read the headers of a local shard, which finds all damage to its structure; nothing of one from elsewhere.

    Raises:
        ConfigError, ShardError: as ``scan``.
    """
    data = source.buffer(url)
    if data is not None:
        check_plain(url, bytes(data[:BLOCK]))
        shown = redact(url)
        for _ in group(
            read_members(data, shard=shown, limits=limits), shown, views=True, limits=limits, place="checking"
        ):
            pass


def check_plain(url: str, head: bytes) -> None:
    """Refuse a compressed shard, by its first block."""
    kind = compression_of(url, head)
    if kind is not None:
        raise ConfigError(
            f"{redact(url)} is compressed ({kind}): single samples of it cannot be read, so it cannot be indexed; "
            f"decompress it, or stream it as it is (tier='sequential')"
        )


def _hashed(data: memoryview, rows: Rows) -> str:
    """The checksums of samples, put into their rows, and that of the whole shard, in one pass."""
    digest, at = hashlib.sha256(), 0
    for number, (start, size) in enumerate(rows.spans):
        digest.update(data[at:start])
        rows.sums[number] = crc32(data[start : start + size])
        digest.update(data[start : start + size])
        at = start + size
    digest.update(data[at:])
    return digest.hexdigest()


_NONE: dict[str, Any] = {}


class Rows:
    """The rows of an index, as the samples of its shard come: numbers, names and facts, no bytes.

    Args:
        known: what is known of the samples from beside the shard.
        crc32: of the bytes of a shard between two places, where it can be had.
    """

    def __init__(self, shown: str, known: Known, crc32: Callable[[int, int], int] | None = None) -> None:
        self._shown = shown
        self._known = known
        self._crc32 = crc32
        self._seen: list[Member] = []
        self._keys: list[str] = []
        self._fields: list[tuple[tuple[str, int, int], ...]] = []
        self._sizes: list[tuple[int | None, int | None]] = []
        self._columns = Columns()
        self.spans: list[tuple[int, int]] = []
        self.sums: list[int | None] = []

    def read(self, members: Iterable[Member], limits: Limits, needs: set[str]) -> None:
        """All samples of the members."""
        watched = self.watched(members)
        for sample in group(watched, self._shown, views=True, limits=limits, place="indexing", needs=needs):
            self.add(sample)

    def watched(self, members: Iterable[Member]) -> Iterator[Member]:
        """The members, on their way to become samples, which are then to be added.

        Raises:
            HasLinks: the bytes of one do not stand behind its header.
        """
        for member in members:
            self.see(member)
            yield member

    def see(self, member: Member) -> None:
        """The next member, of the sample that is added next or of the one after it.

        Raises:
            HasLinks: its bytes do not stand behind its header.
        """
        if member.data_offset < member.offset:
            raise HasLinks(
                f"{self._shown}, byte {member.offset}: member {member.name!r} is a hard link: the shard can be read "
                f"forward (tier='sequential'), but not indexed; pack the files themselves to do so"
            )
        self._seen.append(member)

    def add(self, sample: Sample) -> None:
        """The next sample. Its members were seen; so were hidden files, and the next sample's first member."""
        key, seen = sample["__key__"], self._seen
        names = {f"{key}.{name}": name for name in sample if not name.startswith("__")}
        mine = [(each, _field_of(each.name, names)) for each in seen]
        own = [(member, field) for member, field in mine if field is not None]
        del seen[: 1 + max(i for i, (_, field) in enumerate(mine) if field is not None)]
        start = own[0][0].offset
        end = max(member.data_offset + member.size + (-member.size & 511) for member, _ in own)
        self._keys.append(key)
        self.spans.append((start, end - start))
        self.sums.append(self._crc32(start, end) if self._crc32 else None)
        self._fields.append(tuple((field, member.data_offset, member.size) for member, field in own))
        self._note(sample)

    def written(self, place: Written, fields: Mapping[str, Any], sum: int) -> ImageHeader | None:
        """The next sample, as it was written; what the header of its main image says."""
        self._keys.append(place.key)
        self.spans.append((place.offset, place.size))
        self.sums.append(sum)
        self._fields.append(tuple([(name, start, size) for name, (start, size) in place.fields.items()]))
        return self._note(fields)

    def _note(self, fields: Mapping[str, Any]) -> ImageHeader | None:
        """The facts of the sample whose key came last; what the header of its main image says."""
        header, size, facts, others = seen_in(fields)
        self._sizes.append(size)
        scalars = scalars_of(fields["json"]) if "json" in fields else _NONE
        known = self._known.get(self._keys[-1])
        found = {**known, **scalars, **facts, **others} if known or scalars or facts or others else _NONE
        self._columns.add(found, others)
        return header

    def sum_headers(self, data: memoryview) -> None:
        """The checksums of the samples' headers alone, in a shard's bytes."""
        for number, ((begin, size), fields) in enumerate(zip(self.spans, self._fields, strict=True)):
            starts = [start - begin for _, start, _ in fields]
            ends = [start - begin + length for _, start, length in fields]
            self.sums[number] = headers_crc32(data[begin : begin + size], starts, ends)

    def to_index(self, facts: dict[str, Any], needs: set[str]) -> ShardIndex:
        """The index of the shard that has these samples."""
        starts, sizes = zip(*self.spans, strict=True) if self.spans else ((), ())
        widths, heights = zip(*self._sizes, strict=True) if self._sizes else ((), ())
        own = (self._keys, starts, sizes, self.sums, self._fields, widths, heights)
        return make_of(own, self._columns, {**facts, NEEDS: sorted(needs)} if needs else facts)


def _field_of(name: str, names: dict[str, str]) -> str | None:
    """The field of a member's name, where the sample has it; field names are lower-cased, keys are not."""
    base = name.rfind("/") + 1
    dot = name.find(".", base)
    return names.get(name[:dot] + name[dot:].lower()) if dot > base else None


class Tape:
    """Chunks on their way to a reader. The last bytes are kept, so that a sample's checksum can be had behind it."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self.digest = hashlib.sha256()
        self._held = bytearray()
        self._start = 0
        self._stopped = False
        self.end = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            if self._stopped:
                yield chunk
                continue
            self.digest.update(chunk)
            self._held += chunk
            self.end += len(chunk)
            yield chunk

    def stop(self) -> None:
        """Keep nothing any more."""
        self._stopped = True
        self._held.clear()

    @property
    def facts(self) -> dict[str, Any]:
        """The size and the checksum of all that passed."""
        return {"bytes": self.end, "sha256": self.digest.hexdigest()}

    def crc32(self, start: int, end: int) -> int:
        """Of the bytes [start, end), which are then let go."""
        with memoryview(self._held) as view:
            found = crc32(view[start - self._start : end - self._start])
        del self._held[: end - self._start]
        self._start = end
        return found
