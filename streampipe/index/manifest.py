"""The manifest: one row a shard, for a dataset, in ``manifest.parquet`` beside the shards."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streampipe.errors import IndexMismatch
from streampipe.index.parquet import read_table
from streampipe.tar import Limits

NAME = "manifest.parquet"
VERSION = 1
_FACTS = b"streampipe"
_FILE = re.compile(r"facts-[0-9a-f]{32}\.parquet", re.ASCII)
_SCHEMA = pa.schema(
    [
        ("shard", pa.string()),
        ("bytes", pa.int64()),
        ("samples", pa.int64()),
        ("sha256", pa.string()),
        ("index_crc32", pa.int64()),
    ]
)


class Entry(NamedTuple):
    """One shard of a dataset; ``shard`` is its file name. ``index_crc32``: of its index, where that is looked at."""

    shard: str
    bytes: int
    samples: int
    sha256: str | None
    index_crc32: int | None = None


class Part(NamedTuple):
    """The next ``shards`` rows of a manifest, and the file beside it that has the facts of their samples, if one has.

    ``bytes`` and ``footer`` are the file's size and that of what it says at its end of itself; ``crc32`` is of this.
    ``sizes``: what the samples of these shards have of each field, as ``index.sizes`` writes it; None: not known.
    """

    shards: int
    file: str | None = None
    bytes: int = 0
    footer: int = 0
    crc32: int = 0
    sizes: Any = None


class Manifest(NamedTuple):
    """What is needed of a manifest to plan: of each shard its name, samples and bytes; and where facts are."""

    names: pa.ChunkedArray
    samples: np.ndarray
    bytes: np.ndarray
    parts: tuple[Part, ...]
    digest: str  # of the whole file


def to_bytes(entries: Sequence[Entry], parts: Sequence[Part] = ()) -> bytes:
    """The manifest as a Parquet file."""
    table = pa.table([list(column) for column in zip(*entries, strict=True)], schema=_SCHEMA)
    sink = io.BytesIO()
    about: dict[str, Any] = {"version": VERSION}
    if any(part.file for part in parts):
        about["parts"] = [list(part) for part in parts]
    pq.write_table(table.replace_schema_metadata({_FACTS: json.dumps(about).encode()}), sink, compression="zstd")
    return sink.getvalue()


def read(data: bytes, name: str, most: int = Limits.max_index_bytes) -> Manifest:
    """What a manifest called ``name`` says, but for checksums.

    Raises:
        IndexMismatch: it is no manifest of this version, unpacks to more than ``most`` bytes, or is not sound.
    """
    table, about = _sound(data, name, most, _SCHEMA.names[:3])
    samples, sizes = table.column("samples").to_numpy(), table.column("bytes").to_numpy()
    digest = hashlib.sha256(data).hexdigest()
    return Manifest(table.column("shard"), samples, sizes, _parts(about, len(samples)), digest)


def entries(data: bytes, name: str, most: int = Limits.max_index_bytes) -> list[Entry]:
    """All rows of a manifest called ``name``; raises as ``read`` does."""
    table, _ = _sound(data, name, most, _SCHEMA.names)
    if "sha256" not in table.column_names:
        raise IndexMismatch(f"{name} has no checksums; run streampipe index again")
    there = [each for each in _SCHEMA.names if each in table.column_names]
    return [Entry(**row) for row in table.select(there).to_pylist()]


def _parts(about: Any, shards: int) -> tuple[Part, ...]:
    """Where facts are; nowhere, if what it says of that is not sound."""
    try:
        parts = tuple(Part(*each) for each in about.get("parts", ()))
        sound = all(
            all(type(n) is int and 0 <= n < 1 << 50 for n in (each.shards, each.bytes, each.footer, each.crc32))
            and (each.file is None or _FILE.fullmatch(each.file))
            for each in parts
        )
    except (TypeError, AttributeError):
        return ()
    return parts if sound and sum(each.shards for each in parts) == shards else ()


def _sound(data: bytes, name: str, most: int, wanted: Sequence[str]) -> tuple[pa.Table, Any]:
    """The wanted columns of a manifest, and what it says of itself."""
    table = read_table(data, name, most, lambda schema: [each for each in wanted if each in schema.names])
    try:
        facts = json.loads((table.schema.metadata or {})[_FACTS])
        if facts["version"] != VERSION:
            raise IndexMismatch(f"{name} has version {facts['version']}, not {VERSION}; run streampipe index again")
        columns = [table.column(each) for each in ("shard", "samples", "bytes")]
        if any(
            column.null_count or column.type != _SCHEMA.field(each).type
            for each, column in zip(("shard", "samples", "bytes"), columns, strict=True)
        ):
            raise ValueError("a column has holes or is of another kind")
        samples, sizes = columns[1].to_numpy(), columns[2].to_numpy()
        if len(samples) and (samples.min() < 0 or (samples > sizes // 512).any()):
            raise ValueError("it counts more samples than the shards have room for")
        return table, facts
    except IndexMismatch:
        raise
    except (KeyError, TypeError, ValueError, RecursionError, pa.ArrowException) as error:
        raise IndexMismatch(f"{name} is no manifest of streampipe, or damaged; run streampipe index again") from error
