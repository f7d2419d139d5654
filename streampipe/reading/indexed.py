"""A shard whose index is known: where each sample is, and a sample made of its bytes, checked against the index.

Strategy: a sample whose bytes have the checksum that the index says is cut out by the index's own places, which were
looked at once for the whole shard (``index.layout``); nothing is parsed again. Where a checksum is of headers alone, it
is compared with those. Only what has none, or is no plain sample, or whose headers changed, is parsed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from streampipe.checksum import crc32, headers_crc32
from streampipe.context import Position, Sample
from streampipe.errors import CorruptShard, IndexMismatch
from streampipe.index import ShardIndex
from streampipe.index.layout import Layout
from streampipe.index.table import BYTES
from streampipe.plan.clips import PIECE, numbered
from streampipe.plan.dataset import Dataset
from streampipe.plan.planned import Place
from streampipe.samples import group, to_bytes
from streampipe.source import redact
from streampipe.tar import BLOCK, read_range

Data = bytes | memoryview
_position = partial(tuple.__new__, Position)  # of a tuple of three numbers


def columns_of(dataset: Dataset) -> frozenset[str] | None:
    """The columns of an index that are needed to read the samples that are kept."""
    if dataset.keep is None:
        return BYTES
    return None if dataset.keep.columns is None else BYTES | dataset.keep.columns


def pieces_of(dataset: Dataset, rows: np.ndarray | None) -> np.ndarray | None:
    """Where clips of samples are counted, and a row stands as often among ``rows`` as it has clips: which clip each is;
    else None.
    """
    return None if rows is None or getattr(dataset.keep, "clips", None) is None else numbered(rows)


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
        self._pieces = pieces_of(dataset, self.kept)
        self._is_kept = None if self.kept is None else np.bincount(self.kept, minlength=len(found)).astype(bool)
        self.size = found.shard_bytes
        self._layout = Layout(found, self.limits)

    def row(self, number: int) -> int:
        """The row of the index of the ``number``-th sample that is kept."""
        return number if self.kept is None else int(self.kept[number])

    def named(self, number: int, sample: Sample) -> Sample:
        """The sample, told as which of its clips it was counted."""
        if self._pieces is not None:
            sample[PIECE] = int(self._pieces[number])
        return sample

    def span(self, row: int) -> tuple[int, int]:
        """Where a sample's bytes are."""
        return self._layout.row(row)[:2]

    def neighbour(self, row: int, step: int, gap: int) -> int | None:
        """The next row behind (``step`` 1) or before (-1) that is kept, if at most ``gap`` bytes lie between."""
        other = row + step
        while 0 <= other < len(self._layout):
            first, second = (row, other) if step > 0 else (other, row)
            if not 0 <= self.span(second)[0] - self.span(first)[1] <= gap:
                return None
            if self._is_kept is None or self._is_kept[other]:
                return other
            other += step
        return None

    def following(self, places: Sequence[Place], most: int) -> list[int]:
        """The rows of the first of some places, and of those that lie right behind it: ``most`` bytes, or one row."""
        first = places[0]
        found = [self.row(first.number)]
        start, end = self.span(found[0])
        for number, place in enumerate(places[1:], first.number + 1):
            if place[:4] != (first.shard, number, first.epoch, first.part):
                break
            row = self.row(number)
            begin, behind = self.span(row)
            if begin != end or behind - start > most:
                break
            found.append(row)
            end = behind
        return found

    def sample(self, row: int, data: Data, epoch: int, views: bool = False, base: int | None = None) -> Sample:
        """The sample of its bytes. Fields are bytes; with ``views`` they may be views of ``data``.

        ``base``: the byte of the shard at which ``data`` begins, where that holds more than the sample.

        Raises:
            IndexMismatch: there is another sample at that place.
            CorruptShard: its bytes are not those that the index has a checksum of.
        """
        layout = self._layout
        at, behind, checksum, key_at, key_end, first, last, plain = layout.row(row)
        key, of_headers = layout.key(key_at, key_end), layout.of_headers
        shift = 0 if base is None else at - base
        own = data if base is None else memoryview(data)[shift : shift + behind - at]
        if checksum >= 0 and not of_headers and crc32(own) != checksum:
            raise CorruptShard(
                f"{self.shown}, sample {key.decode()!r}, byte {at}: its {len(own)} bytes are not "
                f"those that were indexed (crc32); fetch the shard again, or run streampipe index if it was rewritten"
            )
        if checksum < 0 or not plain:
            return self._parsed(row, own, epoch, views)
        places = layout.places(first, last)
        starts, ends = places[::2], places[1::2]
        if of_headers and headers_crc32(own, starts, ends) != checksum:
            return self._parsed(row, own, epoch, views)
        name = shift + starts[0] - BLOCK
        if data[name : name + len(key) + 1] != key + b".":  # of an extended header, or of another sample
            return self._parsed(row, own, epoch, views)
        sample: Sample = {
            "__key__": key.decode(),
            "__url__": self.shown,
            "__position__": _position((epoch, self.number, row)),
        }
        whole: Any = memoryview(data) if views else data
        for field, start, end in zip(layout.names(first, last), starts, ends, strict=True):
            sample[field] = whole[shift + start : shift + end]
        return sample if views or type(data) is bytes else to_bytes(sample)

    def _parsed(self, row: int, data: Data, epoch: int, views: bool) -> Sample:
        """The same by the strict parser, which says what is wrong."""
        start, _, _, key_at, key_end, *_ = self._layout.row(row)
        key = self._layout.key(key_at, key_end).decode()
        members = read_range(data, shard=self.shown, base=start, limits=self.limits)
        samples = list(
            group(members, self.shown, epoch=epoch, shard=self.number, views=views, limits=self.limits, place=None)
        )
        if len(samples) != 1 or samples[0]["__key__"] != key:
            found = ", ".join(repr(sample["__key__"]) for sample in samples)
            raise IndexMismatch(
                f"{self.shown}, byte {start}: the index has sample {key!r} here, the shard has {found or 'none'}; "
                f"run streampipe index again"
            )
        samples[0]["__position__"] = _position((epoch, self.number, row))
        return samples[0]
