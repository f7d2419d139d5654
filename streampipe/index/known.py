"""Facts that other tools left beside shards: img2dataset, open_clip, wids."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from streampipe.counters import counters
from streampipe.decoding.text import decode_json
from streampipe.errors import DecodeError, IndexMismatch, SourceError
from streampipe.index.facts import column_name, is_scalar
from streampipe.index.parquet import read_table
from streampipe.pool import Pool
from streampipe.source import Source, has_query, redact
from streampipe.tar import Limits
from streampipe.urls import ShardList, stem_of

log = logging.getLogger("streampipe")
_NOT_FACTS = ("key", "status", "error_message")
_ROW_BYTES = 160  # of a key and its number in a dict


class Known:
    """What img2dataset's ``00000.parquet`` knows of the samples of its shard; nothing where there is none.

    It is held as a table: a row becomes Python's objects when its key is asked for.
    """

    def __init__(self, table: pa.Table | None = None) -> None:
        self._row: dict[str, int] = {}
        self._columns: dict[str, pa.Array] = {}
        if table is None or "key" not in table.column_names:
            return
        there = set(table.column_names)
        status = table.column("status").to_pylist() if "status" in there else None
        for row, key in enumerate(table.column("key").to_pylist()):
            if key is not None and (status is None or status[row] == "success"):
                self._row[str(key)] = row
        self._columns = {column_name(name): table.column(name) for name in there - set(_NOT_FACTS)}

    def get(self, key: str) -> dict[str, Any]:
        """The scalars of a key, by column; of a download that failed there are none."""
        row = self._row.get(key)
        if row is None:
            return {}
        found = ((name, column[row].as_py()) for name, column in self._columns.items())
        return {name: value for name, value in found if is_scalar(value)}


def columns_beside(url: str, source: Source, limits: Limits | None = None) -> Known:
    """What img2dataset's ``00000.parquet`` beside a shard knows of its samples.

    A file that is damaged, too large or of another kind is passed over, logged and counted: it is another tool's, often
    unfinished, and says nothing about the shard.
    """
    if has_query(url):
        return Known()
    place = f"{stem_of(url)}.parquet"
    most = (limits or Limits()).max_index_bytes
    try:
        data = source.read_if_there(place, most)
        table = None if data is None else read_table(data, redact(place), most, _scalars, "mend it", _ROW_BYTES)
    except (IndexMismatch, SourceError) as error:
        if type(error) not in (IndexMismatch, SourceError):
            raise  # the store failed: what it has may be needed
        _passed_over(error)
        return Known()
    return Known(table)


def _scalars(schema: pa.Schema) -> list[str]:
    """The columns that can hold facts; none where there are no keys, or names come twice."""
    if schema.get_field_index("key") < 0 or len(set(schema.names)) < len(schema.names):
        return []
    kinds = pa.types
    return [
        field.name
        for field in schema
        if kinds.is_string(field.type)
        or kinds.is_large_string(field.type)
        or kinds.is_boolean(field.type)
        or kinds.is_integer(field.type)
        or kinds.is_floating(field.type)
    ]


def _passed_over(why: object) -> None:
    """Count a file of another tool that cannot be used, and log the 1st, 2nd, 4th, 8th, ... of them."""
    counters.add("beside shards", "files of other tools passed over")
    seen = int(counters.get("beside shards", "files of other tools passed over"))
    if seen & (seen - 1) == 0:
        log.warning("%s; it is passed over (number %d): the shards beside it are read without", why, seen)


def known_counts(shards: ShardList, source: Source) -> np.ndarray | None:
    """The samples of each shard by open_clip's ``sizes.json``, wids' ``shardindex.json`` or img2dataset's
    ``00000_stats.json``; None where none of them knows every shard.
    """
    if has_query(shards[0]):
        return None
    folders: dict[str, list[int]] = {}
    for number, url in enumerate(shards):
        folders.setdefault(url[: url.rfind("/") + 1], []).append(number)
    found = np.zeros(len(shards), np.int64)
    for folder, numbers in folders.items():
        counts = _of_folder(folder, [shards[number][len(folder) :] for number in numbers], source)
        if counts is None:
            break
        found[numbers] = counts
    else:
        return found
    first = _successes(shards[0], source)
    if first is None:
        return None
    with Pool(16) as pool:
        successes = list(pool.map(lambda url: _successes(url, source), shards))
    return None if any(each is None for each in successes) else np.array(successes, np.int64)


def _of_folder(folder: str, names: Sequence[str], source: Source) -> list[int] | None:
    """The samples of the shards of these names in a folder that ends in a slash, or is empty, by one file for all."""
    for read, name in ((_sizes, "sizes.json"), (_shardindex, "shardindex.json")):
        counts = read(folder + name, source)
        if counts and all(each in counts for each in names):
            return [counts[each] for each in names]
    return None


def _sizes(place: str, source: Source) -> Mapping[str, int]:
    found = _json(place, source)
    return _counts(place, found.items()) if isinstance(found, dict) else {}


def _shardindex(place: str, source: Source) -> Mapping[str, int]:
    found = _json(place, source)
    shards = found.get("shardlist", []) if isinstance(found, dict) else []
    rows = [each for each in shards if isinstance(each, dict)] if isinstance(shards, list) else []
    counts = _counts(place, ((str(each.get("url")), each.get("nsamples")) for each in rows))
    times = Counter(url.rpartition("/")[2] for url in counts)
    named = ((url.rpartition("/")[2], number) for url, number in counts.items())
    return {name: number for name, number in named if times[name] == 1}  # of two of one name nobody knows which it is


def _successes(url: str, source: Source) -> int | None:
    place = f"{stem_of(url)}_stats.json"
    found = _json(place, source)
    if not isinstance(found, dict) or "successes" not in found:
        return None
    return _counts(place, [("", found["successes"])]).get("")


def _counts(place: str, pairs: Iterable[tuple[str, Any]]) -> dict[str, int]:
    """Numbers of samples by name; nothing at all where one of them is none."""
    counts = dict(pairs)
    odd = next((each for each in counts.values() if count_of(each) is None), None)
    if odd is not None or None in counts.values():
        _passed_over(f"{redact(place)} states {odd!r} as a number of samples")
        return {}
    return {name: int(each) for name, each in counts.items()}


def count_of(value: Any) -> int | None:
    """A number of samples, 0 or more; floats too, where they are whole.

    >>> count_of(3), count_of(3.0), count_of("3"), count_of(-1), count_of(float("nan"))
    (3, 3, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1 << 53:
        return None
    return int(value) if value == int(value) else None


def _json(place: str, source: Source) -> Any:
    data = source.read_if_there(place)
    if data is None:
        return None
    try:
        return decode_json(data)
    except DecodeError as error:
        _passed_over(f"{redact(place)} is no JSON ({error})")
        return None
