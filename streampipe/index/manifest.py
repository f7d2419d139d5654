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
from streampipe.index.parquet import read_table
from streampipe.tar import Limits

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


def counts(data: bytes, name: str, most: int = Limits.max_index_bytes) -> tuple[list[str], np.ndarray, np.ndarray]:
    """File names, numbers of samples and bytes from a manifest called ``name``.

    Raises:
        IndexMismatch: it is no manifest of this version, unpacks to more than ``most`` bytes, or is not sound.
    """
    table = _sound(data, name, most)
    return table.column("shard").to_pylist(), table.column("samples").to_numpy(), table.column("bytes").to_numpy()


def entries(data: bytes, name: str, most: int = Limits.max_index_bytes) -> list[Entry]:
    """All that a manifest called ``name`` says; raises as ``counts`` does."""
    table = _sound(data, name, most)
    if "sha256" not in table.column_names:
        raise IndexMismatch(f"{name} has no checksums; run streampipe index again")
    return [Entry(**row) for row in table.select(_SCHEMA.names).to_pylist()]


def _sound(data: bytes, name: str, most: int) -> pa.Table:
    table = read_table(data, name, most)
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
        return table
    except IndexMismatch:
        raise
    except (KeyError, TypeError, ValueError, RecursionError, pa.ArrowException) as error:
        raise IndexMismatch(f"{name} is no manifest of streampipe, or damaged; run streampipe index again") from error
