"""A shard whose index is known: where each sample is, and a sample made of its bytes, checked against the index."""

from __future__ import annotations

import zlib
from typing import NamedTuple

import numpy as np

from streampipe.context import Position, Sample
from streampipe.errors import CorruptShard, IndexMismatch
from streampipe.index import ShardIndex
from streampipe.plan.dataset import Dataset
from streampipe.samples import group
from streampipe.source import redact
from streampipe.tar import read_range

_NO_SUM = -1


def columns_of(dataset: Dataset) -> frozenset[str] | None:
    """The columns of an index that are needed to read the samples that are kept."""
    return frozenset() if dataset.keep is None else dataset.keep.columns


def index_of(dataset: Dataset, number: int) -> ShardIndex:
    """The index of a shard, as far as it is needed.

    Raises:
        IndexMismatch: it is gone.
    """
    found = dataset.finder.find(dataset.shards[number], columns=columns_of(dataset))
    if found is None:
        raise IndexMismatch(
            f"the index of {redact(dataset.shards[number])} is gone, or may not be read, though the plan counted it; "
            "check the permissions of the .index.parquet files, or run streampipe index again"
        )
    return found


def rows_in(dataset: Dataset, number: int, found: ShardIndex) -> np.ndarray | None:
    """The rows of a shard's index that are kept, in the order in which they are counted; None: all of them.

    Raises:
        IndexMismatch: they are not as many as were counted.
    """
    kept = None if dataset.keep is None else dataset.keep(found)
    held = len(found) if kept is None else len(kept)
    if held != dataset.counts[number]:
        raise IndexMismatch(
            f"{redact(dataset.shards[number])} has {held} samples, the plan counted {int(dataset.counts[number])}: "
            f"shard or index changed; run streampipe index again, and start a new epoch"
        )
    return kept


def kept_rows(dataset: Dataset, number: int) -> np.ndarray | None:
    """The rows of a shard that are kept, where not all are; a source of one's own is asked for nothing else."""
    return None if dataset.keep is None else rows_in(dataset, number, index_of(dataset, number))


class Span(NamedTuple):
    """The bytes [start, end) of a shard."""

    start: int
    end: int


class IndexedShard:
    """What the index of a shard says, in arrays: some bytes a sample, so many shards can be open at once.

    Raises:
        IndexMismatch: the index is gone, or other samples are kept of it than were counted.
    """

    def __init__(self, dataset: Dataset, number: int, found: ShardIndex | None = None) -> None:
        self.url = dataset.shards[number]
        self.shown = redact(self.url)
        self.number = number
        self.limits = dataset.finder.limits
        found = found or index_of(dataset, number)
        self.kept = rows_in(dataset, number, found)
        self._is_kept = None if self.kept is None else np.bincount(self.kept, minlength=len(found)).astype(bool)
        self.size = found.shard_bytes
        offsets, sizes, sums = found.places()
        self.offsets, self.ends = offsets, offsets + sizes
        self._sums = np.array([_NO_SUM if each is None else each for each in sums], np.int64)
        self._keys = found.table.column("key").combine_chunks()

    def row(self, number: int) -> int:
        """The row of the index of the ``number``-th sample that is kept."""
        return number if self.kept is None else int(self.kept[number])

    def span(self, row: int) -> Span:
        """Where a sample's bytes are."""
        return Span(int(self.offsets[row]), int(self.ends[row]))

    def neighbour(self, row: int, step: int, gap: int) -> int | None:
        """The next row behind (``step`` 1) or before (-1) that is kept, if at most ``gap`` bytes lie between."""
        other = row + step
        while 0 <= other < len(self.offsets):
            first, second = (row, other) if step > 0 else (other, row)
            if not 0 <= self.offsets[second] - self.ends[first] <= gap:
                return None
            if self._is_kept is None or self._is_kept[other]:
                return other
            other += step
        return None

    def sample(self, row: int, data: bytes | memoryview, epoch: int, views: bool = False) -> Sample:
        """The sample of its bytes. Fields are bytes; with ``views`` they may be views of ``data``.

        Raises:
            IndexMismatch: there is another sample at that place.
            CorruptShard: its bytes are not those that the index has a checksum of.
        """
        start, wanted = int(self.offsets[row]), int(self._sums[row])
        key = self._keys[row].as_py()
        if wanted != _NO_SUM and zlib.crc32(data) != wanted:
            raise CorruptShard(
                f"{self.shown}, sample {key!r}, byte {start}: its {len(data)} bytes are not those that were indexed "
                f"(crc32); fetch the shard again, or run streampipe index if it was rewritten"
            )
        members = read_range(data, shard=self.shown, base=start, limits=self.limits)
        samples = list(group(members, self.shown, epoch=epoch, shard=self.number, views=views, limits=self.limits))
        if len(samples) != 1 or samples[0]["__key__"] != key:
            found = ", ".join(repr(sample["__key__"]) for sample in samples)
            raise IndexMismatch(
                f"{self.shown}, byte {start}: the index has sample {key!r} here, the shard has {found or 'none'}; "
                f"run streampipe index again"
            )
        samples[0]["__position__"] = Position(epoch, self.number, row)
        return samples[0]
