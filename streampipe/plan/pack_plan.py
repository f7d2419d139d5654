"""Packs in the planned tier: a pack is a number, and its samples follow from it.

Which costs share a pack is decided by how many samples each class of costs has (``packing``). A class is then a dataset
of its own, as a bucket is: its counts are a column of a matrix, shards x classes, and its order is that of any planned
dataset (``bucket_orders``). Packs are numbered through the epoch, step after step and rank after rank, whatever the
number of ranks; so the state is a step, and a run goes on with other ranks as a plan goes on with another global batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from streampipe.counters import counters
from streampipe.errors import ConfigError
from streampipe.plan.bucket_orders import BucketOrders, choose_lanes
from streampipe.plan.cut import Cut
from streampipe.plan.lanes import Lanes, Shuffle, batch_seed
from streampipe.plan.packing import Draws, Packing, PackOrder, Packs
from streampipe.plan.planned import Begun, Counted, Cursor, Place, Plan

ABOVE = "left out, cost above limit"


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


def make_pack_plan(dataset: Packed, ranks: int, shuffle: Shuffle, seed: int, filter: str) -> PackPlan:
    """A plan for a new run of one pack on each rank."""
    lanes = class_lanes(dataset, shuffle)
    return PackPlan(dataset, lanes, seed, shuffle.is_on, filter, shuffle.chosen, ranks=ranks)


def class_lanes(dataset: Any, shuffle: Shuffle) -> Lanes:
    """Lanes for all classes of a dataset alike; each has its share of the window, so that all of them hold one."""
    lanes = choose_lanes(dataset, shuffle)
    return replace(lanes, window=shuffle.in_lanes(lanes.places, lanes.places, dataset.sample_bytes))


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
