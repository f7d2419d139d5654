"""Parquet files of others, read within bounds: a small file may unpack to more than a machine has."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from streampipe.errors import IndexMismatch

_ROWS = 4096  # unpacked at once


def read_table(data: bytes, name: str, most: int) -> pa.Table:
    """A whole file.

    Raises:
        IndexMismatch: it is damaged, or unpacks to more than ``most`` bytes.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        said = sum(file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
        batches, size = [], said if said > most else 0
        for batch in file.iter_batches(batch_size=_ROWS) if not size else ():
            size += batch.nbytes
            if size > most:
                break
            batches.append(batch)
        if size <= most:
            return pa.Table.from_batches(batches, schema=file.schema_arrow)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise IndexMismatch(f"{name} is damaged ({error}); delete it and run: streampipe index") from error
    raise IndexMismatch(
        f"{name} of {len(data)} bytes unpacks to {size} or more, at most {most} are read; raise "
        f"Limits.max_index_bytes if it is meant, or delete it and run: streampipe index"
    )
