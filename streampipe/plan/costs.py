"""Which class of costs each sample of an index belongs to, by what the index says that it costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streampipe.index import ShardIndex
from streampipe.plan.ask import Found
from streampipe.plan.clips import ClipKeep, Clips
from streampipe.plan.packing import Packing, fine_class, merge_classes, most_classes
from streampipe.query.condition import Keep

ABOVE_LIMIT, WITHOUT_COST, ABOVE_BUDGET, WITH_COST = "above", "unknown", "over", "known"
"""Under what a tally has samples above the limit, those without a cost, above the budget, and with a cost."""


class Costs:
    """How many samples of each fine class each shard has, as a question to a dataset."""

    def __init__(self, packing: Packing, keep: Keep | None) -> None:
        self._packing = packing
        self._keep = keep

    @property
    def text(self) -> str:
        """All that decides about a sample, in words."""
        return f"pack {self._packing.text} where {'' if self._keep is None else self._keep.text}"

    @property
    def groups(self) -> int:
        """How many fine classes there are."""
        return int(fine_class(np.array([self._packing.most]))[0]) + 1

    @property
    def columns(self) -> frozenset[str] | None:
        """The columns of an index that it looks at."""
        return columns_of(self._packing, self._keep)

    def find(self, index: ShardIndex, ends: np.ndarray) -> Found:
        """Samples by fine class, their costs, and the dearest of each class."""
        numbers = Counter[str]()
        rows = np.arange(len(index))
        if self._keep is not None:
            kept, numbers = self._keep.judged(index)
            rows = np.flatnonzero(kept)
        if isinstance(self._keep, ClipKeep):
            rows, index = self._keep(index), self._keep.with_frames(index)
        costs = self._packing.cost.of_index(index)[rows]
        shard, most = np.searchsorted(ends, rows, side="right"), self._packing.most
        sound = (costs > 0) & (costs <= most)
        above = (costs > most) if self._packing.limit is not None else np.zeros(len(costs), bool)
        fine = fine_class(costs[sound])
        counts = np.bincount(shard[sound] * self.groups + fine, minlength=len(ends) * self.groups)
        dearest = np.zeros(self.groups, np.int64)
        np.maximum.at(dearest, fine, costs[sound])
        numbers[WITHOUT_COST] += int((costs <= 0).sum())
        numbers[WITH_COST] += int((costs > 0).sum())
        numbers[ABOVE_LIMIT] += int(above.sum())
        numbers[ABOVE_BUDGET] += int(((costs > most) & ~above).sum())
        bad, first = np.flatnonzero(~sound & ~above), None
        if len(bad):
            at = int(shard[bad[0]])
            first = at, int(rows[bad[0]] - (ends[at - 1] if at else 0))
        sums = np.bincount(fine, costs[sound], minlength=self.groups)
        return Found(counts.reshape(len(ends), -1), +numbers, sums, first, dearest)


@dataclass(frozen=True)
class ByClass:
    """From a shard's index to the numbers of its samples, sorted by class; those without one are left out.

    ``ends``: the last fine class of each class.
    """

    packing: Packing
    keep: Keep | None
    ends: np.ndarray

    @property
    def columns(self) -> frozenset[str] | None:
        """The columns of an index that it looks at."""
        return columns_of(self.packing, self.keep)

    @property
    def clips(self) -> Clips | None:
        """The rule by which samples are cut into clips, where they are."""
        return self.keep.clips if isinstance(self.keep, ClipKeep) else None

    def __call__(self, index: ShardIndex) -> np.ndarray:
        """The numbers, class after class, in each in the order of the shard."""
        rows = np.arange(len(index)) if self.keep is None else self.keep(index)
        costs = self.packing.cost.of_index(with_frames(index, self.keep))[rows]
        sound = (costs > 0) & (costs <= self.packing.most)
        rows, costs = rows[sound], costs[sound]
        found = np.searchsorted(self.ends, fine_class(costs))
        return np.asarray(rows[np.argsort(found, kind="stable")])


def with_frames(index: ShardIndex, keep: Keep | None) -> ShardIndex:
    """An index that knows how long clips are, where samples are cut into some."""
    return keep.with_frames(index) if isinstance(keep, ClipKeep) else index


def columns_of(packing: Packing, keep: Keep | None) -> frozenset[str] | None:
    others = frozenset[str]() if keep is None else keep.columns
    return None if others is None else others | frozenset(packing.cost.columns)


@dataclass(frozen=True)
class Fine:
    """Of each fine class of a dataset: how many samples, their costs together, and the dearest."""

    counts: np.ndarray
    sums: np.ndarray
    most: np.ndarray

    def classes(self, shards: int) -> tuple[tuple[int, int], ...]:
        """Fine classes put together: the last one of each class, and what it counts as."""
        ends = merge_classes(self.counts, self.sums, self.most, most_classes(shards))
        return tuple((int(end), int(self.most[end])) for end in ends)

    @staticmethod
    def of_all(parts: Sequence[Fine]) -> Fine:
        """Of several datasets together."""
        counts, sums = sum(each.counts for each in parts), sum(each.sums for each in parts)
        return Fine(np.asarray(counts), np.asarray(sums), np.maximum.reduce([each.most for each in parts]))
