"""Buckets in the planned tier: a plan of whole batches, each of one bucket.

A step is a group (see ``groups``); its samples are draws of the order of its bucket (``bucket_orders``). So the state
is the number of a step, and any number of ranks and workers makes the same batches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from streampipe.counters import counters
from streampipe.errors import ConfigError
from streampipe.plan.bucket_orders import MOST_PLACES, BucketOrders, choose_lanes
from streampipe.plan.buckets import MISSTATED, Buckets, name_of
from streampipe.plan.groups import GroupOrder, Groups, Origin
from streampipe.plan.lanes import Lanes, Shuffle
from streampipe.plan.planned import Counted, Cursor, Place, Plan


class Bucketed(Counted, Protocol):
    """What a plan needs of a dataset by bucket."""

    by_bucket: tuple[int, ...]
    cut: np.ndarray
    dropped: Counter[str]
    misstated: int

    @property
    def buckets(self) -> Buckets: ...
    def check_sized(self) -> None: ...
    def cut_of(self, places: Sequence[Place], target: int, mixed: bool) -> float: ...
    def orders(self, plan: BucketPlan) -> Sequence[BucketOrders]: ...
    def owner(self, bucket: int, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


@dataclass(frozen=True)
class BucketPlan(Plan):
    """A plan whose steps are groups. ``lanes`` are those of a bucket, for all samples together; ``ranks`` the job's."""

    dataset: Bucketed
    groups: Groups = None  # type: ignore[assignment]  # a dataclass's later fields need defaults
    ranks: int = 1

    @property
    def is_empty(self) -> bool:
        """Whether no epoch has a batch."""
        return self.groups.is_empty

    @property
    def known(self) -> Cursor:
        """The first place that this plan knows."""
        begun = self.groups.origin
        return Cursor(begun.epoch, begun.steps, None) if begun else Cursor(0, 0, None)

    @property
    def same(self) -> bool:
        """Whether all ranks have the same bucket at a step."""
        return self.groups.together == 1

    def batches_in(self, epoch: int) -> int:
        """Batches of that epoch, the same on every rank."""
        return self.groups.steps_in(epoch)

    def length(self, epoch: int, epochs: int) -> int:
        """Batches of so many epochs from ``epoch`` on."""
        if not epochs:
            return 0
        return self.batches_in(epoch) + self.groups.steps_before(epoch + epochs) - self.groups.steps_before(epoch + 1)

    def check_epochs(self, epochs: int | None) -> None:
        """Refuse a run of which a pass of ``epochs`` epochs (None: an endless one) would have no batch.

        Raises:
            ConfigError: no bucket has samples enough.
        """
        if self.is_empty or (epochs is not None and not self.length(0, epochs)):
            raise ConfigError(
                f"no bucket has enough of the {self.lanes.samples} samples for one batch ({max(self.groups.sizes)} "
                f"over all ranks): use bucket(tail='merge'), fewer buckets, a smaller batch, or more epochs"
            )

    @property
    def batch(self) -> int | list[int]:
        """The global batch of every bucket, or a list of each one's."""
        sizes = self.groups.sizes
        return sizes[0] if len(set(sizes)) == 1 else list(sizes)

    def state(self, cursor: Cursor) -> dict[str, Any]:
        """What ``load`` needs to go on at ``cursor``, as plain JSON."""
        groups = self.groups
        state = {
            **super().state(cursor),
            "buckets": groups.buckets.text,
            "leftover": groups.leftover,
            "together": groups.together,
        }
        begun = groups.origin
        if begun and (groups.leftover == "carry" or cursor.epoch == begun.epoch):
            state["begun"] = begun._asdict()
        return state

    def with_lanes(self, places: int, columns: int, window: int) -> BucketPlan:
        """The same plan with other numbers of lanes, and another window.

        Raises:
            ConfigError: no plan has such numbers.
        """
        if not (1 <= places <= MOST_PLACES and columns == 1):
            raise ConfigError(
                f"the state's lanes are {[places, columns]}, but buckets have 1 to {MOST_PLACES} x 1: it is damaged"
            )
        return replace(self, lanes=Lanes(self.lanes.samples, places, places, columns, window))

    def _as_saved(self, state: Mapping[str, Any]) -> Plan:
        """The plan that a state was saved with."""
        places, columns = state["lanes"]
        then = self.with_lanes(places, columns, state["window"] or 0)
        return replace(then, groups=_groups_of(state, self.groups))

    def _from(self, then: Plan, cursor: Cursor, state: Mapping[str, Any]) -> tuple[Plan, Cursor]:
        """This plan where the plan of another global batch stopped: each bucket's draws in their order."""
        assert isinstance(then, BucketPlan)
        self._check_alone(then, state)
        cursor = then.after(cursor, 0)
        origin = GroupOrder(then.groups, self.seed).origin(cursor.epoch, cursor.step)
        keeps = self.groups.leftover == "carry" or cursor.step
        return replace(then, groups=replace(self.groups, origin=origin if keeps else None)), cursor

    def delivered(self, at: Cursor, places: Sequence[Place], rank: int) -> None:
        """The step ``at`` was made of these places: count it for its bucket; at an epoch's end, what is left over."""
        buckets, dataset = self.groups.buckets, self.dataset
        size = places[0].size or (0, 0)
        name, target = name_of(size), buckets.sizes.index(size)
        counters.add(name, "batches")
        counters.add(name, "samples", len(places))
        counters.add(name, "cut", dataset.cut_of(places, target, mixed=self.groups.leftover == "merge"))
        if rank or self.after(at).epoch == at.epoch:
            return
        for what, number in dataset.dropped.items():
            if number:
                counters.add("bucket", f"dropped ({what})", number)
        if dataset.misstated:
            counters.add("bucket", MISSTATED, dataset.misstated)
        if over := sum(self.groups.full(at.epoch)) % self.groups.together if self.groups.leftover == "drop" else 0:
            counters.add("bucket", "batches left out, too few for all ranks", over)
        if self.groups.leftover == "drop":
            for size, number in zip(buckets.sizes, self.groups.left_over_in(at.epoch), strict=True):
                if number:
                    counters.add(name_of(size), "left out", number)


def _groups_of(state: Mapping[str, Any], groups: Groups) -> Groups:
    """The groups that a state was saved with.

    Raises:
        ConfigError: there are no such.
    """
    batch, begun = state["batch"], state.get("begun")
    sizes = (batch,) * len(groups.sizes) if isinstance(batch, int) else tuple(batch)
    origin = None
    if begun is not None:
        origin = Origin(begun["epoch"], begun["steps"], begun["turn"], tuple(begun["draws"]))
    ends = [n * (origin.turn + 1) for n in groups.samples] if origin else []
    if len(sizes) != len(groups.sizes) or (origin and not _fits(origin.draws, ends)):
        raise ConfigError(
            f"the state's batch is {batch!r:.80} and its epoch was begun with {begun!r:.80}, which do not fit "
            f"{len(groups.sizes)} buckets: it is damaged"
        )
    return replace(groups, sizes=sizes, origin=origin)


def _fits(draws: Sequence[int], ends: Sequence[int]) -> bool:
    return len(draws) == len(ends) and all(each <= end for each, end in zip(draws, ends, strict=True))


def make_plan(
    dataset: Bucketed,
    sizes: Sequence[int],
    ranks: int,
    shuffle: Shuffle,
    seed: int,
    filter: str,
    leftover: str = "carry",
    same: bool = True,
) -> BucketPlan:
    """A plan for a new run of batches of ``sizes[b]`` samples of bucket b on each rank.

    ``same``: a step is one bucket on all ranks, else one bucket on each. ``leftover``: see ``Groups``. ``filter``: the
    conditions, for the state.
    """
    per_group = tuple(size * ranks for size in sizes) if same else tuple(sizes)
    groups = Groups(dataset.buckets, dataset.by_bucket, per_group, leftover, 1 if same else ranks)
    lanes = choose_lanes(dataset, shuffle)
    return BucketPlan(dataset, lanes, seed, shuffle.is_on, filter, shuffle.chosen, groups=groups, ranks=ranks)


class BucketPlaces:
    """From a step to the places of one rank's samples, slot by slot."""

    def __init__(self, dataset: Bucketed, plan: BucketPlan, rank: int, ranks: int) -> None:
        self._dataset = dataset
        self._plan = plan
        self._rank, self._ranks = rank, ranks
        self._groups = GroupOrder(plan.groups, plan.seed)
        self._orders = dataset.orders(plan)

    def __call__(self, epoch: int, step: int) -> list[Place]:
        """Where the rank's samples of a batch are."""
        plan, ranks = self._plan, self._ranks
        number = plan.groups.first(epoch, step)
        if plan.same:
            group = self._groups.at(number, epoch)
            mine = np.arange(self._rank, max(group.samples, ranks), ranks) % group.samples  # too few: some twice
        else:
            group = self._groups.at(number + self._rank, epoch)
            mine = np.arange(group.samples)
        size = plan.groups.buckets.sizes[group.target]
        places, ends = [], np.cumsum([each.samples for each in group.draws])
        for i, (bucket, first, count) in enumerate(group.draws):
            inside = mine[(mine >= ends[i] - count) & (mine < ends[i])]
            places += self._find(bucket, first + inside - (ends[i] - count), size)
        return places

    def _find(self, bucket: int, draws: np.ndarray, size: tuple[int, ...]) -> list[Place]:
        if len(self._orders) == 1:
            return self._orders[0].find(bucket, draws, size)
        parts, numbers = self._dataset.owner(bucket, draws)
        found = {
            part: iter(self._orders[part].find(bucket, numbers[parts == part], size)) for part in set(parts.tolist())
        }
        return [next(found[part]) for part in parts.tolist()]
