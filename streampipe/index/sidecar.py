"""Sidecars: files with more about samples, by key. JSON, JSON lines, CSV, TSV, Parquet, or a parallel tar."""

from __future__ import annotations

import json
import os
import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from streampipe.decoding.inflate import gunzip
from streampipe.decoding.text import LINE_END, check_parsed, decode_text
from streampipe.errors import ConfigError, DecodeError, DuplicateKey, IndexMismatch, ShardMissing
from streampipe.index.parquet import read_table
from streampipe.index.separated import table_rows
from streampipe.samples import group
from streampipe.source import Source, has_query, redact
from streampipe.tar import BLOCK, Limits, compression_of, decompress, read_members, stream_members
from streampipe.urls import SHARD_SUFFIXES, is_shard, stem_of

SUFFIXES = (*SHARD_SUFFIXES, ".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
_ROW_BYTES = 160  # of a key and its number in a dict
_SLOTS = ("stem", "folder", "name")
Columns = Mapping[str, str] | None
"""The wanted columns, by their new names; None for all."""


class Rows(Protocol):
    """The rows of a sidecar, by key."""

    columns: tuple[str, ...]

    def get(self, key: str) -> dict[str, Any] | None:
        """The values of a key by column; None if it has no row."""
        ...

    def some(self) -> list[str]:
        """A few keys, for messages."""
        ...


class Place:
    """From a shard's URL to that of its sidecar: a template, or a function.

    ``{stem}`` is the shard's URL without ``.tar`` (``.tar.gz``, ...), ``{folder}`` and ``{name}`` its two parts. A
    text without any is one file for all shards. A function may return None: this shard has no sidecar.

    >>> Place("{stem}.recap.json")("s3://b/laion/00000.tar"), Place("meta/{name}.parquet")("s3://b/laion/00000.tar")
    ('s3://b/laion/00000.recap.json', 'meta/00000.parquet')
    """

    def __init__(self, given: str | os.PathLike[str] | Callable[[str], str | None]) -> None:
        self.given = os.fspath(given) if isinstance(given, os.PathLike) else given
        if isinstance(self.given, str):
            try:
                slots = {slot for _, slot, _, _ in string.Formatter().parse(self.given) if slot is not None}
            except ValueError as error:
                raise ConfigError(f"join: {redact(self.given)!r} is no template ({error})") from None
            if slots - set(_SLOTS):
                raise ConfigError(
                    f"join: {redact(self.given)!r}: a template has {{stem}}, {{folder}} and {{name}}, not "
                    f"{{{min(slots - set(_SLOTS))}}}; or give a function from a shard's URL to its sidecar's"
                )
        elif not callable(self.given):
            raise ConfigError(f"join takes a template, a path or a function, not {type(given).__name__}")

    def __call__(self, shard: str) -> str | None:
        """The URL of a shard's sidecar."""
        if not isinstance(self.given, str):
            found = self.given(shard)
            if found is not None and not isinstance(found, (str, os.PathLike)):
                raise ConfigError(
                    f"join: the function gave {type(found).__name__} for {redact(shard)}, not a URL or None"
                )
            return None if found is None else os.fspath(found)
        if "{" in self.given and has_query(shard):
            raise ConfigError(
                f"join: {redact(shard)} has a query, such as a signature, which fits no other object; give a function "
                f"from its URL to that of its sidecar"
            )
        stem = stem_of(shard)
        folder, _, name = stem.rpartition("/")
        return self.given.format(stem=stem, folder=folder or ".", name=name)


def read(url: str, shard: str, source: Source, on: str, columns: Columns, limits: Limits) -> Rows:
    """The rows of a sidecar. ``on`` is the column that has their keys.

    Raises:
        ShardMissing: it is not there.
        IndexMismatch: it is damaged, or lacks a column.
        DuplicateKey: a key has two rows.
        ConfigError: its name ends in none of the known ways.
    """
    shown = redact(url)
    name = url.partition("?")[0].lower()
    packed = name.endswith(".gz") and not is_shard(name)
    kind = next((each for each in SUFFIXES if name.removesuffix(".gz" if packed else "").endswith(each)), None)
    if kind is None:
        raise ConfigError(f"join: {shown} ends in none of {', '.join(SUFFIXES)}, so its format is not known")
    try:
        if kind in SHARD_SUFFIXES:
            return _of_tar(url, shown, source, columns, limits)
        data = _small(url, source, limits)
    except ShardMissing as error:
        raise ShardMissing(
            f"{shown} is not there: it is the sidecar of {redact(shard)}; make it, mend the template, or give a "
            f"function that returns None for shards that have none"
        ) from error
    try:
        if packed:
            data = gunzip(data, limits.max_index_bytes)
        if kind == ".parquet":
            return _of_parquet(data, shown, on, columns, limits)
        rows = table_rows(data, kind, limits) if kind in (".csv", ".tsv") else _json_rows(data, shown, kind, limits)
        return _Dicts(_by_key(rows, shown, on), shown, on, columns)
    except DecodeError as error:
        raise IndexMismatch(f"{shown} is no sound {kind[1:]}: {error}") from error


def _small(url: str, source: Source, limits: Limits) -> bytes:
    data = source.read_if_there(url, limits.max_index_bytes)
    return source.read(url) if data is None else data  # reading says whether it is missing or forbidden


class _Dicts:
    """Rows that are dicts."""

    def __init__(self, rows: dict[str, dict[str, Any]], shown: str, on: str, columns: Columns) -> None:
        self._rows = rows
        there = dict.fromkeys(name for row in rows.values() for name in row)
        self._names = _wanted([name for name in there if name != on], shown, columns)
        self.columns = tuple(self._names)

    def get(self, key: str) -> dict[str, Any] | None:
        """The values of a key by column."""
        row = self._rows.get(key)
        return None if row is None else {new: _value(row.get(old)) for new, old in self._names.items()}

    def some(self) -> list[str]:
        """A few keys."""
        return list(islice(self._rows, 3))


class _Table:
    """Rows of a Parquet file, as it holds them: a row becomes Python when it is wanted."""

    def __init__(self, table: pa.Table, keys: dict[str, int], names: Mapping[str, str]) -> None:
        self._row = keys
        self._held = {new: table.column(old).combine_chunks() for new, old in names.items()}
        self.columns = tuple(names)

    def get(self, key: str) -> dict[str, Any] | None:
        """The values of a key by column."""
        row = self._row.get(key)
        return None if row is None else {name: _scalar(held[row]) for name, held in self._held.items()}

    def some(self) -> list[str]:
        """A few keys."""
        return list(islice(self._row, 3))


def _of_parquet(data: bytes, shown: str, on: str, columns: Columns, limits: Limits) -> Rows:
    names: dict[str, str] = {}

    def choose(schema: pa.Schema) -> list[str]:
        there = list(schema.names)
        key = _key_column(there, on)
        if key is None:
            raise IndexMismatch(_no_key(shown, on, there))
        names.update(_wanted([name for name in there if name != key], shown, columns))
        return [key, *names.values()]

    table = read_table(data, shown, limits.max_index_bytes, choose, "fetch or make it again", _ROW_BYTES)
    key = _key_column(table.column_names, on) or on
    found: dict[str, int] = {}
    for row, value in enumerate(table.column(key).to_pylist()):
        if value is not None and found.setdefault(str(value), row) != row:
            raise _twice(shown, str(value))
    return _Table(table, found, names)


def _of_tar(url: str, shown: str, source: Source, columns: Columns, limits: Limits) -> Rows:
    data = source.buffer(url)
    data = memoryview(source.read(url)) if data is None else data
    kind = compression_of(url, bytes(data[:BLOCK]))
    if kind is None:
        members = read_members(data, shard=shown, limits=limits)
    else:
        members = stream_members(
            decompress([bytes(data)], shard=shown, kind=kind, limits=limits), shard=shown, limits=limits
        )
    rows: dict[str, dict[str, Any]] = {}
    for sample in group(members, shown, views=True, limits=limits, place="joining"):
        rows[sample["__key__"]] = {name: value for name, value in sample.items() if not name.startswith("__")}
    return _Dicts(rows, shown, "__key__", columns)


def _json_rows(data: bytes, shown: str, kind: str, limits: Limits) -> Iterable[tuple[str | None, Any]]:
    """Keys (where they stand outside of the rows) and rows."""
    check_parsed(data, limits.max_index_bytes)
    text = decode_text(data)
    twice: list[str | None] = [None]

    def checked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        names = [name for name, _ in pairs]
        twice[0] = None if len(made) == len(pairs) else next(name for name in made if names.count(name) > 1)
        return made

    try:
        if kind != ".json":
            return [(None, row) for row in _lines(text)]
        found = json.loads(text, object_pairs_hook=checked)
    except (ValueError, RecursionError) as error:
        raise IndexMismatch(f"{shown} is no sound {kind[1:]} ({error}); fetch or make it again") from error
    if isinstance(found, list):
        return [(None, row) for row in found]
    if not isinstance(found, dict):
        raise IndexMismatch(f"{shown} is neither an object by key nor a list of rows")
    if twice[0] is not None:  # the outermost object is the last that is checked
        raise _twice(shown, twice[0])
    return list(found.items())


def _lines(text: str) -> Iterator[Any]:
    for number, line in enumerate(LINE_END.split(text), 1):
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None


def _by_key(rows: Iterable[tuple[str | None, Any]], shown: str, on: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for key, row in rows:
        if key is None:
            if not isinstance(row, dict):
                raise IndexMismatch(f"{shown}: its rows are no objects but {type(row).__name__}")
            name = _key_column(row, on)
            if name is None or row[name] is None:
                raise IndexMismatch(_no_key(shown, on, list(row)))
            key = str(row[name])
            row = {column: value for column, value in row.items() if column != name}
        if key in found:
            raise _twice(shown, key)
        found[key] = row if isinstance(row, dict) else {"value": row}
    return found


def _key_column(there: Iterable[str], on: str) -> str | None:
    names = set(there)
    return next((name for name in (on, "__key__" if on == "key" else on) if name in names), None)


def _wanted(there: Sequence[str], shown: str, columns: Columns) -> dict[str, str]:
    """The columns to give, by their new names."""
    if columns is None:
        return {name: name for name in there if not name.startswith("__")}
    gone = [old for old in columns.values() if old not in there]
    if gone and there:
        raise IndexMismatch(f"{shown} has no column {gone[0]!r}; it has {', '.join(there[:30])}")
    return dict(columns)


def _value(value: Any) -> Any:
    """A value as a sample holds it: lists of numbers as arrays, views as bytes."""
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, list) and value and all(type(each) in (int, float) for each in value):
        return np.asarray(value)
    return value


def _scalar(value: pa.Scalar) -> Any:
    if not value.is_valid:
        return None
    kind = value.type
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    numbers = lists and (pa.types.is_integer(kind.value_type) or pa.types.is_floating(kind.value_type))
    if numbers and value.values.null_count == 0:
        return value.values.to_numpy().copy()
    return value.as_py()


def _twice(shown: str, key: str) -> DuplicateKey:
    return DuplicateKey(f"{shown} has key {key!r} twice: one row for each key is needed; leave one out")


def _no_key(shown: str, on: str, there: Sequence[str]) -> str:
    return f"{shown} has no column {on!r} for the keys (it has {', '.join(there[:30])}); name that column in on="
