"""The manifest: one row a shard, for a dataset, in ``manifest.parquet`` beside the shards."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streampipe.errors import IndexMismatch

NAME = "manifest.parquet"
VERSION = 1
_FACTS = b"streampipe"
_SCHEMA = pa.schema([("shard", pa.string()), ("bytes", pa.int64()), ("samples", pa.int64()), ("sha256", pa.string())])


class Entry(NamedTuple):
    """One shard of a dataset; ``shard`` is its file name."""

    shard: str
    bytes: int
    samples: int
    sha256: str | None


def to_bytes(entries: Sequence[Entry]) -> bytes:
    """The manifest as a Parquet file."""
    table = pa.table([list(column) for column in zip(*entries, strict=True)], schema=_SCHEMA)
    sink = io.BytesIO()
    facts = json.dumps({"version": VERSION}).encode()
    pq.write_table(table.replace_schema_metadata({_FACTS: facts}), sink, compression="zstd")
    return sink.getvalue()


def counts(data: bytes, name: str) -> tuple[list[str], np.ndarray]:
    """File names and numbers of samples from a manifest called ``name``.

    Raises:
        IndexMismatch: it is no manifest of this version.
    """
    try:
        table = pq.read_table(pa.BufferReader(data))
        facts = json.loads((table.schema.metadata or {})[_FACTS])
        if facts["version"] != VERSION:
            raise IndexMismatch(f"{name} has version {facts['version']}, not {VERSION}; run streampipe index again")
        return table.column("shard").to_pylist(), table.column("samples").to_numpy()
    except (KeyError, ValueError, OSError, pa.ArrowException) as error:
        raise IndexMismatch(f"{name} is no manifest of streampipe, or damaged; run streampipe index again") from error
