"""Rows of a table as samples: a column is a field, and each image of a list is one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from streampipe.errors import ConfigError, CorruptShard


def check_names(names: Sequence[str], place: str) -> None:
    """Refuse a table of which a row, as a dict, would lose a value.

    Raises:
        ConfigError: two columns have one name.
    """
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise ConfigError(f"{place} has {names.count(twice[0])} columns {twice[0]!r}: give each a name of its own")


def values_of(batch: pa.RecordBatch, place: str) -> list[dict[str, Any]]:
    """Rows as Python has them.

    Raises:
        ConfigError: Python has no such values.
    """
    try:
        return list(batch.to_pylist())
    except ValueError as error:
        raise ConfigError(
            f"{place}: a column has values that Python has not ({error}): write it as another kind, such as times in "
            f"microseconds, or leave it out: sp.Parquet(..., columns=[...])"
        ) from error


def fields_of(row: dict[str, Any], place: str) -> dict[str, Any]:
    """A row's values as fields.

    Raises:
        CorruptShard: an image is a path without its bytes.
    """
    fields: dict[str, Any] = {}
    for name, value in row.items():
        several = isinstance(value, list) and bool(value) and all(_holds_image(each) for each in value)
        for number, each in enumerate(value if several else [value]):
            field = f"{name}{number}" if several else name
            if _holds_image(each):
                if each["bytes"] is None:
                    raise CorruptShard(
                        f"{place}: column {name!r} holds the path {str(each.get('path'))!r:.80}, not the bytes of an "
                        f"image; write the table with its images in it (datasets: embed_external_files)"
                    )
                each = each["bytes"]
            if each is not None:
                if field in fields:
                    raise CorruptShard(
                        f"{place}: two of its values would be field {field!r}, because each image of a list is a field "
                        f"of its own; rename a column, or leave one out: columns="
                    )
                fields[field] = each
    return fields


def _holds_image(value: Any) -> bool:
    held = value.get("bytes", 0) if isinstance(value, dict) else 0
    return isinstance(held, bytes) or (held is None and "path" in value)
