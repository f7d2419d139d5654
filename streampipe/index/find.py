"""Where a shard's index is found: beside the shard, under ``index=``, remembered from an earlier scan, or made now."""

from __future__ import annotations

import hashlib
import logging
import os

from streampipe.errors import IndexMismatch, SourceError
from streampipe.index.scan import scan
from streampipe.index.table import ShardIndex
from streampipe.source import Source, local_path, redact
from streampipe.tar import Limits, compression_of
from streampipe.urls import SHARD_SUFFIXES

log = logging.getLogger("streampipe")
SUFFIX = ".index.parquet"


def index_url(url: str, folder: str | None = None) -> str:
    """Where the index of a shard belongs: beside it, or in ``folder``.

    >>> index_url("s3://b/00000.tar"), index_url("a/00000.tar.gz", "facts/")
    ('s3://b/00000.index.parquet', 'facts/00000.index.parquet')
    """
    suffix = next((each for each in SHARD_SUFFIXES if url.endswith(each)), "")
    stem = url[: len(url) - len(suffix)]
    return f"{folder.rstrip('/')}/{stem.rpartition('/')[2]}{SUFFIX}" if folder else stem + SUFFIX


def memory() -> str:
    """The folder of remembered scans: ``STREAMPIPE_CACHE``, else in the user's cache folder."""
    given = os.environ.get("STREAMPIPE_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(given or os.path.join(base, "streampipe"), "index")


class Finder:
    """Finds the indexes of shards. Holds settings only, so it can be pickled."""

    def __init__(self, source: Source, limits: Limits, folder: str | None = None) -> None:
        self.source = source
        self.limits = limits
        self.folder = folder

    def find(self, url: str, sized: bool = True) -> ShardIndex | None:
        """The index of a shard; None where there is none and the shard is no local, plain tar that could be scanned.

        With ``sized`` False the shard is not asked for its size, which takes a request: then ``check_size`` later.

        Raises:
            IndexMismatch: there is one, but it is damaged or does not fit the shard.
        """
        place = index_url(url, self.folder)
        data = self.source.read_if_there(place)
        if data is not None:
            found = ShardIndex.from_bytes(data, redact(place))
            if sized:
                self.check_size(found.shard_bytes, url, self.source.size(url))
            return found
        path = local_path(url)
        if path is None or self._is_compressed(url, path):
            return None
        return self._remembered(url, path)

    def _is_compressed(self, url: str, path: str) -> bool:
        try:
            head = self.source.read(url, 0, min(8, os.path.getsize(path)))
        except (OSError, SourceError):
            return False  # scanning says what is wrong with it
        return compression_of(url, head) is not None

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

    def _remembered(self, url: str, path: str) -> ShardIndex:
        try:
            stat = os.stat(path)
        except OSError:
            return scan(url, self.source, self.limits, checksums=False)  # which says what is wrong with it
        identity = f"{os.path.abspath(path)}\0{stat.st_size}\0{stat.st_mtime_ns}"
        place = os.path.join(memory(), hashlib.sha256(os.fsencode(identity)).hexdigest()[:32] + SUFFIX)
        data = self.source.read_if_there(place)
        if data is not None:
            try:
                return ShardIndex.from_bytes(data, place)
            except IndexMismatch:
                pass  # our own notes, damaged or of another version: make them again
        found = scan(url, self.source, self.limits, checksums=False)
        try:
            os.makedirs(os.path.dirname(place), exist_ok=True)
            self.source.write(place, found.to_bytes())
        except (OSError, SourceError) as error:
            log.warning("the index of %s could not be remembered (%s); it is made again next time", url, error)
        return found
