"""The counted samples of a list of shards, by class of cost: what the packs of an epoch are made from."""

from __future__ import annotations

import zlib
from functools import cached_property

import numpy as np

from streampipe.errors import StageError
from streampipe.index import Finder
from streampipe.index.answers import Tally
from streampipe.plan.ask import Uncounted, ask, said
from streampipe.plan.bucket_orders import BucketOrders
from streampipe.plan.bucketed import BucketDataset, count_buckets
from streampipe.plan.buckets import Buckets
from streampipe.plan.costs import (
    ABOVE_BUDGET,
    ABOVE_LIMIT,
    WITH_COST,
    WITHOUT_COST,
    ByClass,
    Costs,
    Fine,
    columns_of,
    with_frames,
)
from streampipe.plan.dataset import Dataset, Size
from streampipe.plan.pack_plan import PackPlaces, PackPlan
from streampipe.plan.packing import Packing, Packs
from streampipe.query.condition import Keep
from streampipe.rng import derive
from streampipe.source import redact
from streampipe.urls import ShardList


class PackDataset:
    """The counted samples of a list of shards, by class of cost, and the packs that they make."""

    chains = None

    def __init__(self, shards: ShardList, finder: Finder, packing: Packing, keep: Keep | None, tally: Tally) -> None:
        none = np.zeros(tally.counts.shape[1], np.int64)
        self.fine = Fine(tally.counts.sum(0, dtype=np.int64), tally.sums, none if tally.most is None else tally.most)
        self._classes = packing.classes or self.fine.classes(len(shards))
        ends = np.array([end for end, _ in self._classes], np.int64)
        starts = np.concatenate([[0], ends[:-1] + 1]).astype(np.int64)
        self.counts = np.add.reduceat(tally.counts, starts, axis=1) if len(ends) else tally.counts[:, :0]
        self.by_bucket = tuple(int(n) for n in self.counts.sum(0, dtype=np.int64))
        self.packing = packing
        self.cost = float(tally.sums.sum())
        totals = self.counts.sum(1, dtype=np.int64)
        self.whole = Dataset(shards, finder, totals, ByClass(packing, keep, ends), Size(tally.wanted, tally.whole))
        self.whole.drops = said(tally)
        self.samples = self.whole.samples
        self.sample_bytes = self.whole.sample_bytes
        self.left_out = tally.numbers[ABOVE_LIMIT]
        self.unknown, self.over, self.known = (tally.numbers[each] for each in (WITHOUT_COST, ABOVE_BUDGET, WITH_COST))
        self._first = tally.first
        self._keep = keep

    @property
    def shards(self) -> ShardList:
        """The shards."""
        return self.whole.shards

    @cached_property
    def packs(self) -> Packs:
        """The packs of an epoch."""
        return Packs([top for _, top in self._classes], self.by_bucket, self.packing.budget)

    @property
    def fill(self) -> float:
        """What the samples of an epoch cost, in parts of what its packs might."""
        return self.cost / max(1, self.packs.number * self.packing.budget)

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the shards' number and of their samples in each class."""
        counts = zlib.crc32(np.ascontiguousarray(self.counts, np.int32).tobytes())
        return f"{derive('packs', len(self.shards), counts):016x}"

    def check_costs(self) -> None:
        """Refuse samples without a cost, and those that cost more than the budget.

        Raises:
            StageError: it names the first.
        """
        if self._first is None:
            return
        shard, row = self._first
        url, cost = self.shards[shard], self.packing.cost
        index = self.whole.finder.find(url, columns=columns_of(self.packing, self._keep))
        index = index and with_frames(index, self._keep)
        key = index.keys()[row] if index is not None and row < len(index) else f"sample {row}"
        costs = int(cost.of_index(index)[row]) if index is not None and row < len(index) else 0
        parts = [f"{self.unknown} samples have no cost ({cost.text})"] * bool(self.unknown)
        parts += [f"{self.over} cost more than the budget of {self.packing.budget}"] * bool(self.over)
        raise StageError(
            f"stage 'pack': {' and '.join(parts)}; the first is {key!r} of {redact(url)}, which "
            f"{f'costs {costs}' if costs else 'lacks a value, or costs nothing'}; "
            f"{ADVICE_OVER if costs else ADVICE_UNKNOWN}"
        )

    def places(self, plan: PackPlan, rank: int, ranks: int, repeat: bool = True) -> PackPlaces:
        """A rank's places, step by step; where ranks are more than samples, some have one twice."""
        return PackPlaces(plan, rank, ranks)

    def orders(self, plan: PackPlan) -> list[BucketOrders]:
        """The order of its classes' samples."""
        return [BucketOrders(self, plan.lanes, plan.seed, plan.shuffled)]

    def owner(self, bucket: int, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of which dataset draws are, and which of its draws: there is but one."""
        return np.zeros(len(draws), np.int64), draws

    def parts(self) -> tuple[Dataset, ...]:
        """The one dataset that all places are of."""
        return (self.whole,)


ADVICE_OVER = "leave out the dearest by pack(limit=n), counted, raise the budget, or skip them with on_error='skip'"
ADVICE_UNKNOWN = "say pack(missing=0) where a missing value costs nothing, or skip them with on_error='skip'"


def count_packs(
    shards: ShardList, finder: Finder, packing: Packing, keep: Keep | None = None, job: str | None = ""
) -> PackDataset:
    """Count the samples of shards by cost; raises as ``ask`` does.

    Raises:
        Uncounted: no sample has a cost that an index knows.
    """
    tally = ask(shards, finder, Costs(packing, keep), job)
    if tally.numbers[WITHOUT_COST] and not tally.numbers[WITH_COST]:
        raise NotPacked(f"no index knows what a sample costs ({packing.cost.text}), so packs are made as samples come")
    return PackDataset(shards, finder, packing, keep, tally)


class NotPacked(Uncounted):
    """Samples are counted, but what they cost is not known before they are read."""


def count_groups(
    shards: ShardList, finder: Finder, groups: Buckets | Packing, keep: Keep | None = None, job: str | None = ""
) -> BucketDataset | PackDataset:
    """Count the samples of shards by bucket, or by what they cost; raises as ``ask`` does."""
    if isinstance(groups, Packing):
        return count_packs(shards, finder, groups, keep, job)
    return count_buckets(shards, finder, groups, keep, job)
