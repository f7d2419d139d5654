"""The facts of many shards in one file, as a question to a whole dataset reads them: some columns, and of these all.

Beside a manifest lie ``facts-DIGEST.parquet``: what conditions may ask of the samples of shards that follow each other
in it. Where samples are stands in each shard's own index: that is wanted shard by shard. A row group is whole shards,
as many as make a good request. A file is never changed, because its name is a digest of it; the manifest names those
that count. So whoever reads with an older manifest reads what belongs to it.

A column has one type in a file, by the rule that makes one of a shard's values (``index.columns``). What some shard's
index may lack (``ShardIndex.may_lack``) is left out for all of a file's: of it, their own indexes are asked.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from streampipe.checksum import crc32
from streampipe.errors import IndexMismatch
from streampipe.index.columns import EXACT, MIXED, MOST_COLUMNS
from streampipe.index.facts import OWN, VIDEO_COLUMNS
from streampipe.index.manifest import Part
from streampipe.index.parquet import Bounded
from streampipe.index.sizes import Sizes, sizes_of, sum_of
from streampipe.index.table import IMAGES, LEFT_OUT, NEEDS, NESTED, VIDEOS, ShardIndex
from streampipe.source import Source, redact
from streampipe.source.ranged import RangedFile
from streampipe.tar import Limits

VERSION = 1
_FACTS = b"streampipe.facts"
_NO_FACTS = ("offset", "size", "crc32", "fields")
_GROUP_ROWS, _GROUP_BYTES = 1 << 20, 128 << 20
_PART_GROUPS, _PART_BYTES = 64, 64 << 20
_SLICE_ROWS = 1 << 17  # looked at together: more would leave a processor's cache
_TAIL = 1 << 16  # what pyarrow reads first


class Untold(Exception):
    """Merged facts do not have what is asked for: the shards' own indexes may."""


class MergedFacts(ShardIndex):
    """The facts of the samples of several shards, one after the other, as one index; where they are it does not know.

    Raises:
        Untold: what it does not know is asked for.
    """

    def __init__(
        self, table: pa.Table, rows: int, names: Sequence[str], complete: bool, looked: Mapping[str, bool]
    ) -> None:
        super().__init__(table, {"bytes": 0, **looked}, names)
        self._rows = rows
        self._complete = complete

    def __len__(self) -> int:
        return self._rows

    def may_lack(self, name: str) -> bool:
        """Never: what it may lack is not told."""
        if name in VIDEO_COLUMNS and super().may_lack(name):
            raise Untold(name)
        if name not in self.fact_names and (not self._complete or name in _NO_FACTS):
            raise Untold(name)
        return False

    def keys(self) -> list[str]:
        """The samples' keys, where they were read."""
        if "key" not in self.table.column_names:
            raise Untold("key")
        return super().keys()


# Reading


class Wanted(NamedTuple):
    """A file with the facts of shards of so many ``samples``; ``shards``: the numbers of those that are wanted."""

    folder: str
    part: Part
    samples: np.ndarray
    shards: np.ndarray


def facts_of(
    wanted: Wanted, source: Source, limits: Limits, columns: frozenset[str] | None
) -> Iterator[tuple[MergedFacts, np.ndarray, np.ndarray]]:
    """The facts of the wanted shards, some at a time, with the rows where each one's end, and their numbers.

    Raises:
        Untold: the shards' own indexes must be asked.
        IndexMismatch, SourceError: the file is damaged, or gone.
    """
    place = f"{wanted.folder}{wanted.part.file}"
    stored = _Stored(source, place, wanted.part)
    shown = redact(place)
    file = Bounded(
        lambda **how: pq.ParquetFile(pa.PythonFile(stored, mode="r"), page_checksum_verification=True, **how),
        shown,
        wanted.part.bytes,
    )
    about = _about(file, shown, limits)
    names, complete = file.schema.names, bool(about["complete"])
    looked = {what: bool(about.get(what)) for what in (VIDEOS, IMAGES)}
    there = wanted.shards[wanted.samples[wanted.shards] > 0]  # of one without samples nothing is asked
    ends = np.cumsum(wanted.samples)
    if file.metadata.num_rows != int(ends[-1]):
        raise IndexMismatch(f"{shown} has other samples than its manifest says; run streampipe index again")
    first = 0
    for group in range(file.metadata.num_row_groups):
        last = first + file.metadata.row_group(group).num_rows
        mine = there[(ends[there] > first) & (ends[there] <= last)]
        if len(mine) and ends[mine[0]] - wanted.samples[mine[0]] < first:
            raise IndexMismatch(f"{shown} cuts a shard in two; delete it and run: streampipe index")
        if len(mine):
            chosen = [each for each in names if columns is None or each in columns]
            table = file.read(limits.max_index_bytes, chosen, group=group)
            for shards in _runs(mine, wanted.samples):
                start, end = int(ends[shards[0]] - wanted.samples[shards[0]]), int(ends[shards[-1]])
                rows = table.slice(start - first, end - start)
                yield MergedFacts(rows, end - start, names, complete, looked), ends[shards] - start, shards
            del table, rows  # before the next ones are read
        first = last


def _about(file: Bounded, shown: str, limits: Limits) -> Any:
    """What a file says of itself."""
    try:
        about = json.loads((file.schema.metadata or {})[_FACTS])
        if about["version"] != VERSION or not isinstance(about["complete"], bool):
            raise ValueError("another version")
        refused = [each for each in about[NEEDS] if not getattr(limits, str(each), False)]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise IndexMismatch(f"{shown} is no file of facts of this version; run streampipe index again") from error
    if refused:
        raise Untold("a shard that is refused")
    return about


def _runs(shards: np.ndarray, samples: np.ndarray) -> Iterator[np.ndarray]:
    """Shards that follow each other (but for empty ones), together so many that they have a good number of rows."""
    begin = 0
    for i in range(len(shards)):
        rows = int(samples[shards[begin] : shards[i] + 1].sum())
        apart = i + 1 < len(shards) and samples[shards[i] + 1 : shards[i + 1]].any()
        if i + 1 == len(shards) or apart or rows >= _SLICE_ROWS:
            yield shards[begin : i + 1]
            begin = i + 1


class _Stored(RangedFile):
    """A file in a store, read in ranges; its end, where a Parquet file says what is where, is asked for at once."""

    def __init__(self, source: Source, place: str, part: Part) -> None:
        super().__init__(part.bytes)
        self._source, self._place, self._part = source, place, part
        self._start = max(0, part.bytes - max(_TAIL, part.footer))
        self._tail: bytes | None = None

    def between(self, start: int, end: int) -> bytes:
        """See ``RangedFile``."""
        if start < self._start:
            return self._source.read(self._place, start, end)
        if self._tail is None:
            self._tail = self._source.read(self._place, self._start, self._size)
            if crc32(self._tail[-self._part.footer :]) != self._part.crc32:  # pyarrow may crash on a damaged one
                raise IndexMismatch(f"{redact(self._place)} is damaged (crc32); run streampipe index again")
        return self._tail[start - self._start : end - self._start]


# Writing


class Merger:
    """Puts the facts of shards together, in the order of the manifest, and puts a file down whenever it is full.

    Args:
        put: writes a file of this name.
    """

    def __init__(self, put: Callable[[str, bytes], None]) -> None:
        self.parts: list[Part] = []
        self._put = put
        self._group: list[ShardIndex] = []
        self._rows = self._bytes = 0
        self._sizes: list[Sizes] = []
        self._file: _File | None = None

    def add(self, index: ShardIndex) -> None:
        """The facts of the next shard."""
        self._sizes.append(sizes_of(index))
        facts = index.table.select([name for name in index.table.column_names if name not in _NO_FACTS])
        index = ShardIndex(facts, index.facts, index.names)
        self._group.append(index)
        self._rows += len(index)
        self._bytes += index.table.nbytes
        if self._rows >= _GROUP_ROWS or self._bytes >= _GROUP_BYTES:
            self._flush()

    def keep(self, part: Part) -> None:
        """The next shards are those of a file that is there."""
        self.close()
        self.parts.append(part)

    def close(self) -> None:
        """What was added is in files now."""
        self._flush()
        if self._file is not None:
            self.parts.append(self._file.close(self._put))
            self._file = None

    def _flush(self) -> None:
        if self._group:
            table = together(self._group)
            if self._file is not None and not self._file.takes(table):
                self.parts.append(self._file.close(self._put))
                self._file = None
            if self._file is None:
                self._file = _File(table.schema)
            self._file.write(table, self._sizes)
        self._group, self._rows, self._bytes, self._sizes = [], 0, 0, []


class _File:
    """A file of facts that is being written."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._sink = io.BytesIO()
        self._writer = pq.ParquetWriter(
            self._sink, schema, compression="zstd", write_statistics=False, write_page_checksum=True
        )
        self._groups = 0
        self._sizes: list[Sizes] = []

    def takes(self, table: pa.Table) -> bool:
        """Whether there is room for more, and it is of the same columns."""
        room = self._groups < _PART_GROUPS and self._sink.tell() < _PART_BYTES
        return room and self._schema.equals(table.schema, check_metadata=True)

    def write(self, table: pa.Table, sizes: Sequence[Sizes]) -> None:
        """A row group of shards, of each of which these are the sizes."""
        if table.num_rows:
            self._writer.write_table(table, row_group_size=table.num_rows)
            self._groups += 1
        self._sizes += sizes

    def close(self, put: Callable[[str, bytes], None]) -> Part:
        """Put it down."""
        self._writer.close()
        data = self._sink.getvalue()
        name = f"facts-{hashlib.sha256(data).hexdigest()[:32]}.parquet"
        put(name, data)
        footer = 8 + int.from_bytes(data[-8:-4], "little")
        known = sum_of(self._sizes)
        sizes = None if known is None else known.plain()
        return Part(len(self._sizes), name, len(data), footer, crc32(data[-footer:]), sizes)


def together(indexes: Sequence[ShardIndex]) -> pa.Table:
    """The facts of shards in one table: what it says of itself is in its metadata."""
    names = list(dict.fromkeys(name for each in indexes for name in each.names if name not in _NO_FACTS))
    doubtful = {name for name in names for each in indexes if name not in each.names and each.may_lack(name)}
    whole = all(each.facts.get(NESTED) and not each.facts.get(LEFT_OUT) for each in indexes)
    names = [name for name in names if name not in doubtful]
    complete = whole and len(names) <= MOST_COLUMNS + len(OWN)
    names = names[: MOST_COLUMNS + len(OWN)]
    needs = sorted({str(need) for each in indexes for need in each.facts.get(NEEDS, ())})
    columns = [_column(name, indexes) for name in names]
    videos = all(each.facts.get(VIDEOS) for each in indexes)
    looked = {VIDEOS: videos, IMAGES: complete and all(each.facts.get(IMAGES) for each in indexes)}
    about = json.dumps({"version": VERSION, "complete": complete, **looked, NEEDS: needs}).encode()
    schema = pa.schema([field for field, _ in columns], {_FACTS: about})
    return pa.Table.from_arrays([column for _, column in columns], schema=schema)


def _column(name: str, indexes: Sequence[ShardIndex]) -> tuple[pa.Field, pa.ChunkedArray]:
    """A column of all shards, of one type: that of all, or floats where whole numbers fit in, or else texts of JSON."""
    fields = [each.table.schema.field(name) for each in indexes if name in each.table.column_names]
    found = [each.table.column(name) if name in each.table.column_names else len(each) for each in indexes]
    kinds = {(field.type, MIXED in (field.metadata or {})) for field in fields}
    mixed = any(mark for _, mark in kinds)
    kind, change = fields[0].type, _same
    if mixed or len(kinds) > 1:
        numbers = {each for each, _ in kinds} <= {pa.int32(), pa.int64(), pa.float64()} and not mixed
        floats = (pa.float64(), False) in kinds
        if numbers and (not floats or all(_is_exact(each) for each in found if not isinstance(each, int))):
            kind = pa.float64() if floats else pa.int64()
        else:
            kind, mixed, change = pa.string(), True, _as_json
    chunks: list[pa.Array] = []
    marks = iter(fields)
    for each in found:
        if isinstance(each, int):
            chunks.append(pa.nulls(each, kind))
        else:
            field = next(marks)
            held = each if MIXED in (field.metadata or {}) else change(each)
            chunks += held.cast(kind).chunks
    return pa.field(name, kind, metadata={MIXED: b"json"} if mixed else None), pa.chunked_array(chunks, kind)


def _same(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column


def _as_json(column: pa.ChunkedArray) -> pa.ChunkedArray:
    texts = [None if value is None else json.dumps(value) for value in column.to_pylist()]
    return pa.chunked_array([pa.array(texts, pa.string())])


def _is_exact(column: pa.ChunkedArray) -> bool:
    """Whether a float holds each of a column's numbers."""
    if pa.types.is_floating(column.type) or column.null_count == len(column):
        return True
    ends = pc.min_max(column).as_py()
    return bool(ends["min"] >= -EXACT and ends["max"] <= EXACT)
