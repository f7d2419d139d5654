"""``index``: make the index of every shard, and the dataset's manifest."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tqdm import tqdm

from streampipe.atomic import sweep
from streampipe.errors import ConfigError, IndexMismatch
from streampipe.index.find import index_url
from streampipe.index.manifest import NAME, Entry, to_bytes
from streampipe.index.scan import scan
from streampipe.index.table import NESTED, ShardIndex
from streampipe.source import Source, has_query, local_path, redact
from streampipe.tar import Limits
from streampipe.urls import ShardList


@dataclass
class Summary:
    """What a run of ``index`` did."""

    manifest: str
    shards: int = 0
    kept: int = 0  # shards whose index was there already and fits
    samples: int = 0
    bytes: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        kept = f" ({self.kept} were there already)" if self.kept else ""
        return (
            f"{self.shards} indexes{kept}: {self.samples} samples, {self.bytes / 1e6:.1f} MB, {self.seconds:.1f} s; "
            f"manifest: {self.manifest}"
        )


def index(
    shards: ShardList,
    source: Source,
    *,
    folder: str | None = None,
    threads: int = 4,
    limits: Limits | None = None,
    progress: bool = True,
) -> Summary:
    """Index shards, local or remote, ``threads`` at once, and write the manifest when all are done.

    Each index appears at its place when it is whole. An index that is there and fits its shard (size) is kept, so an
    interrupted run goes on when it is run again.

    Raises:
        ConfigError: two shards have the same file name, so one manifest or ``folder`` cannot hold both.
        SourceError, ShardError: of the first shard that could not be read.
    """
    start = time.perf_counter()
    urls = list(shards)
    if folder is None and (signed := next(filter(has_query, urls), None)):
        raise ConfigError(f"{redact(signed)} has a query (a signature?), so nothing can be put beside it: give --out")
    places = [index_url(url, folder) for url in urls]
    if len(set(places)) < len(places):
        twice = next(place for place in places if places.count(place) > 1)
        raise ConfigError(f"two shards would have the index {redact(twice)}: index their folders one by one")
    target = index_url(urls[0], folder).rpartition("/")
    summary = Summary(redact(f"{target[0]}{target[1]}{NAME}"), shards=len(urls))
    _sweep(places)

    def one(job: tuple[str, str]) -> tuple[Entry, bool]:
        url, place = job
        found = _fitting(source, url, place)
        kept = found is not None
        if found is None:
            found = scan(url, source, limits or Limits())
            source.write(place, found.to_bytes())
        return Entry(redact(url).rpartition("/")[2], found.shard_bytes, len(found), found.facts.get("sha256")), kept

    entries = []
    pool = ThreadPoolExecutor(max(1, threads))
    try:
        done = pool.map(one, zip(urls, places, strict=True))
        for entry, kept in tqdm(done, total=len(urls), unit=" shards", desc="index", disable=not progress):
            entries.append(entry)
            summary.kept += kept
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    source.write(f"{target[0]}{target[1]}{NAME}", to_bytes(entries))
    summary.samples = sum(entry.samples for entry in entries)
    summary.bytes = sum(entry.bytes for entry in entries)
    summary.seconds = time.perf_counter() - start
    return summary


def _sweep(places: Sequence[str]) -> None:
    """Delete what killed runs left beside the indexes."""
    local = [path for path in map(local_path, places) if path is not None]
    names = frozenset([*map(os.path.basename, local), NAME])
    for folder in dict.fromkeys(map(os.path.dirname, local)):
        sweep(folder or ".", names.__contains__)


def _fitting(source: Source, url: str, place: str) -> ShardIndex | None:
    data = source.read_if_there(place)
    if data is None:
        return None
    try:
        found = ShardIndex.from_bytes(data, redact(place))
    except IndexMismatch:
        return None
    return found if found.shard_bytes == source.size(url) and {"sha256", NESTED} <= set(found.facts) else None
