"""How many samples of a shard have each field, its bytes, and how long the captions are: sums, also of many shards.

Of merged facts they stand in the manifest, for where samples and their fields are is said by the shards' own indexes
alone, and whoever only wants to know what a dataset holds should not have to read all of these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streampipe.index.table import ShardIndex
from streampipe.query.aliases import CAPTION_KEYS


class Lengths(NamedTuple):
    """Lengths of captions in bytes: the least, the greatest, their sum; how many have 0, 1, 2, ... binary digits."""

    least: int
    most: int
    sum: int
    counts: Sequence[int]


class Sizes(NamedTuple):
    """Of some samples: by field, how many have it and its bytes; and the lengths of captions that are members."""

    samples: int
    fields: Mapping[str, tuple[int, int]]
    captions: Lengths | None

    def plain(self) -> list[Any]:
        """As JSON has it."""
        return [
            self.samples,
            {name: list(each) for name, each in self.fields.items()},
            self.captions and list(self.captions),
        ]


def sizes_of(index: ShardIndex) -> Sizes:
    """Of the samples of a shard."""
    each = pc.list_flatten(index.table.column("fields"))
    table = pa.table({"name": pc.struct_field(each, "name"), "size": pc.struct_field(each, "size")})
    found = table.group_by("name").aggregate([("size", "count"), ("size", "sum")]).to_pydict()
    rows = zip(found["name"], found["size_count"], found["size_sum"], strict=True)
    fields = {str(name): (int(samples), int(size)) for name, samples, size in rows}
    key = next((key for key in CAPTION_KEYS if key in fields), None)
    captions = None
    if key is not None:
        lengths = table.column("size").filter(pc.equal(table.column("name"), key)).to_numpy()
        digits = np.frexp(lengths.astype(np.float64))[1]  # of 0 it is 0, of 1 it is 1, of 2 and 3 it is 2, ...
        captions = Lengths(int(lengths.min()), int(lengths.max()), int(lengths.sum()), np.bincount(digits).tolist())
    return Sizes(len(index), fields, captions)


def sum_of(several: Sequence[Sizes]) -> Sizes | None:
    """Of the samples of several shards; None where captions are members in some of them alone: in the others they are
    columns, and are counted otherwise.
    """
    several = [each for each in several if each.samples]
    fields: dict[str, tuple[int, int]] = {}
    for each in several:
        for name, (samples, size) in each.fields.items():
            before = fields.get(name, (0, 0))
            fields[name] = before[0] + samples, before[1] + size
    known = [each.captions for each in several if each.captions is not None]
    if known and len(known) < len(several):
        return None
    captions = None
    if known:
        counts = np.zeros(max(len(each.counts) for each in known), np.int64)
        for lengths in known:
            counts[: len(lengths.counts)] += np.asarray(lengths.counts)
        least, most = min(each.least for each in known), max(each.most for each in known)
        captions = Lengths(least, most, sum(each.sum for each in known), counts.tolist())
    return Sizes(sum(each.samples for each in several), fields, captions)


def sizes_from(plain: Any) -> Sizes | None:
    """What ``plain`` gave, read again; None if it is not that.

    >>> sizes_from(Sizes(2, {"txt": (2, 9)}, Lengths(1, 8, 9, [0, 1, 0, 0, 1])).plain())
    Sizes(samples=2, fields={'txt': (2, 9)}, captions=Lengths(least=1, most=8, sum=9, counts=[0, 1, 0, 0, 1]))
    """
    try:
        samples, fields, captions = plain
        named = {str(name): (int(count), int(size)) for name, (count, size) in fields.items()}
        lengths = None
        if captions is not None:
            least, most, total, counts = captions
            lengths = Lengths(int(least), int(most), int(total), [int(each) for each in counts])
        return Sizes(int(samples), named, lengths)
    except (TypeError, ValueError, AttributeError, IndexError):
        return None
