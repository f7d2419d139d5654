"""Parquet files of others, read within bounds: a small file may unpack to more than a machine has."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from streampipe.errors import IndexMismatch

_ROWS = 4096  # unpacked at once
_INDEX = "delete it and run: streampipe index"


def read_table(
    data: bytes, name: str, most: int, columns: Callable[[list[str]], Sequence[str]] | None = None, advice: str = _INDEX
) -> pa.Table:
    """A file: all of its columns, or those of their names that ``columns`` gives.

    Raises:
        IndexMismatch: it is damaged, or unpacks to more than ``most`` bytes.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        schema = file.schema_arrow
        wanted = None
        if columns is not None:
            chosen = set(columns(schema.names))
            wanted = [name for name in schema.names if name in chosen]
            schema = pa.schema([schema.field(name) for name in wanted])
        said = sum(file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
        batches, size = [], said if said > most else 0
        for batch in file.iter_batches(batch_size=_ROWS, columns=wanted) if not size else ():
            size += batch.nbytes
            if size > most:
                break
            batches.append(batch)
        if size <= most:
            return pa.Table.from_batches(batches, schema=schema)
    except IndexMismatch:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise IndexMismatch(f"{name} is damaged ({error}); {advice}") from error
    raise IndexMismatch(
        f"{name} of {len(data)} bytes unpacks to {size} or more, at most {most} are read; raise "
        f"Limits.max_index_bytes if it is meant, or {advice}"
    )
