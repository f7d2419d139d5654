"""A shard's index: the table, how it is stored, and what is read back from it.

Columns: ``key``, ``offset`` and ``size`` (the sample's bytes in the shard, headers included), ``crc32`` (of those
bytes; null where there is none; in a remembered scan of its headers alone), ``fields`` (name, offset, size of each),
``width`` and ``height`` of the main image as shown (after EXIF orientation), or else of the main video, what the header
of that says (``video.frames`` and so on), and the scalars of the json member (``streampipe.index.facts``), at most
1,000 columns (``streampipe.index.columns``): if names were left out, the index says so.
"""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import accumulate
from operator import itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from streampipe.errors import IndexMismatch
from streampipe.index.columns import MIXED, Columns
from streampipe.index.facts import OWN, VIDEO_COLUMNS
from streampipe.index.parquet import read_table
from streampipe.tar import Limits
from streampipe.tar.header import BLOCK

VERSION = 1
PLACES = ("key", "offset", "size")
"""The columns that are always read."""
BYTES = frozenset(("crc32", "fields"))
"""Those that samples are read by."""
_PARTS = ("name", "offset", "size")
_FIELDS = pa.list_(pa.struct([("name", pa.string()), ("offset", pa.int64()), ("size", pa.int64())]))
_TYPES = (pa.string(), pa.int64(), pa.int64(), pa.uint32(), _FIELDS, pa.int32(), pa.int32())
_FACTS = b"streampipe"
NESTED = "nested"
"""The fact whether columns of objects inside the json are there; older indexes say nothing, and have none."""
VIDEOS = "videos"
"""The fact that videos were looked at; older indexes say nothing, and know of none."""
SUMS = "crc32_of"
"""The fact that checksums are of headers alone, as where a scan read nothing else: ``"headers"``."""
NEEDS = "needs"
"""The options of ``Limits`` without which the shard is refused, by name; where there are none, it does not say so."""
IMAGES = "images"
"""The fact that sizes of other images than the main one are columns; older indexes have none."""
LEFT_OUT = "left_out"
"""The fact whether the json has values that are no columns, because there would have been too many."""


class ShardIndex:
    """The index of one shard: its table, and the facts that tie it to the shard (``bytes``, perhaps ``sha256``).

    Only some of its columns may have been read; ``names`` are those of all. ``place``: the file that it was read from.
    """

    place: str | None = None

    def __init__(self, table: pa.Table, facts: Mapping[str, Any], names: Iterable[str] | None = None) -> None:
        self.table = table
        self.facts = dict(facts)
        self.names = tuple(table.column_names if names is None else names)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def shard_bytes(self) -> int:
        """The shard's size."""
        return int(self.facts["bytes"])

    def may_lack(self, name: str) -> bool:
        """Whether the json may hold values under a name that the index does not: there were too many columns, or it was
        made before those inside objects, or videos, had any.
        """
        if name in self.fact_names:
            return False
        if name in VIDEO_COLUMNS:
            return not self.facts.get(VIDEOS)
        inside = "." in name and not (name.startswith("json.") and name.removeprefix("json.") in OWN)
        return bool(self.facts.get(LEFT_OUT)) or (inside and not self.facts.get(NESTED))

    @property
    def sums_headers(self) -> bool:
        """Whether checksums are those of the samples' headers alone."""
        return self.facts.get(SUMS) == "headers"

    def keys(self) -> list[str]:
        """The samples' keys, in the order of the shard."""
        keys: list[str] = self.table.column("key").to_pylist()
        return keys

    @property
    def fact_names(self) -> frozenset[str]:
        """The columns that a condition may name."""
        return frozenset(self.names) - {"offset", "size", "crc32", "fields"}

    def columns(self, names: Iterable[str]) -> dict[str, pa.ChunkedArray]:
        """Those of the named columns that were read, mixed ones as lists of what they hold."""
        found = {}
        there = self.fact_names & set(self.table.column_names)
        for name in names:
            if name in there:
                field = self.table.schema.field(name)
                column = self.table.column(name)
                mixed = bool(field.metadata) and MIXED in field.metadata
                found[name] = [t if t is None else json.loads(t) for t in column.to_pylist()] if mixed else column
        return found

    def to_bytes(self) -> bytes:
        """As a Parquet file."""
        facts = json.dumps({"version": VERSION, **self.facts}).encode()
        sink = io.BytesIO()
        metadata = {**(self.table.schema.metadata or {}), _FACTS: facts}
        pq.write_table(self.table.replace_schema_metadata(metadata), sink, compression="zstd")
        return sink.getvalue()

    @classmethod
    def from_bytes(
        cls, data: bytes, name: str, most: int = Limits.max_index_bytes, columns: Collection[str] | None = None
    ) -> ShardIndex:
        """From a Parquet file called ``name``: all of it, or where the samples are and the named columns.

        Raises:
            IndexMismatch: it is no index of this version, unpacks to more than ``most`` bytes, or names places that
                its shard cannot have.
        """
        names: list[str] = []

        def wanted(schema: pa.Schema) -> list[str]:
            names.extend(schema.names)
            return names if columns is None else [each for each in names if each in columns or each in PLACES]

        table = read_table(data, name, most, wanted)
        try:
            facts = json.loads((table.schema.metadata or {})[_FACTS])
            version, size = facts["version"], facts["bytes"]
        except (KeyError, TypeError, ValueError, RecursionError):
            raise IndexMismatch(f"{name} is no index of streampipe; delete it and run: streampipe index") from None
        missing = [each for each in OWN if each not in names]
        if version != VERSION or missing:
            what = f"lacks {', '.join(missing)}" if missing else f"has version {version}, not {VERSION}"
            raise IndexMismatch(f"{name} {what}; delete it and run: streampipe index")
        if len(set(names)) < len(names) or not isinstance(size, int) or not _is_sound(table, size):
            raise IndexMismatch(f"{name} is damaged: it does not describe a shard; delete it and run: streampipe index")
        return cls(table, facts, names)


def _is_sound(table: pa.Table, shard_bytes: int) -> bool:
    """Whether an index's own columns are of their kinds, without holes, and its samples lie in the shard in order."""
    for name, kind in zip(OWN, _TYPES, strict=True):
        if name not in table.column_names:
            continue
        column = table.column(name)
        if name in ("key", "offset", "size") and column.null_count:
            return False
        if not (_has_fields(column.type) if name == "fields" else column.type == kind):
            return False
    starts, sizes = table.column("offset").to_numpy(), table.column("size").to_numpy()
    if not len(starts):
        return True
    ends = starts + sizes  # sizes are bounded first, so this cannot overflow
    bounded = starts.min() >= 0 and sizes.min() >= BLOCK and max(starts.max(), sizes.max()) <= shard_bytes < 1 << 62
    return bool(bounded and ends.max() <= shard_bytes and (starts[1:] >= ends[:-1]).all())


def _has_fields(kind: pa.DataType) -> bool:
    """Whether a column's type is that of fields; writers name a list's items in their own ways."""
    return bool(pa.types.is_list(kind) and kind.value_type == _FIELDS.value_type)


def _fields(rows: Sequence[Sequence[Any]]) -> pa.Array:
    """The fields of samples, each as a dict or as name, offset and size, as a column; a column of numbers at a time is
    a tenth of the time of a list of tuples.
    """
    starts = list(accumulate(map(len, rows), initial=0))
    each = [itemgetter(*_PARTS)(field) if isinstance(field, dict) else field for row in rows for field in row]
    names, offsets, sizes = zip(*each, strict=True) if each else ((), (), ())
    columns = [pa.array(names, pa.string()), pa.array(offsets, pa.int64()), pa.array(sizes, pa.int64())]
    values = pa.StructArray.from_arrays(columns, fields=list(_FIELDS.value_type))
    return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), values).cast(_FIELDS)


def make(rows: list[dict[str, Any]], columns: Columns, facts: Mapping[str, Any]) -> ShardIndex:
    """An index from its rows and from the columns of their json members."""
    return make_of([[row[name] for row in rows] for name in OWN], columns, facts)


def make_of(own: Sequence[Sequence[Any]], columns: Columns, facts: Mapping[str, Any]) -> ShardIndex:
    """An index from its own columns, in their order, and from those of the json members."""
    arrays = {
        name: _fields(values) if kind is _FIELDS else pa.array(values, kind)
        for name, kind, values in zip(OWN, _TYPES, own, strict=True)
    }
    fields = [pa.field(name, array.type) for name, array in arrays.items()]
    added = columns.to_arrow()
    table = pa.Table.from_arrays(
        [*arrays.values(), *(each for _, each in added)], schema=pa.schema([*fields, *(field for field, _ in added)])
    )
    return ShardIndex(table, {**facts, NESTED: True, VIDEOS: True, IMAGES: True, LEFT_OUT: columns.left_out})
