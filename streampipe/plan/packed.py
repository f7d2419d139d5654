"""Packs in the planned tier: a pack is a number, and its samples follow from it.

Which costs share a pack is decided by how many samples each class of costs has (``packing``). A class is then a dataset
of its own, as a bucket is: its counts are a column of a matrix, shards x classes, and its order is that of any planned
dataset. Packs are numbered through the epoch, step after step and rank after rank, whatever the number of ranks; so the
state is a step, and a run goes on with other ranks as a plan goes on with another global batch.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from streampipe.counters import counters
from streampipe.errors import ConfigError, StageError
from streampipe.index import Finder, ShardIndex
from streampipe.index.answers import Tally
from streampipe.plan.ask import Found, Uncounted, ask, said
from streampipe.plan.bucketed import BucketDataset, BucketOrders, choose_lanes, count_buckets
from streampipe.plan.buckets import Buckets
from streampipe.plan.clips import ClipKeep, Clips
from streampipe.plan.cut import Cut
from streampipe.plan.dataset import Dataset, Size
from streampipe.plan.lanes import Lanes, batch_seed, sensible_window
from streampipe.plan.packing import (
    Draws,
    Packing,
    PackOrder,
    Packs,
    fine_class,
    merge_classes,
    most_classes,
)
from streampipe.plan.planned import Begun, Counted, Cursor, Place, Plan
from streampipe.query.condition import Keep
from streampipe.rng import derive
from streampipe.source import redact
from streampipe.urls import ShardList

ABOVE = "left out, cost above limit"
_ABOVE, _UNKNOWN, _OVER, _KNOWN = "above", "unknown", "over", "known"
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
        return _columns(self._packing, self._keep)

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
        numbers[_UNKNOWN] += int((costs <= 0).sum())
        numbers[_KNOWN] += int((costs > 0).sum())
        numbers[_ABOVE] += int(above.sum())
        numbers[_OVER] += int(((costs > most) & ~above).sum())
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
        return _columns(self.packing, self.keep)

    @property
    def clips(self) -> Clips | None:
        """The rule by which samples are cut into clips, where they are."""
        return self.keep.clips if isinstance(self.keep, ClipKeep) else None

    def __call__(self, index: ShardIndex) -> np.ndarray:
        """The numbers, class after class, in each in the order of the shard."""
        rows = np.arange(len(index)) if self.keep is None else self.keep(index)
        costs = self.packing.cost.of_index(_with_frames(index, self.keep))[rows]
        sound = (costs > 0) & (costs <= self.packing.most)
        rows, costs = rows[sound], costs[sound]
        found = np.searchsorted(self.ends, fine_class(costs))
        return np.asarray(rows[np.argsort(found, kind="stable")])


def _with_frames(index: ShardIndex, keep: Keep | None) -> ShardIndex:
    """An index that knows how long clips are, where samples are cut into some."""
    return keep.with_frames(index) if isinstance(keep, ClipKeep) else index


def _columns(packing: Packing, keep: Keep | None) -> frozenset[str] | None:
    others = frozenset[str]() if keep is None else keep.columns
    return None if others is None else others | frozenset(packing.cost.columns)


class Packed(Counted, Protocol):
    """What a plan needs of a dataset that is packed."""

    by_bucket: tuple[int, ...]
    packing: Packing
    left_out: int
    unknown: int
    over: int

    @property
    def packs(self) -> Packs: ...
    @property
    def fill(self) -> float: ...
    def check_costs(self) -> None: ...
    def orders(self, plan: PackPlan) -> Sequence[BucketOrders]: ...
    def owner(self, bucket: int, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


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
        self.whole.told = said(tally)
        self.samples = self.whole.samples
        self.sample_bytes = self.whole.sample_bytes
        self.left_out = tally.numbers[_ABOVE]
        self.unknown, self.over, self.known = (tally.numbers[each] for each in (_UNKNOWN, _OVER, _KNOWN))
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
        index = self.whole.finder.find(url, columns=_columns(self.packing, self._keep))
        index = index and _with_frames(index, self._keep)
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
    if tally.numbers[_UNKNOWN] and not tally.numbers[_KNOWN]:
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


@dataclass(frozen=True)
class PackPlan(Plan):
    """A plan whose steps are packs, one for each rank. ``lanes`` are those of a class, for all samples together."""

    dataset: Packed
    ranks: int = 1

    @property
    def packs(self) -> Packs:
        """The packs of an epoch."""
        return self.dataset.packs

    @property
    def batches(self) -> int:
        """Steps of an epoch, the same on every rank."""
        return -(-self.packs.number // self.ranks)

    @property
    def batch(self) -> int:
        """Packs of a step."""
        return self.ranks

    def cut(self, epoch: int) -> Cut:
        """How that epoch's packs become steps."""
        begun = self._begun_in(epoch)
        if begun is None:
            return Cut(self.packs.number, self.ranks)
        return Cut(self.packs.number, self.ranks, "short", begun.draws, begun.steps)

    def state(self, cursor: Cursor) -> dict[str, Any]:
        """What ``load`` needs to go on at ``cursor``, as plain JSON."""
        packs = f"{self.dataset.packing.text}: {self.packs.text}"
        return {**super().state(cursor), "batch": self.ranks, "packs": packs}

    def _as_saved(self, state: Mapping[str, Any]) -> Plan:
        """The plan that a state was saved with."""
        (places, columns), begun = state["lanes"], state.get("begun")
        if columns != 1 or places < 1:
            raise ConfigError(f"the state's lanes are {[places, columns]}, but packs have one column: it is damaged")
        if begun is not None and begun["draws"] > self.packs.number:
            raise ConfigError(f"the state's epoch was begun with {begun!r:.80}, of {self.packs.number} packs: damaged")
        lanes = replace(self.lanes, size=places, places=places, columns=1, window=state["window"] or 0)
        begun = begun and Begun(state["at"][0], lanes, begun["draws"], begun["steps"])
        return replace(self, lanes=lanes, ranks=state["batch"], begun=begun)

    def _from(self, then: Plan, cursor: Cursor, state: Mapping[str, Any]) -> tuple[Plan, Cursor]:
        """This plan where that of another number of ranks stopped: the same packs from there on."""
        self._check_alone(then, state)
        cursor = then.after(cursor, 0)
        mine = replace(self, lanes=then.lanes)
        if not cursor.step:
            return mine, cursor
        packs = then.cut(cursor.epoch).before(cursor.step)
        return replace(mine, begun=Begun(cursor.epoch, then.lanes, packs, cursor.step)), cursor

    def delivered(self, at: Cursor, places: Sequence[Place], rank: int) -> None:
        """The step ``at`` was made of these places: at an epoch's end, what was left out."""
        if rank or self.after(at).epoch == at.epoch:
            return
        dataset = self.dataset
        for what, number in ((ABOVE, dataset.left_out), ("skipped, cost above budget", dataset.over)):
            if number:
                counters.add("pack", what, number)
        if dataset.unknown:
            counters.add("pack", "skipped, without a cost", dataset.unknown)


def make_pack_plan(
    dataset: Packed, ranks: int, window: int | None, seed: int, filter: str, sensible: bool = False
) -> PackPlan:
    """A plan for a new run of one pack on each rank. ``window`` and ``sensible``: as in ``planned.make``."""
    return PackPlan(
        dataset, class_lanes(dataset, window, sensible), seed, window is not None, filter, sensible, ranks=ranks
    )


def class_lanes(dataset: Any, window: int | None, sensible: bool) -> Lanes:
    """Lanes for all classes of a dataset alike; each has its share of the window, so that all of them hold one."""
    lanes = choose_lanes(dataset, window, False)
    if not sensible or window is None:
        return lanes
    size = getattr(dataset, "sample_bytes", 0.0)  # a mixture does not say
    return replace(lanes, window=sensible_window(lanes.places, lanes.places, size))


class PackPlaces:
    """From a step to the places of one rank's samples: those of its pack."""

    def __init__(self, plan: PackPlan, rank: int, ranks: int) -> None:
        self._plan = plan
        self._rank, self._ranks = rank, ranks
        self._orders = plan.dataset.orders(plan)
        self._order: tuple[int, PackOrder] | None = None

    def __call__(self, epoch: int, step: int) -> list[Place]:
        """Where the rank's samples of a step are."""
        plan, cut = self._plan, self._plan.cut(epoch)
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, PackOrder(plan.packs, batch_seed(plan.seed, epoch))
        order = self._order[1]
        numbers = cut.numbers(step, repeat=False)
        if len(numbers) == self._ranks:
            draws = order.at(int(numbers[self._rank]))
        else:  # the epoch's last step has too few packs for all ranks
            draws = share_out([order.at(int(each)) for each in numbers], self._ranks, plan.packs.costs)[self._rank]
        return self._find(draws, epoch)

    def _find(self, draws: Sequence[Draws], epoch: int) -> list[Place]:
        found: list[Place] = []
        for each in draws:
            first = epoch * self._plan.dataset.by_bucket[each.number] + each.first
            found += self._of_class(each.number, np.arange(first, first + each.samples))
        return found

    def _of_class(self, number: int, draws: np.ndarray) -> list[Place]:
        if len(self._orders) == 1:
            return self._orders[0].find(number, draws)
        parts, own = self._plan.dataset.owner(number, draws)
        found = {p: iter(self._orders[p].find(number, own[parts == p])) for p in set(parts.tolist())}
        return [next(found[part]) for part in parts.tolist()]


def share_out(packs: Sequence[Sequence[Draws]], ranks: int, costs: Sequence[int]) -> list[list[Draws]]:
    """The samples of too few packs as one pack for each rank: the dearest first, each into the cheapest pack.

    Where there are fewer samples than ranks, some have one twice.

    >>> share_out([[Draws(1, 0, 2), Draws(0, 5, 3)]], 2, [1, 3])
    [[Draws(number=1, first=0, samples=1), Draws(number=0, first=5, samples=1), Draws(number=0, first=7, samples=1)],
     [Draws(number=1, first=1, samples=1), Draws(number=0, first=6, samples=1)]]
    """
    every = [Draws(each.number, each.first + i, 1) for pack in packs for each in pack for i in range(each.samples)]
    every.sort(key=lambda each: -costs[each.number])
    found: list[list[Draws]] = [[] for _ in range(ranks)]
    loads = [0] * ranks
    for each in every:
        cheapest = loads.index(min(loads))
        found[cheapest].append(each)
        loads[cheapest] += costs[each.number]
    return [mine or [every[rank % len(every)]] for rank, mine in enumerate(found)]
