"""Facts that other tools left beside shards: img2dataset, open_clip, wids."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from streampipe.errors import IndexMismatch
from streampipe.index.facts import column_name, is_scalar
from streampipe.index.parquet import read_table
from streampipe.source import Source, has_query, redact
from streampipe.tar import Limits
from streampipe.urls import SHARD_SUFFIXES, ShardList

_NOT_FACTS = ("key", "status", "error_message")


def columns_beside(url: str, source: Source) -> dict[str, dict[str, Any]]:
    """img2dataset's ``00000.parquet``: the scalars of each key whose download succeeded; nothing if there is none.

    Raises:
        IndexMismatch: the file is there and damaged.
    """
    if has_query(url):
        return {}
    place = f"{_stem(url)}.parquet"
    data = source.read_if_there(place)
    if data is None:
        return {}
    table = read_table(data, redact(place), Limits.max_index_bytes)
    if "key" not in table.column_names:
        return {}
    found = {}
    for row in table.to_pylist():
        if row.get("status", "success") == "success":
            facts = {column_name(name): v for name, v in row.items() if name not in _NOT_FACTS and is_scalar(v)}
            found[str(row["key"])] = facts
    return found


def known_counts(shards: ShardList, source: Source) -> np.ndarray | None:
    """The samples of each shard by open_clip's ``sizes.json``, wids' ``shardindex.json`` or img2dataset's
    ``00000_stats.json``; None where none of them knows every shard.
    """
    if has_query(shards[0]):
        return None
    folder = shards[0].rpartition("/")[0]
    names = [url.rpartition("/")[2] for url in shards]
    for counts in (_sizes(f"{folder}/sizes.json", source), _shardindex(f"{folder}/shardindex.json", source)):
        if counts and all(name in counts for name in names):
            return np.array([counts[name] for name in names], np.int64)
    first = _successes(shards[0], source)
    if first is None:
        return None
    with ThreadPoolExecutor(16) as pool:
        numbers = list(pool.map(lambda url: _successes(url, source), shards))
    return None if any(number is None for number in numbers) else np.array(numbers, np.int64)


def _sizes(place: str, source: Source) -> Mapping[str, int]:
    found = _json(place, source)
    return {name: int(count) for name, count in found.items()} if isinstance(found, dict) else {}


def _shardindex(place: str, source: Source) -> Mapping[str, int]:
    found = _json(place, source)
    shards = found.get("shardlist", []) if isinstance(found, dict) else []
    return {str(each["url"]).rpartition("/")[2]: int(each["nsamples"]) for each in shards}


def _successes(url: str, source: Source) -> int | None:
    found = _json(f"{_stem(url)}_stats.json", source)
    return int(found["successes"]) if isinstance(found, dict) and "successes" in found else None


def _json(place: str, source: Source) -> Any:
    data = source.read_if_there(place)
    if data is None:
        return None
    try:
        return json.loads(data)
    except ValueError as error:
        raise IndexMismatch(f"{redact(place)} is no JSON ({error}); mend it, or delete it") from error


def _stem(url: str) -> str:
    suffix = next((each for each in SHARD_SUFFIXES if url.endswith(each)), "")
    return url[: len(url) - len(suffix)]
