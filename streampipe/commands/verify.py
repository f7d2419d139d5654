"""``streampipe verify URL...``: read every shard, and compare it with its index and the manifest.

Strategy: a shard is scanned anew, as ``index`` does it, which finds all damage to its structure; the new index is then
compared with the old one, sample by sample. Where a scan breaks off, the samples that the old index knows are read one
by one, so that each damaged one has its line, behind the break too.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any

from tqdm import tqdm

from streampipe.checksum import crc32
from streampipe.cluster import cluster_of
from streampipe.commands.look import samples
from streampipe.commands.say import say_json
from streampipe.decoding import decode_field
from streampipe.decoding.codecs import ALL
from streampipe.decoding.movie import videos_in
from streampipe.decoding.video import check_video
from streampipe.errors import ConfigError, IndexMismatch, SampleError, ShardError, ShardMissing, SourceError
from streampipe.index import Finder, ShardIndex, scan
from streampipe.index.find import index_url
from streampipe.index.manifest import NAME, Entry, entries
from streampipe.kinds import checked
from streampipe.processes import Tell
from streampipe.source import Source, has_query, redact
from streampipe.tar import BLOCK, Limits, compression_of
from streampipe.threads import ordered
from streampipe.urls import ShardList, expand, is_shard, names_of

_SHARD = (ShardError, SourceError)
_THREADS = 4


def run(given: argparse.Namespace) -> int:
    """Verify; 1 if anything is damaged."""
    found = verify(
        given.urls,
        index=given.index,
        decode=given.decode,
        threads=given.threads,
        engine=given.engine,
        address=given.address,
        limits=given.limits,
        storage_options=given.storage_options,
        progress=not given.quiet and not given.json,
    )
    if given.json:
        say_json(asdict(found))
    else:
        for damage in found.damages:
            print(damage)
        if not given.quiet:
            print(found)
    return 1 if found.damages else 0


@dataclass
class Verification:
    """What ``verify`` found: a sentence for each damage; none where all is as it was indexed."""

    shards: int = 0
    damages: list[str] = field(default_factory=list)
    unindexed: int = 0  # shards whose structure was checked, not the bytes of their fields: they have no index
    seconds: float = 0.0

    def __bool__(self) -> bool:
        """Whether all is sound."""
        return not self.damages

    def __str__(self) -> str:
        lines = [f"{self.shards} shards read, {len(self.damages)} damages found"]
        if self.unindexed:
            lines.append(
                f"{self.unindexed} of them without an index: their structure was checked, not the bytes of their fields"
            )
        return "\n".join(lines)


@checked
def verify(
    urls: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    index: str | None = None,
    decode: bool = False,
    threads: int | None = None,
    limits: Limits | None = None,
    storage_options: Mapping[str, Any] | None = None,
    engine: str = "local",
    address: str | None = None,
    progress: bool = True,
) -> Verification:
    """Read every shard, and compare it with its index and the manifest, byte for byte.

    Args:
        urls: shards, brace ranges, globs or folders, as for ``sp.stream``.
        index: the folder of indexes and manifest, if they are not beside the shards.
        decode: decode every field too.
        threads: shards read at once, by default 4; on a cluster tasks at once, by default one a processor.
        limits: how large members, headers and samples may be.
        engine: ``"local"``, or ``"ray"``: shards are tasks of a Ray cluster, whose machines see them under the same
            names.
        address: of the Ray cluster; by default the one that the environment names, else one on this machine.

    Raises:
        SourceError: an index or the list of shards could not be had. What is wrong with shards is in the result.

    >>> import os, tempfile, streampipe as sp
    >>> folder = tempfile.mkdtemp()
    >>> pipe = sp.from_iterable([{"__key__": "a", "txt": "a cat"}])
    >>> _ = pipe.write(os.path.join(folder, "{:05d}.tar"), progress=False)
    >>> print(sp.verify(folder, progress=False))
    1 shards read, 0 damages found
    """
    if threads is not None and threads < 1:
        raise ConfigError(f"threads is 1 or more, not {threads}")
    cluster = cluster_of(engine, address, threads)
    start = time.perf_counter()
    source = Source(storage_options)
    names = names_of(urls)
    shards = expand(urls if isinstance(urls, str) else names, lambda: source)
    finder = Finder(source, limits or Limits(), index)
    manifests, found = _manifests(shards, finder)
    found += _lost(names, shards, finder, manifests)
    result = Verification(len(shards), found)

    known = ((url, manifests[_manifest_url(url, finder)].get(_name(url))) for url in shards)
    jobs = (_Job(url, entry, finder, decode) for url, entry in known)
    if cluster is not None:
        read = cluster.ordered(_read, jobs, lambda amount: None)
    else:
        read = ordered(_read, jobs, threads or _THREADS)
    with closing(read):  # also when it is interrupted: no further shard is begun
        for damages, unindexed in tqdm(read, total=len(shards), unit=" shards", desc="verify", disable=not progress):
            result.damages += damages
            result.unindexed += unindexed
    result.seconds = time.perf_counter() - start
    return result


@dataclass(frozen=True)
class _Job:
    """A shard to be read, and its row of the manifest. Picklable."""

    url: str
    entry: Entry | None
    finder: Finder
    decode: bool


def _read(job: _Job, tell: Tell = lambda amount: None) -> tuple[list[str], bool]:
    """What is wrong with a shard, and whether it has no index."""
    url, finder = job.url, job.finder
    if compression_of(url, _head(url, finder)) is not None:
        known, damages = None, list(_structure(url, finder))
    else:
        known, damages = _index(url, finder)
        damages += _bytes(url, finder, known, job.entry)
    if job.decode:
        damages += _decoded(url, finder)
    return damages, known is None


def _index(url: str, finder: Finder) -> tuple[ShardIndex | None, list[str]]:
    """The index that is kept of a shard (never one that is made now), and what is wrong with it."""
    if has_query(url) and not finder.folder:
        return None, []
    place = index_url(url, finder.folder)
    data = finder.source.read_if_there(place, finder.limits.max_index_bytes)
    if data is None:
        return None, []
    try:
        return ShardIndex.from_bytes(data, redact(place), finder.limits.max_index_bytes), []
    except IndexMismatch as error:
        return None, [str(error)]


def _structure(url: str, finder: Finder) -> Iterator[str]:
    """What is wrong with a compressed shard."""
    try:
        for _ in samples(url, finder):
            pass
    except _SHARD as error:
        yield str(error)


def _bytes(url: str, finder: Finder, index: ShardIndex | None, entry: Entry | None) -> Iterator[str]:
    """What is wrong with a shard's bytes."""
    try:
        now = scan(url, finder.source, finder.limits)
    except _SHARD as error:
        yield str(error)
        if index is not None and not isinstance(error, SourceError):
            yield from _bad_samples(url, finder, index)
        return
    shown = redact(url)
    for name, wanted, samples_wanted, digest in _expected(url, finder, index, entry):
        if now.shard_bytes != wanted or len(now) != samples_wanted:
            yield (
                f"{shown} has {now.shard_bytes} bytes and {len(now)} samples, {name} says {wanted} and "
                f"{samples_wanted}: fetch the shard again, or run streampipe index if it was rewritten"
            )
            break
        if digest is not None and now.facts["sha256"] != digest:
            yield f"{shown}: its bytes are not those that {name} has the sha256 of; fetch the shard again"
            break
    if index is not None:
        yield from _differences(shown, now, index)


def _head(url: str, finder: Finder) -> bytes:
    try:
        return finder.source.read(url, 0, min(BLOCK, finder.source.size(url) or 8))
    except SourceError:
        return b""  # reading it all will say why


def _expected(
    url: str, finder: Finder, index: ShardIndex | None, entry: Entry | None
) -> Iterator[tuple[str, int, int, str | None]]:
    """Who says what of a shard: name of the file, bytes, samples, sha256."""
    if index is not None:
        yield redact(index_url(url, finder.folder)), index.shard_bytes, len(index), index.facts.get("sha256")
    if entry is not None:
        yield redact(_manifest_url(url, finder)), entry.bytes, entry.samples, entry.sha256


def _differences(shown: str, now: ShardIndex, then: ShardIndex) -> Iterator[str]:
    """The samples that are not as they were indexed."""
    wanted = {row["key"]: row for row in _rows(then)}
    for row in _rows(now):
        was = wanted.pop(row["key"], None)
        place = f"{shown}, sample {row['key']!r}, byte {row['offset']}"
        if was is None:
            yield f"{place}: the index does not have it; run streampipe index again if it was added"
        elif any(row[name] != was[name] for name in ("offset", "size", "fields")):
            yield f"{place}: the index has it or its fields elsewhere; run streampipe index if the shard was rewritten"
        elif was["crc32"] is not None and row["crc32"] != was["crc32"]:
            yield f"{place}: its {row['size']} bytes are not those that were indexed (crc32); fetch the shard again"
    for key in wanted:
        yield f"{shown}: sample {key!r} of the index is not there; fetch the shard again"


def _bad_samples(url: str, finder: Finder, index: ShardIndex) -> Iterator[str]:
    """Of a shard that cannot be read to its end, the samples of the index whose bytes changed or are gone."""
    size = finder.source.size(url)
    rows = _rows(index)
    whole = [row for row in rows if size is None or row["offset"] + row["size"] <= size]
    for row in whole:
        start, end, wanted = row["offset"], row["offset"] + row["size"], row["crc32"]
        if wanted is not None and crc32(finder.source.read(url, start, end)) != wanted:
            yield (
                f"{redact(url)}, sample {row['key']!r}, byte {start}: its {row['size']} bytes are not those that were "
                f"indexed (crc32); fetch the shard again"
            )
    if len(whole) < len(rows):
        first, last = rows[len(whole)]["key"], rows[-1]["key"]
        yield f"{redact(url)} lacks {len(rows) - len(whole)} samples of its index, {first!r} to {last!r}, at its end"


def _rows(index: ShardIndex) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = index.table.select(["key", "offset", "size", "crc32", "fields"]).to_pylist()
    return rows


def _decoded(url: str, finder: Finder) -> Iterator[str]:
    """The fields that cannot be decoded; of a video all frames are."""
    try:
        for sample in samples(url, finder):
            for name, value in sample.items():
                if not name.startswith("__"):
                    try:
                        check_video(value) if videos_in({name: value}, gifs=False) else decode_field(
                            name, value, formats=ALL
                        )
                    except SampleError as error:
                        yield f"{redact(url)}, sample {sample['__key__']!r}, field {name!r}: {error}"
    except _SHARD:
        return  # the scan has said so


def _manifest_url(url: str, finder: Finder) -> str:
    folder, slash, _ = index_url(url, finder.folder).rpartition("/")
    return f"{folder}{slash}{NAME}"


def _manifests(shards: ShardList, finder: Finder) -> tuple[dict[str, dict[str, Entry]], list[str]]:
    """The manifests that are there, each by shards' names; and what is wrong with them."""
    found: dict[str, dict[str, Entry]] = {}
    damages = []
    for place in dict.fromkeys(_manifest_url(url, finder) for url in shards):
        data = finder.source.read_if_there(place, finder.limits.max_index_bytes)
        found[place] = {}
        try:
            if data is not None:
                rows = entries(data, redact(place), finder.limits.max_index_bytes)
                found[place] = {entry.shard: entry for entry in rows}
        except IndexMismatch as error:
            damages.append(str(error))
    return found, damages


def _lost(
    urls: Iterable[str], shards: ShardList, finder: Finder, manifests: Mapping[str, Mapping[str, Entry]]
) -> Iterator[str]:
    """Where whole folders are meant: the shards of their manifests that are not there."""
    if all(is_shard(url) and not any(char in url for char in "*?[") for url in urls):
        return
    there = {redact(url) for url in shards}
    for folder in dict.fromkeys(url.rpartition("/")[0] for url in shards):
        base = f"{folder}/" if folder else ""
        place = _manifest_url(base, finder)
        for name in manifests[place]:
            if redact(base + name) not in there:
                try:
                    finder.source.size(base + name)
                except ShardMissing:
                    yield f"{redact(base + name)} is not there, but {redact(place)} has it; fetch it"


def _name(url: str) -> str:
    return redact(url).rpartition("/")[2]
