"""Where the fields of a shard's samples are, in flat arrays: what it takes to cut samples out of bytes without parsing.

Strategy: all that a parser would find wrong with a sample's places and names is looked for here, once a shard and in
whole columns. A sample is ``plain`` if its fields lie inside it in order, each behind a header and up to the next one,
within the limits, under names that a parser gives, none of them twice. One that is not plain is parsed when it is read,
so what is odd has the errors (and the rights) that it has in any other reading.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from struct import Struct

import numpy as np
import pyarrow as pa

from streampipe.index.table import ShardIndex
from streampipe.tar import BLOCK, Limits

_NO_SUM = -1
_MOST = 1 << 31  # bytes of a sample whose places are kept in 32 bits


Row = tuple[int, int, int, int, int, int, int, int]
"""Where a sample is: its bytes [start, end) of the shard, their checksum (-1: none), where its key begins and ends
among the keys, the numbers of its first field and of the one behind the last, and whether its fields may be cut out."""
_ROW = Struct("=8q")
_PLACES = tuple(Struct(f"={2 * fields}i") for fields in range(64))


class Layout:
    """The samples of a shard: 64 bytes each and 9 for each of their fields, and their keys.

    Numbers that belong together lie together, so that they become Python's own in one call, at a tenth of a
    microsecond each instead of one each as numpy's or arrow's.

    Args:
        of_headers: whether checksums are of headers alone.
        usual: the names of the fields, if all samples are plain, have the same in the same order, and a checksum.
    """

    def __init__(self, index: ShardIndex, limits: Limits) -> None:
        column = index.table.column
        starts, sizes = column("offset").to_numpy(), column("size").to_numpy()
        self.of_headers = index.sums_headers
        sums = _filled(column("crc32").cast(pa.int64()), _NO_SUM)
        keys = _whole(column("key")).cast(pa.large_string())
        _, key_bounds, text = keys.buffers()
        self.text = b"" if text is None else text.to_pybytes()
        found = np.frombuffer(key_bounds, np.int64, len(keys) + 1, 8 * keys.offset) if len(keys) else np.zeros(1, int)
        self.offsets, self.ends = starts, starts + sizes
        bounds, plain = self._read_fields(_whole(column("fields")), limits)
        rows = (starts, self.ends, sums, found[:-1], found[1:], bounds[:-1], bounds[1:], plain)
        self.usual = self._names_of_all if len(self) and plain.all() and (sums >= 0).all() else None
        self._rows = np.stack(rows, axis=1).astype(np.int64).tobytes()

    def __len__(self) -> int:
        return len(self.offsets)

    def row(self, number: int) -> Row:
        """Where a sample is."""
        return _ROW.unpack_from(self._rows, 64 * number)

    def rows(self, numbers: range) -> Iterator[Row]:
        """Where samples are that follow each other."""
        return _ROW.iter_unpack(memoryview(self._rows)[64 * numbers.start : 64 * numbers.stop])

    def each(self, numbers: range) -> Iterator[tuple[int, ...]]:
        """``places`` of samples that follow each other, where all have as many fields."""
        assert self._names_of_all is not None
        size = 8 * len(self._names_of_all)
        how = _struct(len(self._names_of_all))
        return how.iter_unpack(memoryview(self._places)[size * numbers.start : size * numbers.stop])

    def key(self, start: int, end: int) -> bytes:
        """A sample's key, in UTF-8."""
        return self.text[start:end]

    def names(self, first: int, last: int) -> Sequence[str]:
        """The names of a plain sample's fields."""
        if self._names_of_all is not None:
            return self._names_of_all
        return [self._names[code] for code in self._codes[first:last]]

    def places(self, first: int, last: int) -> Sequence[int]:
        """Where a plain sample's fields begin and end, one after the other, from the beginning of its bytes on."""
        return _struct(last - first).unpack_from(self._places, 8 * first)

    def _read_fields(self, fields: pa.ListArray, limits: Limits) -> tuple[np.ndarray, np.ndarray]:
        """Keep the fields' places. Where those of each sample begin among all, and which samples are plain."""
        counts = _filled(fields.value_lengths(), 0).astype(np.int64)
        bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        flat = fields.flatten()
        names = flat.field("name").dictionary_encode()
        codes = _filled(names.indices, 0)
        starts = _filled(flat.field("offset"), 0)
        sizes = _filled(flat.field("size"), -1)
        self._names: list[str] = names.dictionary.to_pylist() or [""]
        sample = np.repeat(np.arange(len(self)), counts)
        good = ~np.isin(codes, [i for i, each in enumerate(self._names) if not _is_usual(each)])
        good &= names.is_valid().to_numpy(zero_copy_only=False)
        good &= _in_place(starts, sizes, bounds, self.offsets[sample], self.ends[sample], limits)
        good &= ~_twice(sample * len(self._names) + codes)
        plain = (counts > 0) & (counts <= limits.max_sample_members) & (self.ends - self.offsets < _MOST)
        plain[sample[~good]] = False
        begins = np.where(plain[sample], starts - self.offsets[sample], 0)
        ends = begins + np.where(plain[sample], sizes, 0)
        self._places = np.stack([begins, ends], axis=1).astype(np.int32).tobytes()
        self._codes = codes.astype(np.uint8 if len(self._names) <= 256 else np.int32).data
        self._names_of_all = self._of_all(counts, codes)
        return bounds, plain

    def _of_all(self, counts: np.ndarray, codes: np.ndarray) -> tuple[str, ...] | None:
        """The names of the fields, if all samples have the same in the same order."""
        if not len(counts) or (counts != counts[0]).any():
            return None
        each = codes.reshape(len(counts), -1)
        return tuple(self._names[code] for code in each[0]) if (each == each[0]).all() else None


def _struct(fields: int) -> Struct:
    """Where so many fields begin and end."""
    return _PLACES[fields] if fields < len(_PLACES) else Struct(f"={2 * fields}i")


def _filled(column: pa.Array | pa.ChunkedArray, missing: int) -> np.ndarray:
    """The numbers of a column, one in the place of those that are missing."""
    return np.asarray((column.fill_null(missing) if column.null_count else column).to_numpy())


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array."""
    found = column.combine_chunks()
    return pa.concat_arrays(found.chunks) if isinstance(found, pa.ChunkedArray) else found


def _is_usual(name: str | None) -> bool:
    """Whether a parser gives a field this name, without counting or refusing anything."""
    return name is not None and name[:2] != "__" and name == name.lower() and name.isprintable() and "/" not in name


def _in_place(
    starts: np.ndarray, sizes: np.ndarray, bounds: np.ndarray, begin: np.ndarray, end: np.ndarray, limits: Limits
) -> np.ndarray:
    """Whether fields lie in their sample in order, with room for their headers, which are no longer than is allowed."""
    sane = (starts >= 0) & (sizes >= 0) & (sizes <= limits.max_member_bytes) & (starts < 1 << 62)
    starts, sizes = np.where(sane, starts, 0), np.where(sane, sizes, 0)
    padded = starts + sizes + (-sizes & (BLOCK - 1))
    before = begin.copy()  # where the one before ends
    before[1:] = padded[:-1]
    firsts = bounds[:-1][np.diff(bounds) > 0]
    before[firsts] = begin[firsts]
    header = starts - before
    fits = (header >= BLOCK) & (header <= BLOCK + limits.max_header_bytes) & (padded <= end)
    fits &= (starts - begin) % BLOCK == 0
    lasts = firsts[1:] - 1
    lasts = np.append(lasts, len(starts) - 1) if len(starts) else lasts
    fits[lasts] &= padded[lasts] == end[lasts]
    return np.asarray(sane & fits)


def _twice(pairs: np.ndarray) -> np.ndarray:
    """Which numbers come more than once; of each the later ones."""
    order = np.argsort(pairs, kind="stable")
    again = np.zeros(len(pairs), bool)
    again[order[1:]] = pairs[order[1:]] == pairs[order[:-1]]
    return again
