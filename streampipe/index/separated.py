"""Tables as texts: values separated by commas or tabs, the names of the columns in the first line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

from streampipe.decoding.text import decode_text
from streampipe.errors import DecodeError
from streampipe.tar import Limits

_CELL, _ROW = 64, 300  # bytes that a value, and a row, take besides their characters


def table_rows(data: bytes, kind: str, limits: Limits) -> Iterator[tuple[None, dict[str, Any]]]:
    """The rows of a ``.csv`` or ``.tsv`` by column, as texts; an empty value is None.

    Values may be quoted, and then hold separators and line ends (RFC 4180). A ``.tsv`` in which quotation marks are
    signs like any other is read too.

    Raises:
        DecodeError: it is no text, two columns have one name, a row has more or fewer values than there are columns, or
            it would take more memory than ``limits`` allow.

    >>> [row for _, row in table_rows(b'key,text\\r\\na,"one, two"\\r\\nb,\\r\\n', ".csv", Limits())]
    [{'key': 'a', 'text': 'one, two'}, {'key': 'b', 'text': None}]
    """
    mark = "," if kind == ".csv" else "\t"
    lines = data.count(b"\n") + data.count(b"\r")
    size = len(data) + _CELL * (data.count(mark.encode()) + lines) + _ROW * lines
    if size > limits.max_index_bytes:
        raise DecodeError(
            f"its {lines} lines could take {size} bytes, at most {limits.max_index_bytes} are allowed; raise "
            f"Limits.max_index_bytes if it is meant, or store it as Parquet"
        )
    text = decode_text(data)
    try:
        rows = list(_rows(text, mark, csv.QUOTE_MINIMAL))
    except DecodeError:
        if kind == ".csv" or '"' not in text:
            raise
        rows = list(_rows(text, mark, csv.QUOTE_NONE))
    for row in rows:
        yield None, row


def _rows(text: str, mark: str, quoting: Any) -> Iterator[dict[str, Any]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, quoting=quoting, strict=True)
    names: list[str] = []
    try:
        for row in reader:
            if not row:
                continue
            if not names:
                names = [name.strip() for name in row]
                if len(set(names)) < len(names):
                    raise DecodeError(f"two of its columns have one name: {', '.join(names[:30])}")
            elif len(row) != len(names):
                raise DecodeError(f"line {reader.line_num} has {len(row)} values, the first line names {len(names)}")
            else:
                yield {name: value or None for name, value in zip(names, row, strict=True)}
    except csv.Error as error:
        raise DecodeError(f"line {reader.line_num}: {error}") from error
