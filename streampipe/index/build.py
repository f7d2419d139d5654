"""``index``: make the index of every shard, and the dataset's manifest."""

from __future__ import annotations

import glob
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from tqdm import tqdm

from streampipe.atomic import sweep
from streampipe.checksum import crc32
from streampipe.cluster import cluster_of
from streampipe.errors import ConfigError, CorruptShard, IndexMismatch, ShardError, StreampipeError
from streampipe.index.find import index_url
from streampipe.index.manifest import NAME, Entry
from streampipe.index.scan import check, scan
from streampipe.index.table import IMAGES, NESTED, VIDEOS, ShardIndex
from streampipe.index.whole import Indexed, Whole
from streampipe.kinds import checked
from streampipe.pool import Pool
from streampipe.processes import Tell
from streampipe.source import Pin, Source, has_query, local_path, redact
from streampipe.tar import Limits
from streampipe.threads import ordered
from streampipe.urls import ShardList, expand

log = logging.getLogger("streampipe")
_THREADS = 4
_SEEN = "seen"
"""The fact of an index that says which version of a remote shard it was made of, and where that was."""


@dataclass
class Summary:
    """What a run of ``index`` did."""

    manifest: str  # of the first folder
    folders: int = 1
    shards: int = 0
    kept: int = 0  # shards whose index was there already and fits
    samples: int = 0
    bytes: int = 0
    seconds: float = 0.0
    failed: list[str] = field(default_factory=list)  # a sentence for each shard that has no index now

    def __str__(self) -> str:
        kept = f" ({self.kept} were there already)" if self.kept else ""
        failed = f"; {len(self.failed)} shards are damaged and have none" if self.failed else ""
        others = f" and {self.folders - 1} in other folders" if self.folders > 1 else ""
        return (
            f"{self.shards - len(self.failed)} indexes{kept}: {self.samples} samples, {self.bytes / 1e6:.1f} MB, "
            f"{self.seconds:.1f} s; manifest: {self.manifest}{others}{failed}"
        )


@checked
def index(
    urls: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | ShardList,
    source: Source | None = None,
    *,
    folder: str | None = None,
    threads: int | None = None,
    on_error: str = "raise",
    limits: Limits | None = None,
    storage_options: Mapping[str, Any] | None = None,
    engine: str = "local",
    address: str | None = None,
    progress: bool = True,
) -> Summary:
    """Index shards, local or remote, several at once, and write the manifest of each folder when all in it are done.

    Each index appears at its place when it is whole. An index that is there and fits its shard is kept, so an
    interrupted run goes on when it is run again: it is of a shard of this size that has not changed since it was made
    (of a remote shard the store tells by its version, where this command made the index). Before anything is hashed,
    the headers of all local shards are read and the places of the indexes are looked at: what is wrong is said at once,
    of all shards.

    Args:
        urls: shards, brace ranges, globs or folders, as for ``sp.stream``.
        source: what opens them, in place of ``storage_options``.
        folder: where indexes and manifest go, if not beside the shards.
        threads: shards read at once, by default 4; on a cluster tasks at once, by default one a processor.
        on_error: ``"skip"`` goes on behind a shard that is damaged: it gets no index, is not in the manifest, and is
            listed in the result.
        limits: how large members, headers and samples may be.
        engine: ``"local"``, or ``"ray"``: shards are tasks of a Ray cluster, whose machines see them under the same
            names. The indexes and the manifest are the same.
        address: of the Ray cluster; by default the one that the environment names, else one on this machine.

    Raises:
        ConfigError: two shards would have the same index (in ``folder``, those of one name); a shard is compressed; the
            indexes' folder cannot be written.
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
    if threads is not None and threads < 1:
        raise ConfigError(f"threads is 1 or more, not {threads}")
    cluster = cluster_of(engine, address, threads)
    if source is not None and storage_options is not None:
        raise ConfigError("index takes a source or storage_options, not both")
    opened = source or Source(storage_options)
    shards = list(urls if isinstance(urls, ShardList) else expand(urls, lambda: opened))
    places = _places(shards, folder)
    summary = Summary(redact(_base(places[0]) + NAME), shards=len(shards))

    bounds = limits or Limits()
    _check(shards, places, opened, bounds, threads or _THREADS, progress, on_error)
    _make_folders(places)
    _sweep(places)
    jobs: dict[str, dict[str, _Job]] = {}  # by folder and name
    for url, place in zip(shards, places, strict=True):
        jobs.setdefault(_base(place), {})[_name(url)] = _Job(url, place, opened, bounds, on_error)
    wholes = [Whole(opened, base, list(mine)) for base, mine in jobs.items()]
    summary.folders = len(wholes)
    wanted = (mine[name] for whole, mine in zip(wholes, jobs.values(), strict=True) for name in whole.order)
    if cluster is not None:
        done = cluster.ordered(_indexed, wanted, lambda amount: None)
    else:
        done = ordered(_indexed, wanted, threads or _THREADS)
    with closing(done):
        found = _counted(done, summary, progress)
        for whole, mine in zip(wholes, jobs.values(), strict=True):
            staying = _still_there(whole.others, [job.url for job in mine.values()], opened)
            whole.update(islice(found, len(mine)), staying)
    summary.failed.sort()
    summary.seconds = time.perf_counter() - start
    return summary


def _places(shards: Sequence[str], folder: str | None) -> list[str]:
    """Where the index of each shard goes.

    Raises:
        ConfigError: nothing can be put beside a shard, or two would have the same index.
    """
    if folder is None and (signed := next(filter(has_query, shards), None)):
        raise ConfigError(f"{redact(signed)} has a query (a signature?), so nothing can be put beside it: give --out")
    places = [index_url(url, folder) for url in shards]
    if len(set(places)) < len(places):
        twice = next(place for place in places if places.count(place) > 1)
        raise ConfigError(f"two shards would have the index {redact(twice)}: index their folders one by one")
    return places


def _counted(done: Iterator[tuple[Indexed, str | None]], summary: Summary, progress: bool) -> Iterator[Indexed]:
    """What is indexed, counted in the summary; shards of which none could be are an error."""
    for each, why in tqdm(done, total=summary.shards, unit=" shards", desc="index", disable=not progress):
        if why is not None:
            summary.failed.append(why)
        if each.entry is not None:
            summary.kept += each.kept
            summary.samples += each.entry.samples
            summary.bytes += each.entry.bytes
        if len(summary.failed) == summary.shards:
            raise CorruptShard(
                f"none of the {summary.shards} shards could be indexed; the first: {min(summary.failed)}"
            )
        yield each


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


@dataclass(frozen=True)
class _Job:
    """A shard to be indexed, and where its index goes. Picklable."""

    url: str
    place: str
    source: Source
    limits: Limits
    on_error: str


def _indexed(job: _Job, tell: Tell = lambda amount: None) -> tuple[Indexed, str | None]:
    """Index a shard, unless its index is there; and say what is wrong with one that is left out."""
    name, data = _name(job.url), job.source.read_if_there(job.place)
    pin = job.source.pin(job.url)
    found = None if data is None else _fitting(data, pin, job.url, job.place)
    kept = found is not None
    try:
        if found is None:
            found = scan(job.url, job.source, job.limits)
            if (seen := _seen(job.url, pin)) is not None:
                found.facts[_SEEN] = seen
    except ShardError as error:
        if job.on_error == "raise":
            raise
        return Indexed(name, None), str(error)
    if data is None or not kept:
        job.source.write(job.place, data := found.to_bytes())
    digest = found.facts.get("sha256")
    return Indexed(name, Entry(name, found.shard_bytes, len(found), digest, crc32(data)), kept, found), None


def _base(place: str) -> str:
    """The folder of an index, with its slash; empty for the one that the process is in."""
    return "".join(place.rpartition("/")[:2])


def _name(url: str) -> str:
    return redact(url).rpartition("/")[2]


def _still_there(names: Sequence[str], urls: Sequence[str], source: Source) -> set[str]:
    """Those of the names that are still in the folders of the shards that are indexed now."""
    if not names:
        return set()
    folders = dict.fromkeys(url.rpartition("/")[0] for url in urls if not has_query(url))
    patterns = [f"{each if '://' in each else glob.escape(each or '.')}/*" for each in folders]
    there = {url.rpartition("/")[2] for pattern in patterns for url in source.glob(pattern)}
    return there & set(names)


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
    with Pool(threads) as pool:
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


def _fitting(data: bytes, pin: Pin, url: str, place: str) -> ShardIndex | None:
    """The index that is there, if it fits its shard."""
    try:
        found = ShardIndex.from_bytes(data, redact(place))
    except IndexMismatch:
        return None
    if found.shard_bytes != pin.size or not {"sha256", NESTED, VIDEOS, IMAGES} <= set(found.facts):
        return None
    if _changed_since(found, pin, url, place):
        log.info("%s is older than its shard, and is made anew", redact(place))
        return None
    return found


def _changed_since(found: ShardIndex, pin: Pin, url: str, place: str) -> bool:
    """Whether a shard was written after its index: tars are filled up, so another one often has the same size."""
    shard, index = local_path(url), local_path(place)
    if shard is None:
        was, now = found.facts.get(_SEEN), _seen(url, pin)
        return isinstance(was, dict) and now is not None and was.get("url") == now["url"] and was != now
    return index is not None and os.stat(shard).st_mtime_ns > os.stat(index).st_mtime_ns


def _seen(url: str, pin: Pin) -> dict[str, str] | None:
    """Which version of a remote shard is indexed. A copy of it elsewhere may well be called another version."""
    if local_path(url) is not None or pin.mark is None:
        return None
    return {"url": redact(url), "mark": pin.mark}
