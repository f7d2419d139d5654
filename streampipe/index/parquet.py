"""Parquet files of others, read within bounds: a small file may unpack to more than a machine has.

Strategy: rows are unpacked a few at a time, and counted. Texts are read as dictionaries, so that one long value that a
file repeats is held once; what they would take written out is counted before they are. A file whose texts are stored in
a way that cannot be read so (each as a difference to the one before) is unpacked in smaller pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from streampipe.errors import IndexMismatch
from streampipe.index.unpack import unpack

_ROWS = 4096  # unpacked at once
_FEW_ROWS = 16
_MANY_ROWS = 1 << 21  # of numbers alone: pieces would be joined once more
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

    def table() -> pa.Table:
        file = Bounded(lambda **how: pq.ParquetFile(pa.BufferReader(data), **how), name, len(data), advice)
        with file.sound():
            chosen = None if columns is None else columns(file.schema)
        file.open_columns(chosen)
        return file.read(most, chosen, row_bytes)

    return unpack(table)


class Bounded:
    """A Parquet file called ``name``, whose columns are read within bounds.

    Args:
        opened: opens it, with options of ``ParquetFile``.
        size: its bytes, for messages.

    Raises:
        IndexMismatch: it is damaged.
    """

    def __init__(self, opened: Callable[..., pq.ParquetFile], name: str, size: int, advice: str = _INDEX) -> None:
        self._opened = opened
        self._name, self._size, self._advice = name, size, advice
        with self.sound():
            plain = opened()
            self._reader, self.metadata, schema = plain.reader, plain.metadata, plain.schema_arrow
            self._paths = [self.metadata.schema.column(i).path for i in range(self.metadata.num_columns)]
            self.schema = pa.schema([field.with_type(_plain(field.type)) for field in schema], schema.metadata)

    def open_columns(self, columns: Collection[str] | None) -> None:
        """Have pyarrow look at the columns of each row group, all or those that are named, without reading a page.

        What it finds wrong is an exception here. It would end the process where Python first asks for what the file
        says of a column (``RowGroupMetaData.column``). Files in stores have a checksum of their metadata instead:
        opening a column would fetch it.

        Raises:
            IndexMismatch: the file is damaged.
        """
        with self.sound():
            chosen = self._columns(columns)
            if not chosen:  # rows of no columns are told by a division, by 0 here
                return
            for group in range(self.metadata.num_row_groups):
                no_rows = self._reader.iter_batches(0, row_groups=[group], column_indices=chosen, use_threads=False)
                next(no_rows, None)

    def read(
        self,
        most: int,
        columns: Collection[str] | None = None,
        row_bytes: int = 0,
        group: int | None = None,
    ) -> pa.Table:
        """All rows, or those of one row group, of all columns or of those that are named.

        Raises:
            IndexMismatch: it is damaged, or that unpacks to more than ``most`` bytes.
        """
        schema, wanted = self.schema, None
        with self.sound():
            if columns is not None:
                chosen = frozenset(columns)
                wanted = [each for each in schema.names if each in chosen]
                schema = pa.schema([schema.field(each) for each in wanted], metadata=schema.metadata)
            groups = range(self.metadata.num_row_groups) if group is None else [group]
            found, numbers = [self.metadata.row_group(i) for i in groups], self._columns(wanted)
            chunks = [each.column(i) for each in found for i in numbers]
            said = sum(each.total_uncompressed_size for each in chunks)
            batches, size = [], said if said > most else 0
            texts, rows = _texts(self.metadata, numbers, chunks, most, said)
            file = self._opened(read_dictionary=texts, metadata=self.metadata)
            how = {"batch_size": rows, "columns": wanted, "row_groups": list(groups)}
            how["use_threads"] = group is not None  # a whole file is small, mostly: threads would take longer to start
            for batch in file.iter_batches(**how) if not size else ():
                size += sum(map(_written_out, batch.columns)) + row_bytes * batch.num_rows
                if size > most:
                    break
                batches.append(batch.cast(schema) if texts else batch)
            if size <= most:
                table = pa.Table.from_batches(batches, schema=schema)
                table.validate(full=True)  # what is read is not looked at: a text may be no UTF-8
                return table
        raise IndexMismatch(
            f"{self._name} of {self._size} bytes unpacks to {size} or more, at most {most} are read; raise "
            f"Limits.max_index_bytes if it is meant, or {self._advice}"
        )

    def _columns(self, wanted: Collection[str] | None) -> list[int]:
        """The numbers of the wanted columns, whose names may hold dots, and of those within them."""
        paths = enumerate(self._paths)
        return [i for i, path in paths if wanted is None or path in wanted or path.partition(".")[0] in wanted]

    @contextmanager
    def sound(self) -> Iterator[None]:
        """What goes wrong in here is damage of the file."""
        try:
            yield
        except (pa.ArrowException, OSError, ValueError, LookupError, TypeError, OverflowError) as error:
            raise IndexMismatch(f"{self._name} is damaged ({error}); {self._advice}") from error


def _texts(
    metadata: pq.FileMetaData, columns: Sequence[int], chunks: Sequence[pq.ColumnChunkMetaData], most: int, said: int
) -> tuple[list[str], int]:
    """The paths of the columns of texts that can be read as dictionaries, and how many rows are unpacked at once."""
    paths: dict[str, bool] = {}
    for chunk in chunks:
        if chunk.physical_type == "BYTE_ARRAY":
            by_differences = any(each.startswith("DELTA") for each in chunk.encodings)
            paths[chunk.path_in_schema] = paths.get(chunk.path_in_schema, True) and not by_differences
    if not paths and not any(metadata.schema.column(i).max_repetition_level for i in columns):
        return [], max(_ROWS, _MANY_ROWS // max(1, len(columns) // 4))
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
