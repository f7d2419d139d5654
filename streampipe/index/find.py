"""Where a shard's index is found: beside the shard, under ``index=``, remembered from an earlier scan, or made now."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Collection

from streampipe.counters import counters
from streampipe.errors import ConfigError, CorruptShard, IndexMismatch, ShardMissing, SourceError
from streampipe.index.columns import Columns
from streampipe.index.memory import memory, own_folder
from streampipe.index.note import Note
from streampipe.index.ready import Ready
from streampipe.index.scan import HasLinks, scan
from streampipe.index.table import BYTES, IMAGES, NEEDS, NESTED, VIDEOS, ShardIndex, make
from streampipe.source import Source, has_query, local_path, redact
from streampipe.tar import BLOCK, Limits, compression_of
from streampipe.urls import stem_of

log = logging.getLogger("streampipe")
SUFFIX = ".index.parquet"
MISSING_SHARDS = ("error", "skip")


def index_url(url: str, folder: str | None = None) -> str:
    """Where the index of a shard belongs: beside it, or in ``folder``.

    >>> index_url("s3://b/00000.tar"), index_url("a/00000.tar.gz", "facts/")
    ('s3://b/00000.index.parquet', 'facts/00000.index.parquet')
    """
    if has_query(url):  # a signature is of one object alone, and no part of its name
        url = url.partition("?")[0]
    stem = stem_of(url)
    return f"{folder.rstrip('/')}/{stem.rpartition('/')[2]}{SUFFIX}" if folder else stem + SUFFIX


class Finder:
    """Finds the indexes of shards. Holds settings only, so it can be pickled."""

    def __init__(
        self,
        source: Source,
        limits: Limits,
        folder: str | None = None,
        missing_shards: str = "error",
        scans: bool = True,
    ) -> None:
        if missing_shards not in MISSING_SHARDS:
            raise ConfigError(f"missing_shards is one of {', '.join(MISSING_SHARDS)}, not {missing_shards!r}")
        self.source = source
        self.limits = limits
        self.folder = folder
        self.missing_shards = missing_shards
        self.scans = scans  # local shards that have no index
        self._ready = Ready()

    def find_for_reading(self, url: str, columns: Collection[str] | None) -> ShardIndex | None:
        """``find`` for who counts samples that will be read: their index is kept until they are, if it is small."""
        if columns is None:
            return self.find(url)
        found = self.find(url, columns=BYTES.union(columns))
        if found is not None and found.place is not None:
            self._ready.keep(found.place, BYTES.union(columns), found)
        return found

    def find(self, url: str, sized: bool = True, columns: Collection[str] | None = None) -> ShardIndex | None:
        """The index of a shard; None where there is none and the shard is no local, plain tar that could be scanned.

        With ``columns`` only those and the samples' places are read. With ``sized`` False the shard is not asked for
        its size, which takes a request: then ``check_size`` later.

        Where missing shards are skipped, one that is not there has an index without samples.

        Raises:
            IndexMismatch: there is one, but it is damaged or does not fit the shard.
            ShardMissing: the shard is not there.
        """
        try:
            return self._found(url, sized, columns)
        except ShardMissing as error:
            self.skip_missing(error)
            return make([], Columns(), {"bytes": 0})

    def note_of(self, url: str) -> Note | None:
        """What takes note of a shard that is streamed now; None where nothing is learnt of it."""
        return None

    def skip_missing(self, error: ShardMissing) -> None:
        """Count and log a shard that is not there, or raise."""
        if self.missing_shards == "error":
            raise error
        counters.add("reading", "missing shards")
        seen = int(counters.get("reading", "missing shards"))
        if seen & (seen - 1) == 0:
            log.warning("a missing shard is skipped (number %d): %s", seen, error)

    def _found(self, url: str, sized: bool, columns: Collection[str] | None) -> ShardIndex | None:
        place = index_url(url, self.folder)
        found = self._read(place, redact(place), columns) if self.folder or not has_query(url) else None
        if found is not None:
            if sized:
                self.check_size(found.shard_bytes, url, self.source.size(url))
            return self._allowed(found, url)
        path = local_path(url)
        if path is None and self.missing_shards == "skip":
            self.source.size(url)  # which says if the shard is not there either: it has no samples then
        if path is None or not self.scans or self._compression(url, path) is not None:
            return None
        try:
            return self._allowed(self._remembered(url, path, columns), url)
        except HasLinks:
            return None

    def _read(self, place: str, name: str, columns: Collection[str] | None) -> ShardIndex | None:
        """The index in a file called ``name``; None where there is none."""
        found = self._ready.find(place, columns)
        if found is None:
            most = self.limits.max_index_bytes
            data = self.source.read_if_there(place, most)
            if data is None:
                return None
            found = ShardIndex.from_bytes(data, name, most, columns)
            found.place = place
        return found

    def _allowed(self, found: ShardIndex, url: str) -> ShardIndex:
        """The index, unless its shard is one that is refused when it is read: both tiers must read the same."""
        needs = [each for each in found.facts.get(NEEDS, ()) if not getattr(self.limits, str(each), False)]
        if needs:
            raise CorruptShard(
                f"{redact(url)} is read only where that is allowed, as its index says: sp.Limits({needs[0]}=True)"
            )
        return found

    def why_not(self, url: str) -> str:
        """Why a shard has no index, where ``find`` gave None."""
        shown, path = redact(url), local_path(url)
        if path is None:
            return f"{shown} has no index and is remote (streampipe index makes one)"
        kind = self._compression(url, path)
        if kind is not None:
            return f"{shown} is compressed ({kind}): single samples of it cannot be read; decompress it to plan"
        if not self.scans:
            return f"{shown} is not learnt yet"
        return f"{shown} holds hard links: single samples of it cannot be read"

    def _compression(self, url: str, path: str) -> str | None:
        try:
            head = self.source.read(url, 0, min(BLOCK, os.path.getsize(path)))
        except (OSError, SourceError):
            return None  # scanning says what is wrong with it
        return compression_of(url, head)

    def check_size(self, indexed: int, url: str, size: int | None) -> None:
        """A shard of ``size`` bytes whose index is of one of ``indexed`` bytes.

        Raises:
            IndexMismatch: the two differ.
        """
        if size is not None and size != indexed:
            raise IndexMismatch(
                f"{redact(index_url(url, self.folder))} was made of a shard of {indexed} bytes, but {redact(url)} has "
                f"{size}: it does not fit; run streampipe index again, or fetch the shard again"
            )

    def _remembered(self, url: str, path: str, columns: Collection[str] | None) -> ShardIndex:
        try:
            stat = os.stat(path)
            folder = self._memory()
        except OSError:
            return scan(url, self.source, self.limits, checksums=False)  # which says what is wrong with it
        identity = f"2\0{os.path.abspath(path)}\0{stat.st_size}\0{stat.st_mtime_ns}\0{self.limits}"
        return self._noted(folder, identity, url, lambda: scan(url, self.source, self.limits, checksums=False), columns)

    def noted(
        self, identity: str, what: str, make: Callable[[], ShardIndex], columns: Collection[str] | None = None
    ) -> ShardIndex:
        """What ``make`` finds, remembered under what it is of (``identity``: contents, sizes and dates).

        ``what`` is its name, for messages.
        """
        try:
            folder = self._memory()
        except OSError:
            folder = None
        return self._noted(folder, identity, what, make, columns)

    def _memory(self) -> str | None:
        return own_folder(memory(), lambda name: name.endswith(SUFFIX), "scans of local shards are not remembered")

    def _noted(
        self,
        folder: str | None,
        identity: str,
        what: str,
        make: Callable[[], ShardIndex],
        columns: Collection[str] | None,
    ) -> ShardIndex:
        if folder is None:
            return make()
        place = os.path.join(folder, hashlib.sha256(os.fsencode(identity)).hexdigest()[:32] + SUFFIX)
        try:
            noted = self._read(place, place, columns)
            if noted is not None and {NESTED, VIDEOS, IMAGES} <= noted.facts.keys():
                return noted
        except IndexMismatch:
            pass  # our own notes, damaged or of an older version: make them again
        found = make()
        try:
            self.source.write(place, found.to_bytes())
        except (OSError, SourceError) as error:
            log.warning("the index of %s could not be remembered (%s); it is made again next time", what, error)
        return found
