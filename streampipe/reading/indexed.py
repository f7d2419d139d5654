"""A shard whose index is known: where each sample is, and a sample made of its bytes, checked against the index.

Strategy: a sample whose bytes have the checksum that the index says is cut out by the index's own places, which were
looked at once for the whole shard (``index.layout``); nothing is parsed again. Where a checksum is of headers alone, it
is compared with those. Only what has none, or is no plain sample, or whose headers changed, is parsed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice

import numpy as np

from streampipe.checksum import crc32, headers_crc32
from streampipe.context import Position, Sample
from streampipe.errors import CorruptShard, IndexMismatch, ShardError
from streampipe.index import ShardIndex
from streampipe.index.layout import Layout, Row
from streampipe.index.table import BYTES
from streampipe.plan.clips import PIECE, numbered
from streampipe.plan.dataset import Dataset
from streampipe.plan.planned import Place
from streampipe.reading.sliced import Run, Sliced, as_sample
from streampipe.samples import group
from streampipe.source import redact
from streampipe.source.local import LocalFile
from streampipe.tar import BLOCK, MissingEnd, read_range, stream_members
from streampipe.tar.names import passed_over

Data = bytes | memoryview
_position = partial(tuple.__new__, Position)  # of a tuple of three numbers
_sliced = partial(tuple.__new__, Sliced)


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
            f"shard or index changed since; run streampipe index again, if it has an index, and make the stream anew"
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

    @property
    def of_clips(self) -> bool:
        """Whether clips are counted, and not samples."""
        return self._pieces is not None

    def named(self, number: int, sample: Sample) -> Sample:
        """The sample, told as which of its clips it was counted."""
        if self._pieces is not None:
            sample[PIECE] = int(self._pieces[number])
        return sample

    def span(self, row: int) -> tuple[int, int]:
        """Where a sample's bytes are."""
        return self._layout.row(row)[:2]

    def check_end(self, file: LocalFile) -> None:
        """Look behind the last sample: a member that is added to an archive often lies in what filled it up before, so
        the archive has the size that it had.

        Raises:
            IndexMismatch: there is a member that the index does not know.
            CorruptShard, TruncatedShard: there is no sound archive.
        """
        end = int(self._layout.ends[-1]) if len(self._layout) else 0
        if any(file.read(end, end + BLOCK)):
            rest = stream_members(file.pieces(end), shard=self.shown, limits=self.limits)
            try:
                added = next((each for each in rest if passed_over(each.name) is None), None)
            except MissingEnd:
                if not self.limits.missing_end:
                    raise
                added = None
            if added is not None:
                raise IndexMismatch(
                    f"{self.shown}, byte {end + added.offset}: the index does not know of member {added.name!r}, which "
                    f"was added behind its last sample; delete the index and run streampipe index"
                )

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

    def following(self, places: Sequence[Place], most: int, large: int) -> tuple[int, list[Row]]:
        """The row of the first of some places, and where it and those are that lie right behind it: ``most`` bytes, or
        one row. One of ``large`` bytes is alone.
        """
        shard, first, epoch, part, _ = places[0]
        layout, kept = self._layout, self.kept
        row = first if kept is None else int(kept[first])
        found = [layout.row(row)]
        start, end = found[0][:2]
        if len(places) == 1 or places[1].number != first + 1 or places[1].shard != shard or end - start >= large:
            return row, found
        rows = layout.rows(range(row + 1, min(row + len(places), len(layout))))
        for each, place in zip(rows, islice(places, 1, None), strict=False):
            number = len(found)
            if each[0] != end or each[1] - start > most or each[1] - end >= large or place[1] != first + number:
                break
            if place[0] != shard or place[2] != epoch or place[3] != part:
                break
            if kept is not None and kept[first + number] != row + number:  # what lies between is not kept
                break
            end = each[1]
            found.append(each)
        return row, found

    def sample(self, row: int, data: Data, epoch: int, views: bool = False) -> Sample:
        """The sample of its bytes; see ``slices``.

        Raises:
            IndexMismatch: there is another sample at that place.
            CorruptShard: its bytes are not those that the index has a checksum of.
        """
        found = self.slices(row, [self._layout.row(row)], data, epoch, views)[0]
        if isinstance(found, ShardError):
            raise found
        return as_sample(found)

    def run(self, row: int, rows: Sequence[Row], data: bytes, epoch: int, views: bool = False) -> Run | None:
        """The samples from ``row`` on whose bytes ``data`` is, column by column, where all of the shard are plain and
        have the same fields, and these are as they were indexed; else None, and ``slices`` tells them apart.
        """
        layout, text = self._layout, self._layout.text
        if layout.usual is None:
            return None
        starts, ends, sums, key_starts, key_ends, *_ = zip(*rows, strict=True)
        numbers, base, whole = range(row, row + len(rows)), starts[0], memoryview(data)
        shifts = [start - base for start in starts]
        if layout.of_headers:
            found = [
                headers_crc32(whole[shift : end - base], place[::2], place[1::2])
                for shift, end, place in zip(shifts, ends, layout.each(numbers), strict=True)
            ]
        else:
            found = [crc32(whole[shift : end - base]) for shift, end in zip(shifts, ends, strict=True)]
        if tuple(found) != sums:
            return None
        keys = [text[start:end] for start, end in zip(key_starts, key_ends, strict=True)]
        columns = list(zip(*layout.each(numbers), strict=True))
        for key, shift, first in zip(keys, shifts, columns[0], strict=True):
            if not data.startswith(key + b".", shift + first - BLOCK):
                return None
        given = whole if views else data
        fields = [
            [given[shift + start : shift + end] for shift, start, end in zip(shifts, *places, strict=True)]
            for places in zip(columns[::2], columns[1::2], strict=True)
        ]
        positions = [_position((epoch, self.number, each)) for each in numbers]
        return Run([key.decode() for key in keys], [self.shown] * len(rows), positions, layout.usual, fields)

    def by_field(self, row: int, where: Row, read: Callable[[int, int], bytes], epoch: int) -> Sliced | None:
        """A plain sample that is as it was indexed, each field read into its own memory and not cut out of what was
        read: so large ones are copied once. None: it is none, and ``slices`` says what it is.
        """
        at, behind, checksum, key_at, key_end, first, last, plain = where
        if not plain or checksum < 0:
            return None
        layout, key = self._layout, self._layout.text[key_at:key_end]
        places, fields, done, found = layout.places(first, last), list[bytes](), 0, 0
        for start, end in zip(places[::2], places[1::2], strict=True):
            header, field = read(at + done, at + start), read(at + start, at + end)
            if not fields and not header.startswith(key + b".", len(header) - BLOCK):
                return None
            found = crc32(header, found)
            if not layout.of_headers:
                found = crc32(field, found)
            fields.append(field)
            done = end + (-end & (BLOCK - 1)) if layout.of_headers else end
        if not layout.of_headers:
            found = crc32(read(at + done, behind), found)
        if found != checksum:
            return None
        return _sliced(
            (key.decode(), self.shown, _position((epoch, self.number, row)), layout.names(first, last), fields)
        )

    def slices(
        self, row: int, rows: Sequence[Row], data: Data, epoch: int, views: bool = False
    ) -> list[Sliced | Sample | ShardError]:
        """The samples from ``row`` on whose bytes ``data`` is; an error stands where its sample would.

        Fields are bytes; with ``views`` they may be views of ``data``.

        Raises:
            IndexMismatch: there is another sample at a place.
        """
        layout, whole = self._layout, memoryview(data)
        text, of_headers, url, shard = layout.text, layout.of_headers, self.shown, self.number
        given = whole if views else data
        copied = not views and type(data) is not bytes  # slices of it are no bytes
        found: list[Sliced | Sample | ShardError] = []
        base = rows[0][0]
        for number, (at, behind, checksum, key_at, key_end, first, last, plain) in enumerate(rows, row):
            shift, key = at - base, text[key_at:key_end]
            own = whole if len(rows) == 1 else whole[shift : behind - base]
            if checksum >= 0 and not of_headers and crc32(own) != checksum:
                found.append(self._changed(key, at, len(own)))
                continue
            places = layout.places(first, last) if plain and checksum >= 0 else ()
            name = shift + places[0] - BLOCK if places else 0
            if (
                not places
                or data[name : name + len(key) + 1] != key + b"."  # of an extended header, or of another sample
                or (of_headers and headers_crc32(own, places[::2], places[1::2]) != checksum)
            ):
                found.append(self._parsed(number, own, epoch, views))
                continue
            pairs = iter(places)
            fields = [given[shift + start : shift + end] for start, end in zip(pairs, pairs, strict=True)]
            if copied:
                fields = [bytes(each) for each in fields]
            found.append(
                _sliced((key.decode(), url, _position((epoch, shard, number)), layout.names(first, last), fields))
            )
        return found

    def _changed(self, key: bytes, at: int, size: int) -> CorruptShard:
        return CorruptShard(
            f"{self.shown}, sample {key.decode()!r}, byte {at}: its {size} bytes are not "
            f"those that were indexed (crc32); fetch the shard again, or, if it was rewritten, delete its index and run"
            f" streampipe index"
        )

    def _parsed(self, row: int, data: Data, epoch: int, views: bool) -> Sample | ShardError:
        """The same by the strict parser, which says what is wrong."""
        start, _, _, key_at, key_end, *_ = self._layout.row(row)
        key = self._layout.key(key_at, key_end).decode()
        members = read_range(data, shard=self.shown, base=start, limits=self.limits)
        try:
            samples = list(
                group(members, self.shown, epoch=epoch, shard=self.number, views=views, limits=self.limits, place=None)
            )
        except ShardError as error:
            return error
        if len(samples) != 1 or samples[0]["__key__"] != key:
            found = ", ".join(repr(sample["__key__"]) for sample in samples)
            raise IndexMismatch(
                f"{self.shown}, byte {start}: the index has sample {key!r} here, the shard has {found or 'none'}; "
                f"run streampipe index again"
            )
        samples[0]["__position__"] = _position((epoch, self.number, row))
        return samples[0]
