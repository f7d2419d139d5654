"""Which bucket each sample of an index belongs to, by the sizes that the index knows."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from streampipe.errors import ConfigError
from streampipe.index import ShardIndex
from streampipe.index.merged import MergedFacts, Untold
from streampipe.index.stated import MOST_SIDE, differs, whole
from streampipe.index.table import IMAGES
from streampipe.plan.ask import Found, Uncounted, per_shard
from streampipe.plan.buckets import Buckets
from streampipe.plan.clips import ClipKeep
from streampipe.plan.compound import Compound, Signatures
from streampipe.plan.ratios import cut_away, log_ratios
from streampipe.query.condition import Keep

NO_SIZE = "without the size of an image"
BEYOND, UNSIZED, WRONG = "beyond", "unsized", "misstated"
"""Under what a tally has the samples without a bucket, those without a size, and those whose json is wrong."""
_NO_SIZE = -2
_SIZES = ("height", "width", "json.height", "json.width")


class Assigned(NamedTuple):
    """Of samples the bucket (below 0: none), the log aspect ratio, whether the json is wrong, and how many clips each
    is.
    """

    bucket: np.ndarray
    ratio: np.ndarray
    misstated: np.ndarray
    times: np.ndarray


class Sorter:
    """From a shard's index to the numbers of its samples, sorted by bucket; those of no bucket are left out."""

    def __init__(self, buckets: Buckets, keep: Keep | None) -> None:
        self.buckets = buckets
        self.keep = keep
        self.clips = keep.clips if isinstance(keep, ClipKeep) else None
        if self.clips is not None and not set(self.clips.frames) <= set(buckets.frames or ()):
            raise ConfigError(
                f"clips have {self.clips.frames} frames, buckets {buckets.frames}: say sp.Buckets(..., frames=) with "
                f"all of them, and with 1 where images are among the samples"
            )

    @property
    def columns(self) -> frozenset[str] | None:
        """The columns of an index that it looks at."""
        buckets = self.buckets.compound if isinstance(self.buckets, Signatures) else self.buckets
        sizes = frozenset(_SIZES) | (buckets.columns if isinstance(buckets, Compound) else frozenset())
        others = frozenset[str]() if self.keep is None else self.keep.columns
        return None if others is None else sizes | others

    def __call__(self, index: ShardIndex) -> np.ndarray:
        """The numbers, bucket after bucket, in each in the order of the shard."""
        rows = np.arange(len(index)) if self.keep is None else self.keep(index)
        found = self.assign(index, rows).bucket
        order = np.argsort(found, kind="stable")
        return np.asarray(rows[order[np.searchsorted(found[order], 0) :]])

    def assign(self, index: ShardIndex, rows: np.ndarray) -> Assigned:
        """Where these samples go."""
        h, w, misstated = (each[rows] for each in sizes_in(index))
        times, frames = np.ones(len(rows), np.int64), None
        if isinstance(self.keep, ClipKeep):
            times, frames, high, wide = self.keep.seen(index, rows)
            video = (frames > 0) & (high > 0) & (wide > 0)
            h, w, misstated = np.where(video, high, h), np.where(video, wide, w), misstated & ~video
            h = np.where(frames > 0, h, 0)
        sound = (w > 0) & (h > 0)
        found, ratios = np.full(len(rows), _NO_SIZE), np.zeros(len(rows))
        if isinstance(self.buckets, Signatures):
            _check_images(index)
            found[sound] = self.buckets.numbers(index, rows[sound], h[sound], w[sound])
        else:
            found[sound] = self.buckets.assign(h[sound], w[sound], None if frames is None else frames[sound])
        ratios[sound] = np.log(w[sound]) - np.log(h[sound])
        return Assigned(found, ratios, misstated, times)

    @property
    def text(self) -> str:
        """All that decides about a sample, in words."""
        kept = "" if self.keep is None else self.keep.text
        return f"{self.buckets.text} {self.buckets.sizes} where {kept}"

    @property
    def groups(self) -> int:
        """How many buckets there are."""
        return len(self.buckets)

    def find(self, index: ShardIndex, ends: np.ndarray) -> Found:
        """How many samples of each shard go to each bucket, and what of them is cut away."""
        numbers = Counter[str]()
        rows = np.arange(len(index))
        if self.keep is not None:
            kept, numbers = self.keep.judged(index)
            rows = np.flatnonzero(kept)
        found, ratios, misstated, times = self.assign(index, rows)
        inside = found >= 0
        shard, size = np.searchsorted(ends, rows, side="right"), len(self.buckets)
        at, often = shard[inside] * size + found[inside], times[inside]
        counts = np.bincount(at, often, minlength=len(ends) * size).astype(np.int64).reshape(-1, size)
        lost = cut_away(ratios[inside], log_ratios(self.buckets.sizes)[found[inside]]) * often
        unsized = np.flatnonzero(found == _NO_SIZE)
        first = None
        if len(unsized):
            at = int(shard[unsized[0]])
            first = at, int(rows[unsized[0]] - (ends[at - 1] if at else 0))
        # Not counted here: a plan says them at the end of each epoch.
        numbers[BEYOND] += int((found == -1).sum())
        numbers[UNSIZED] += len(unsized)
        numbers[WRONG] += int(misstated.sum())
        return Found(counts, +numbers, np.bincount(found[inside], lost, minlength=size), first)


class Occurring(Sorter):
    """The question which signatures samples have: under their names it counts them."""

    groups = 1

    def __init__(self, compound: Compound, keep: Keep | None) -> None:
        super().__init__(compound, keep)
        self._compound = compound

    @property
    def text(self) -> str:
        """All that decides about a sample, in words."""
        return f"signatures {super().text}"

    def find(self, index: ShardIndex, ends: np.ndarray) -> Found:
        """The signatures of the rows of some shards."""
        _check_images(index)
        rows = np.arange(len(index)) if self.keep is None else self.keep(index)
        h, w, _ = (each[rows] for each in sizes_in(index))
        sound = (w > 0) & (h > 0)
        found = self._compound.in_index(index, rows[sound], h[sound], w[sound])
        kinds = {Signatures.to_text(each): len(mine) for each, mine in found.kinds(self._compound)}
        wanted = np.zeros(len(index), bool)
        wanted[rows] = True
        return Found(per_shard(wanted, ends)[:, None], Counter(kinds), np.zeros(1))


def _check_images(index: ShardIndex) -> None:
    """Refuse an index that does not know the sizes of other images than the main one.

    Raises:
        Uncounted, Untold: which says what to do.
    """
    if not index.facts.get(IMAGES):
        if isinstance(index, MergedFacts):
            raise Untold(IMAGES)
        raise Uncounted(
            "an index does not know the sizes of references: it was made by an older version (run streampipe index "
            "again), or its source has none"
        )


def sizes_in(index: ShardIndex) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Height and width of each sample of a shard, as shown: of its image, or, without one, as its json says; or 0.

    Third, whether the json states another size than the image has.
    """
    names = ("height", "width")
    shown = [_sides(index, name) for name in names]
    stated = [_sides(index, f"json.{name}") for name in names]
    there, both = (shown[0] > 0) & (shown[1] > 0), (stated[0] > 0) & (stated[1] > 0)
    h, w = (np.where(there, *each) for each in zip(shown, stated, strict=True))
    return h, w, there & both & differs(stated, shown)


def _sides(index: ShardIndex, name: str) -> np.ndarray:
    """A column's whole numbers above 0, as ``streampipe.index.stated.whole`` takes them; 0 elsewhere."""
    column = index.columns([name]).get(name)
    if column is None:
        return np.zeros(len(index), np.int64)
    if isinstance(column, list):  # of several kinds
        return np.array([whole(value) or 0 for value in column], np.int64)
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return np.zeros(len(index), np.int64)
    numbers = column.fill_null(0).to_numpy()
    return np.where((numbers > 0) & (numbers < MOST_SIDE) & (numbers % 1 == 0), numbers, 0).astype(np.int64)
