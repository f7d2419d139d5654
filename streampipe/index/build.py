"""``index``: make the index of every shard, and the dataset's manifest."""

from __future__ import annotations

import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tqdm import tqdm

from streampipe.errors import ConfigError, IndexMismatch, StreampipeError
from streampipe.index.find import index_url
from streampipe.index.manifest import NAME, Entry, to_bytes
from streampipe.index.scan import check, scan
from streampipe.index.table import NESTED, ShardIndex
from streampipe.source import Source, has_query, local_path, redact
from streampipe.tar import Limits
from streampipe.urls import ShardList

log = logging.getLogger("streampipe")


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
    interrupted run goes on when it is run again. Before anything is hashed, the headers of all local shards are read
    and the places of the indexes are looked at: what is wrong is said at once, of all shards.

    Raises:
        ConfigError: two shards have the same file name, so one manifest or ``folder`` cannot hold both; a shard is
            compressed; the indexes' folder cannot be written.
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

    _check(urls, places, source, limits or Limits(), threads, progress)

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


def _check(urls: list[str], places: list[str], source: Source, limits: Limits, threads: int, progress: bool) -> None:
    """Find what can be found without hashing: folders that cannot be written, shards that cannot be indexed."""
    for folder in dict.fromkeys(os.path.dirname(path) for path in map(local_path, places) if path is not None):
        there = folder or "."
        while not os.path.isdir(there) and os.path.dirname(there) != there:
            there = os.path.dirname(there) or "."
        if not os.access(there, os.W_OK):
            raise ConfigError(f"{folder or '.'} cannot be written: give --out, a folder for indexes and manifest")

    def wrong(url: str) -> StreampipeError | None:
        try:
            check(url, source, limits)
        except StreampipeError as error:
            return error
        return None

    jobs = zip(urls, map(local_path, places), strict=True)
    local = [url for url, place in jobs if local_path(url) is not None and not (place and os.path.exists(place))]
    with ThreadPoolExecutor(max(1, threads)) as pool:
        done = tqdm(pool.map(wrong, local), total=len(local), unit=" shards", desc="check", disable=not progress)
        errors = [error for error in done if error is not None]
    for error in errors[1:]:
        log.error("%s", error)
    if errors:
        raise errors[0]


def _fitting(source: Source, url: str, place: str) -> ShardIndex | None:
    data = source.read_if_there(place)
    if data is None:
        return None
    try:
        found = ShardIndex.from_bytes(data, redact(place))
    except IndexMismatch:
        return None
    return found if found.shard_bytes == source.size(url) and {"sha256", NESTED} <= set(found.facts) else None
