"""Parquet files of others, read within bounds: a small file may unpack to more than a machine has.

Strategy: rows are unpacked a few at a time, and counted. Texts are read as dictionaries, so that one long value that a
file repeats is held once; what they would take written out is counted before they are. A file whose texts are stored in
a way that cannot be read so (each as a difference to the one before) is unpacked in smaller pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from streampipe.errors import IndexMismatch

_ROWS = 4096  # unpacked at once
_FEW_ROWS = 16
_INDEX = "delete it and run: streampipe index"


def read_table(
    data: bytes,
    name: str,
    most: int,
    columns: Callable[[pa.Schema], Sequence[str]] | None = None,
    advice: str = _INDEX,
    row_bytes: int = 0,
) -> pa.Table:
    """A file: all of its columns, or those of its schema that ``columns`` names; dictionaries as what they stand for.

    ``row_bytes`` is what the caller will hold for each row besides.

    Raises:
        IndexMismatch: it is damaged, or unpacks to more than ``most`` bytes.
    """
    try:
        plain = pq.ParquetFile(pa.BufferReader(data))
        schema = pa.schema([field.with_type(_plain(field.type)) for field in plain.schema_arrow])
        schema = schema.with_metadata(plain.schema_arrow.metadata)
        wanted = None
        if columns is not None:
            chosen = set(columns(schema))
            wanted = [each for each in schema.names if each in chosen]
            schema = pa.schema([schema.field(each) for each in wanted], metadata=schema.metadata)
        said = _said(plain.metadata, wanted)
        batches, size = [], said if said > most else 0
        texts, rows = _texts(plain.metadata, most, said)
        file = pq.ParquetFile(pa.BufferReader(data), read_dictionary=texts, metadata=plain.metadata)
        for batch in file.iter_batches(batch_size=rows, columns=wanted, use_threads=False) if not size else ():
            size += sum(map(_written_out, batch.columns)) + row_bytes * batch.num_rows
            if size > most:
                break
            batches.append(batch.cast(schema) if texts else batch)
        if size <= most:
            return pa.Table.from_batches(batches, schema=schema)
    except IndexMismatch:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise IndexMismatch(f"{name} is damaged ({error}); {advice}") from error
    raise IndexMismatch(
        f"{name} of {len(data)} bytes unpacks to {size} or more, at most {most} are read; raise "
        f"Limits.max_index_bytes if it is meant, or {advice}"
    )


def _said(metadata: pq.FileMetaData, wanted: Sequence[str] | None) -> int:
    """What a file says that its wanted columns unpack to."""
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    if wanted is None:
        return sum(int(group.total_byte_size) for group in groups)
    chunks = (group.column(i) for group in groups for i in range(metadata.num_columns))
    return sum(int(each.total_uncompressed_size) for each in chunks if each.path_in_schema.partition(".")[0] in wanted)


def _texts(metadata: pq.FileMetaData, most: int, said: int) -> tuple[list[str], int]:
    """The paths of the columns of texts that can be read as dictionaries, and how many rows are unpacked at once."""
    paths: dict[str, bool] = {}
    for group in (metadata.row_group(i) for i in range(metadata.num_row_groups)):
        for chunk in (group.column(i) for i in range(metadata.num_columns)):
            if chunk.physical_type == "BYTE_ARRAY":
                by_differences = any(each.startswith("DELTA") for each in chunk.encodings)
                paths[chunk.path_in_schema] = paths.get(chunk.path_in_schema, True) and not by_differences
    rows = _ROWS if all(paths.values()) else max(1, min(_FEW_ROWS, most // max(said, 1)))
    return [path for path, can in paths.items() if can], rows


def _plain(kind: pa.DataType) -> pa.DataType:
    """A type without dictionaries and views in it."""
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_plain(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_plain(kind.key_type), _plain(kind.item_type))
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_plain(kind.value_type)))
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_plain(kind.value_type)))
    return kind


def _written_out(array: pa.Array) -> int:
    """The bytes of an array without dictionaries in it."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        values = array.dictionary
        if pa.types.is_primitive(values.type) or pa.types.is_fixed_size_binary(values.type):
            return int(values.nbytes // max(1, len(values)) * len(array))
        lengths = pc.take(pc.cast(pc.binary_length(values), pa.int64()), array.indices)
        return int(pc.sum(lengths).as_py() or 0) + 8 * len(array)
    if pa.types.is_struct(kind):
        return sum(_written_out(array.field(i)) for i in range(kind.num_fields)) + len(array) // 8
    if pa.types.is_map(kind):
        return _written_out(array.keys) + _written_out(array.items) + 4 * len(array)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _written_out(array.flatten()) + 8 * len(array)
    return int(array.nbytes)
