"""``index``: make the index of every shard, and the dataset's manifest."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from streampipe.atomic import sweep
from streampipe.errors import ConfigError, CorruptShard, IndexMismatch, ShardError, StreampipeError
from streampipe.index.find import index_url
from streampipe.index.manifest import NAME, Entry, to_bytes
from streampipe.index.scan import check, scan
from streampipe.index.table import NESTED, ShardIndex
from streampipe.source import Source, has_query, local_path, redact
from streampipe.tar import Limits
from streampipe.urls import ShardList, expand

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
    failed: list[str] = field(default_factory=list)  # a sentence for each shard that has no index now

    def __str__(self) -> str:
        kept = f" ({self.kept} were there already)" if self.kept else ""
        failed = f"; {len(self.failed)} shards are damaged and have none" if self.failed else ""
        return (
            f"{self.shards - len(self.failed)} indexes{kept}: {self.samples} samples, {self.bytes / 1e6:.1f} MB, "
            f"{self.seconds:.1f} s; manifest: {self.manifest}{failed}"
        )


def index(
    urls: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | ShardList,
    source: Source | None = None,
    *,
    folder: str | None = None,
    threads: int = 4,
    on_error: str = "raise",
    limits: Limits | None = None,
    storage_options: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Summary:
    """Index shards, local or remote, ``threads`` at once, and write the manifest when all are done.

    Each index appears at its place when it is whole. An index that is there and fits its shard (size) is kept, so an
    interrupted run goes on when it is run again. Before anything is hashed, the headers of all local shards are read
    and the places of the indexes are looked at: what is wrong is said at once, of all shards.

    Args:
        urls: shards, brace ranges, globs or folders, as for ``sp.stream``.
        source: what opens them, in place of ``storage_options``.
        folder: where indexes and manifest go, if not beside the shards.
        on_error: ``"skip"`` goes on behind a shard that is damaged: it gets no index, is not in the manifest, and is
            listed in the result.
        limits: how large members, headers and samples may be.

    Raises:
        ConfigError: two shards have the same file name, so one manifest or ``folder`` cannot hold both; a shard is
            compressed; the indexes' folder cannot be written.
        SourceError, ShardError: of the first shard that could not be read.

    >>> import os, tempfile, streampipe as sp
    >>> folder = tempfile.mkdtemp()
    >>> pipe = sp.from_iterable([{"__key__": "a", "txt": "a cat"}])
    >>> _ = pipe.write(os.path.join(folder, "{:05d}.tar"), progress=False)
    >>> sp.index(folder, progress=False).samples
    1
    """
    start = time.perf_counter()
    if on_error not in ("raise", "skip"):
        raise ConfigError(f"on_error is 'raise' or 'skip', not {on_error!r}")
    if threads < 1:
        raise ConfigError(f"threads is 1 or more, not {threads}")
    if source is not None and storage_options is not None:
        raise ConfigError("index takes a source or storage_options, not both")
    opened = source or Source(storage_options)
    shards = list(urls if isinstance(urls, ShardList) else expand(urls, lambda: opened))
    if folder is None and (signed := next(filter(has_query, shards), None)):
        raise ConfigError(f"{redact(signed)} has a query (a signature?), so nothing can be put beside it: give --out")
    places = [index_url(url, folder) for url in shards]
    if len(set(places)) < len(places):
        twice = next(place for place in places if places.count(place) > 1)
        raise ConfigError(f"two shards would have the index {redact(twice)}: index their folders one by one")
    target = index_url(shards[0], folder).rpartition("/")
    summary = Summary(redact(f"{target[0]}{target[1]}{NAME}"), shards=len(shards))

    _check(shards, places, opened, limits or Limits(), threads, progress, on_error)
    _make_folders(places)
    _sweep(places)

    def one(job: tuple[str, str]) -> tuple[Entry | None, bool]:
        url, place = job
        found = _fitting(opened, url, place)
        kept = found is not None
        try:
            found = found if found is not None else scan(url, opened, limits or Limits())
        except ShardError as error:
            if on_error == "raise":
                raise
            summary.failed.append(str(error))
            return None, False
        if not kept:
            opened.write(place, found.to_bytes())
        return Entry(redact(url).rpartition("/")[2], found.shard_bytes, len(found), found.facts.get("sha256")), kept

    entries = []
    pool = ThreadPoolExecutor(threads)
    try:
        done = pool.map(one, zip(shards, places, strict=True))
        for entry, kept in tqdm(done, total=len(shards), unit=" shards", desc="index", disable=not progress):
            entries += [entry] if entry is not None else []
            summary.kept += kept
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    summary.failed.sort()
    if not entries:
        raise CorruptShard(f"none of the {len(shards)} shards could be indexed; the first: {summary.failed[0]}")
    opened.write(f"{target[0]}{target[1]}{NAME}", to_bytes(entries))
    summary.samples = sum(entry.samples for entry in entries)
    summary.bytes = sum(entry.bytes for entry in entries)
    summary.seconds = time.perf_counter() - start
    return summary


def check_folders(places: Iterable[str], advice: str) -> None:
    """Find folders of this machine that cannot be written, before there is something to write.

    Raises:
        ConfigError: it says which, and ``advice``.
    """
    for folder in dict.fromkeys(os.path.dirname(path) for path in map(local_path, places) if path is not None):
        there = folder or "."
        while not os.path.lexists(there):
            there = os.path.dirname(there) or "."
        if not os.path.isdir(there) or not os.access(there, os.W_OK):
            raise ConfigError(f"{folder or '.'} cannot be written: {advice}")


def _check(
    urls: list[str], places: list[str], source: Source, limits: Limits, threads: int, progress: bool, on_error: str
) -> None:
    """Find what can be found without hashing: folders that cannot be written, shards that cannot be indexed."""
    check_folders(places, "give --out, a folder for indexes and manifest")

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
    if errors and on_error == "raise":
        raise errors[0]


def _make_folders(places: Sequence[str]) -> None:
    """Make the local folders that the indexes go into."""
    for folder in dict.fromkeys(os.path.dirname(path) for path in map(local_path, places) if path is not None):
        try:
            os.makedirs(folder or ".", exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{folder} cannot be made ({error}): give --out another folder") from error


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
