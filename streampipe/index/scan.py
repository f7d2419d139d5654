"""A shard's index from the shard itself."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from streampipe.index.facts import image_size, scalars_of
from streampipe.index.known import columns_beside
from streampipe.index.table import ShardIndex, make
from streampipe.samples import group
from streampipe.source import Source, redact
from streampipe.tar import Limits, Member, read_members, stream_members


def scan(url: str, source: Source, limits: Limits, *, checksums: bool = True) -> ShardIndex:
    """Read a shard once, front to back, strictly: damage is an error as in any other reading of it.

    Columns of img2dataset's Parquet file beside it are taken over. With ``checksums`` all bytes are read; without, of a
    local shard only headers, image headers and json members.
    """
    shown = redact(url)
    data = source.buffer(url)
    digest = hashlib.sha256()
    if data is not None:
        members: Iterable[Member] = read_members(data, shard=shown, limits=limits)
        size = len(data)
        if checksums:
            digest.update(data)
        rows, scalars = _rows(members, shown, limits, lambda a, b: zlib.crc32(data[a:b]) if checksums else None)
    else:
        tape = _Tape(source.chunks(url), digest)
        members = stream_members(tape, shard=shown, limits=limits)
        rows, scalars = _rows(members, shown, limits, tape.crc32)
        size = tape.end
    beside = columns_beside(url, source)
    if beside:
        scalars = [{**beside.get(row["key"], {}), **own} for row, own in zip(rows, scalars, strict=True)]
    facts: dict[str, Any] = {"bytes": size}
    if checksums:
        facts["sha256"] = digest.hexdigest()
    return make(rows, scalars, facts)


def _rows(
    members: Iterable[Member], shown: str, limits: Limits, crc32: Callable[[int, int], int | None]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    scalars: list[dict[str, Any]] = []
    seen: list[Member] = []

    def watched() -> Iterator[Member]:
        for member in members:
            seen.append(member)
            yield member

    for sample in group(watched(), shown, views=True, limits=limits, place="indexing"):
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
                "crc32": crc32(start, end),
                "fields": [{"name": f, "offset": m.data_offset, "size": m.size} for m, f in own],
                "width": width,
                "height": height,
            }
        )
        scalars.append(scalars_of(sample["json"]) if "json" in sample else {})
    return rows, scalars


def _field_of(name: str, names: dict[str, str]) -> str | None:
    """The field of a member's name, where the sample has it; field names are lower-cased, keys are not."""
    base = name.rfind("/") + 1
    dot = name.find(".", base)
    return names.get(name[:dot] + name[dot:].lower()) if dot > base else None


class _Tape:
    """Chunks on their way to a reader. The last bytes are kept, so that a sample's checksum can be had behind it."""

    def __init__(self, chunks: Iterable[bytes], digest: Any) -> None:
        self._chunks = chunks
        self._digest = digest
        self._held = bytearray()
        self._start = 0
        self.end = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self._digest.update(chunk)
            self._held += chunk
            self.end += len(chunk)
            yield chunk

    def crc32(self, start: int, end: int) -> int:
        """Of the bytes [start, end), which are then let go."""
        with memoryview(self._held) as view:
            found = zlib.crc32(view[start - self._start : end - self._start])
        del self._held[: end - self._start]
        self._start = end
        return found
