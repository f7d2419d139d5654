"""A shard on its way to being readable: its index is fetched in the background, then its bytes can be asked for."""

from __future__ import annotations

from concurrent.futures import Future
from typing import NamedTuple

from streampipe.counters import counters
from streampipe.errors import SourceError, SourceUnavailable
from streampipe.index.unpack import unpack
from streampipe.plan.dataset import Dataset
from streampipe.reading.indexed import IndexedShard, columns_of
from streampipe.source import Source
from streampipe.source.download import Download
from streampipe.source.local import LocalFile
from streampipe.source.ranges import Ranges
from streampipe.unwanted import Stop, asking, result


class _Opened(NamedTuple):
    """What the background brings: ``file`` is the shard itself, where it is on this machine."""

    shard: IndexedShard
    file: LocalFile | None
    ranges: Ranges | None


class RemoteShard:
    """One shard: a file if it is local or kept in the cache, else copied into the cache, else read in ranges.

    Everything but the fetching itself is done by the thread that reads.

    Args:
        stop: when set, what is on the way is given up.
    """

    def __init__(self, dataset: Dataset, number: int, stop: Stop) -> None:
        self.url = dataset.shards[number]
        self.source: Source = dataset.finder.source
        self.traffic = self.source.traffic
        self.index: IndexedShard | None = None  # once it is there (``looked``)
        self.file: LocalFile | None = None
        self.cached = False  # it is read through the cache
        self.copy: Download | None = None  # on its way into the cache
        self._dataset = dataset
        self._number = number
        self._stop = stop
        self._opened: _Opened | None = None
        self._size_is_right = False
        self._opening: Future[_Opened] = self._open()

    def _open(self) -> Future[_Opened]:
        return self.traffic.submit(self._fetch, first=True)

    def _fetch(self) -> _Opened:
        with asking(self._stop.is_set):
            return self._found()

    def _found(self) -> _Opened:
        finder, url = self._dataset.finder, self.url
        remote = self.source.is_remote(url)
        found = finder.find(url, not remote, columns_of(self._dataset))
        index = unpack(lambda: IndexedShard(self._dataset, self._number, found))
        file, ranges = self.source.file(url), None
        if file is None:
            ranges = self.source.ranges(url, self._stop)
            ranges.prepare(now=self.source.cache is not None)
            finder.check_size(index.size, url, ranges.size)
        else:
            index.check_end(file)
        counters.add("reading", "shards opened")
        return _Opened(index, file, ranges)

    @property
    def ended(self) -> bool:
        """Whether opening it has ended, one way or the other."""
        return self._opened is not None or self._opening.done()

    def looked(self) -> IndexedShard | None:
        """Its index, if that has come by now."""
        if self.index is None and self._opening.done() and self._opening.exception() is None:
            self._opened = self._opening.result()
            self.index, self.file = self._opened.shard, self._opened.file
            self.cached = self.file is None and self.source.cache is not None
        return self.index

    @property
    def ranges(self) -> Ranges:
        """What asks for parts of it."""
        assert self._opened is not None
        assert self._opened.ranges is not None
        return self._opened.ranges

    def wait(self) -> IndexedShard:
        """Its index, now. What failed ahead of need is tried once more.

        Raises:
            SourceError, ShardError: it cannot be opened.
        """
        if self._opening.done() and isinstance(self._opening.exception(), SourceUnavailable):
            self._opening = self._open()
        result(self._opening)
        index = self.looked()
        assert index is not None
        return index

    def check_size(self) -> None:
        """Compare the shard's size with that of the index, once an answer has said it.

        Raises:
            IndexMismatch: the two differ.
        """
        if not self._size_is_right:
            assert self._opened is not None
            size = self.ranges.size
            self._dataset.finder.check_size(self._opened.shard.size, self.url, size)
            self._size_is_right = size is not None

    def begin_copy(self) -> None:
        """Begin to copy it into the cache, or go on without one where that cannot be."""
        if self.copy is None:
            self.copy = self.source.download(self.url)
            self.cached = self.copy is not None

    def from_copy(self, start: int, end: int) -> bytes | None:
        """Bytes of the growing or finished copy, as soon as they are there; None if there will be none.

        Then the shard is read without the cache from here on, or as a file: another process had made the copy.
        """
        self.begin_copy()
        if self.copy is not None:
            try:
                data = self.copy.read(start, end)
            except SourceError:
                data = None  # asked for once more, for itself: that says what is wrong
            if data is not None:
                return data
        self.copy, self.cached = None, False
        self.file = self.source.file(self.url)
        return None if self.file is None else self.file.read(start, end)

    def finish(self) -> None:
        """No known step wants it any more."""
        if self.source.cache is not None:
            self.source.finished(self.url)
