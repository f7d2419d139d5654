"""Mixtures in the planned tier: several datasets as one, with exact shares or repeats.

Draw i of the mixture, counted over all epochs, belongs to one dataset and is its j-th draw; both follow from i alone. A
dataset's own draws go through it epoch after epoch in its own shuffled order, so a small one is repeated and a large
one is not cut short. The state is the number of the step, as in any plan.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from streampipe.errors import ConfigError
from streampipe.plan.bucket_orders import BucketOrders, choose_lanes
from streampipe.plan.bucket_plan import BucketPlaces, BucketPlan
from streampipe.plan.bucketed import BucketDataset
from streampipe.plan.buckets import Buckets
from streampipe.plan.course import Rates
from streampipe.plan.cut import check_ranks
from streampipe.plan.dataset import Dataset, within
from streampipe.plan.deal import shard_seed
from streampipe.plan.lanes import EpochOrder, Lanes, Shuffle, batch_seed, choose
from streampipe.plan.pack_plan import PackPlaces, PackPlan, class_lanes
from streampipe.plan.packed import PackDataset
from streampipe.plan.packing import Packs
from streampipe.plan.planned import Place, Plan
from streampipe.plan.stepped import StepPlan
from streampipe.rng import derive


class Shares:
    """Which part a draw belongs to: after any number of draws every part has its share, give or take one or two.

    The first part takes draw i where ``floor(w * (i + 1) + 1/2)`` is one more than ``floor(w * i + 1/2)``; the draws
    that it leaves are numbered anew and shared by the others in the same way. In fractions, so no draw is ever lost.

    >>> Shares([3, 1]).owner(np.arange(8))[0].tolist()
    [0, 0, 1, 0, 0, 0, 1, 0]
    """

    def __init__(self, weights: Sequence[float | Fraction]) -> None:
        rest = sum((Fraction(str(weight)) for weight in weights), Fraction())
        self._shares = []
        for weight in weights:
            self._shares.append(Fraction(str(weight)) / rest if rest else Fraction(1))
            rest -= Fraction(str(weight))

    def owner(self, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each draw its part, and its number among the draws of that part."""
        part, number = np.full(len(draws), -1), draws.astype(np.int64)
        for i, share in enumerate(self._shares):
            left = part < 0
            before, after = _taken(share, number), _taken(share, number + 1)
            mine = left & (after > before)
            part[mine] = i
            number = np.where(mine, before, np.where(left, number - before, number))
        return part, number


class InTurn:
    """Which part a draw belongs to where the parts come one after the other in every epoch.

    >>> [each.tolist() for each in InTurn([2, 1]).owner(np.arange(6))]
    [[0, 0, 1, 0, 0, 1], [0, 1, 0, 2, 3, 1]]
    """

    def __init__(self, counts: Sequence[int]) -> None:
        self._counts = np.array(counts, np.int64)
        self._ends = np.cumsum(self._counts)

    def owner(self, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each draw its part, and its number among the draws of that part."""
        epochs, at = np.divmod(draws, self._ends[-1])
        part = np.searchsorted(self._ends, at, side="right")
        return part, epochs * self._counts[part] + at - (self._ends - self._counts)[part]


_FITS = 2_000_000_000
"""Denominators b for which 2 * b * b is below 2^63."""


def _taken(share: Fraction, draws: np.ndarray) -> np.ndarray:
    """floor(share * draws + 1/2), exactly: where 64 bits do not hold it, in Python's integers."""
    a, b = share.numerator, share.denominator
    if b > _FITS:
        return np.array([(2 * a * draw + b) // (2 * b) for draw in draws.tolist()], np.int64)
    whole, rest = np.divmod(draws, b)
    return np.asarray(whole * a + (2 * a * rest + b) // (2 * b))


@dataclass(frozen=True)
class Part:
    """One dataset of a mixture: its samples, its order, and its own stages."""

    dataset: Any  # a Dataset, or, behind buckets, a BucketDataset
    seed: int
    shuffle: Shuffle
    stages: tuple[Any, ...]
    filter: str

    @property
    def window(self) -> int | None:
        """In which its samples are shuffled, as it was asked for."""
        return self.shuffle.window


class MixDataset:
    """The counted samples of a mixture: what a plan needs of a dataset. Of every epoch's draws it has [first, last).

    ``rates``: the shares step by step, where they change.
    """

    sample_bytes = 0.0  # of samples of several datasets no size is said

    def __init__(
        self,
        parts: Sequence[Part],
        weights: Sequence[float | Fraction] | None,
        repeats: Sequence[int],
        first: int = 0,
        last: int | None = None,
        rates: Rates | None = None,
    ) -> None:
        self.rates = rates
        self._parts = tuple(parts)
        self._repeats = tuple(repeats)
        counts = [part.dataset.samples * times for part, times in zip(parts, repeats, strict=True)]
        self._given = weights
        self.weights = tuple(weights or counts)
        self.shards = [url for part in parts for url in _few(part)]
        self.whole = sum(counts)
        self.first, self.last = within(self.whole, first, last)
        self.samples = self.last - self.first

    def limited(self, first: int, last: int | None = None) -> MixDataset:
        """Of every epoch the draws [first, last) of those that there are here; ``last`` None: all from ``first`` on."""
        if self.rates is not None:
            raise ConfigError("take and skip stand behind a mixture with a schedule; put them into the parts")
        a, b = within(self.samples, first, last)
        return type(self)(self._parts, self._given, self._repeats, self.first + a, self.first + b)

    @property
    def fingerprint(self) -> str:
        """A digest of all parts and their weights."""
        of_parts = [f"{p.dataset.fingerprint} {p.seed} {p.window} {p.filter}" for p in self._parts]
        if self.rates is not None:  # the shares may be changed while it runs
            return f"{derive('mix by steps', *of_parts, repr(self._repeats)):016x}"
        limit = [f"{self.first} {self.last}"] if self.samples < self.whole else []
        return f"{derive('mix', *of_parts, repr(self.weights), *limit):016x}"

    @property
    def shares(self) -> Shares | InTurn:
        """From a draw to its part."""
        return Shares(self.weights)

    def places(self, plan: Plan, rank: int, ranks: int, repeat: bool = True) -> MixPlaces:
        """A rank's places, step by step; see ``RankReader``."""
        return MixPlaces(self, plan, rank, ranks, repeat)

    @property
    def mixed(self) -> tuple[Part, ...]:
        """The parts, each with its own window."""
        return self._parts

    @property
    def part_samples(self) -> tuple[int, ...]:
        """How many samples each part has."""
        return tuple(part.dataset.samples for part in self._parts)

    def parts(self) -> tuple[Dataset, ...]:
        """The datasets that a place's ``part`` counts."""
        return tuple(part.dataset for part in self._parts)

    @property
    def chains(self) -> list[tuple[Any, ...]]:
        """The stages of each part."""
        return [part.stages for part in self._parts]


class ConcatDataset(MixDataset):
    """The same where the parts come one after the other."""

    @property
    def shares(self) -> Shares | InTurn:
        """From a draw to its part."""
        return InTurn([part.dataset.samples for part in self._parts])

    @property
    def fingerprint(self) -> str:
        """A digest of all parts, in order."""
        return f"{derive('concat', super().fingerprint):016x}"


def _few(part: Part) -> list[str]:
    return [part.dataset.shards[0]]


class MixPlaces:
    """From a step to the places of one rank's samples."""

    def __init__(self, dataset: MixDataset, plan: Plan, rank: int, ranks: int, repeat: bool = True) -> None:
        self._parts = dataset._parts
        self._whole, self._first = dataset.whole, dataset.first
        self._shares = dataset.shares
        self._plan = plan
        self._rank = (rank, ranks, repeat)
        check_ranks(plan.lanes.size, ranks)
        self._orders: dict[int, tuple[int, Any, EpochOrder]] = {}  # by part: of the epoch that it is in

    def __call__(self, epoch: int, step: int) -> list[Place]:
        """Where the rank's samples of a batch are."""
        parts, numbers = self._owner(epoch, step)
        return [self._place(part, number) for part, number in zip(parts.tolist(), numbers.tolist(), strict=True)]

    def _owner(self, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """For each of the rank's slots its part, and its number among the draws of that part."""
        plan, (rank, ranks, _) = self._plan, self._rank
        if isinstance(plan, StepPlan):
            parts, numbers = plan.owner(epoch, step)
            return parts[rank::ranks], numbers[rank::ranks]
        return self._shares.owner(epoch * self._whole + self._first + plan.cut(epoch).numbers(step, *self._rank))

    def _place(self, part: int, number: int) -> Place:
        mine = self._parts[part]
        epoch, at = divmod(number, mine.dataset.samples)
        known = self._orders.get(part)
        if known is None or known[0] != epoch:
            shuffled = mine.shuffle.is_on
            stream = mine.dataset.stream(shard_seed(mine.seed, epoch) if shuffled else None)
            # Lanes take turns draw by draw: a batch of as many samples as there are lanes, one from each.
            most = choose(48, mine.dataset.samples, len(mine.dataset.shards))[0] if shuffled else 1
            lanes = Lanes(mine.dataset.samples, most, most, 1, mine.shuffle.in_lanes(most))
            known = self._orders[part] = (epoch, stream, EpochOrder(lanes, batch_seed(mine.seed, epoch)))
        _, stream, order = known
        shard, row = stream.find(order.draws(np.array([at])))[0]
        return Place(shard, row, epoch, part)


class MixedBuckets:
    """The counted samples of a mixture by bucket. In each bucket the parts have their shares of the draws."""

    sample_bytes = 0.0  # of samples of several datasets no size is said

    def __init__(
        self, parts: Sequence[Part], weights: Sequence[float | Fraction] | None, repeats: Sequence[int]
    ) -> None:
        self._parts = tuple(parts)
        self._datasets: list[BucketDataset] = [part.dataset for part in parts]
        counts = [each.by_bucket for each in self._datasets]
        self._times = _rounds(counts, weights, repeats)
        draws = [[n * times for n in each] for each, times in zip(counts, self._times, strict=True)]
        self.by_bucket = tuple(round(sum(of_bucket)) for of_bucket in zip(*draws, strict=True))
        self._shares = [Shares(of_bucket) for of_bucket in zip(*draws, strict=True)]
        self.samples = sum(self.by_bucket)
        lost = sum(each.cut * np.array(mine, float) for each, mine in zip(self._datasets, draws, strict=True))
        self.cut = np.asarray(lost / np.maximum(self.by_bucket, 1))
        self.dropped = sum((each.dropped for each in self._datasets), Counter[str]())
        self.misstated = sum(each.misstated for each in self._datasets)
        self.shards = [url for part in parts for url in _few(part)]

    @property
    def buckets(self) -> Buckets:
        """The set of buckets."""
        return self._datasets[0].buckets

    @property
    def fingerprint(self) -> str:
        """A digest of all parts and how often each is repeated."""
        of_parts = [f"{p.dataset.fingerprint} {p.seed} {p.window} {p.filter}" for p in self._parts]
        return f"{derive('mixed buckets', *of_parts, repr(self._times)):016x}"

    @property
    def chains(self) -> list[tuple[Any, ...]]:
        """The stages of each part."""
        return [part.stages for part in self._parts]

    def parts(self) -> tuple[Dataset, ...]:
        """The datasets that a place's ``part`` counts."""
        return tuple(each.whole for each in self._datasets)

    def places(self, plan: BucketPlan, rank: int, ranks: int, repeat: bool = True) -> BucketPlaces:
        """A rank's places, step by step; too few for all ranks are always repeated."""
        return BucketPlaces(self, plan, rank, ranks)

    def orders(self, plan: BucketPlan) -> list[BucketOrders]:
        """The order of each part's samples, from the part's own seed and window."""
        found = []
        for number, (part, dataset) in enumerate(zip(self._parts, self._datasets, strict=True)):
            lanes = choose_lanes(dataset, part.shuffle)
            found.append(BucketOrders(dataset, lanes, part.seed, part.shuffle.is_on, number))
        return found

    def owner(self, bucket: int, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of which part draws of a bucket are, and which of its draws."""
        return self._shares[bucket].owner(draws)

    def check_sized(self) -> None:
        """Refuse samples of unknown size."""
        for each in self._datasets:
            each.check_sized()

    def cut_of(self, places: Sequence[Place], target: int, mixed: bool) -> float:
        """The shares that are cut away of the samples at these places, summed."""
        of_parts = ([place for place in places if place.part == i] for i in range(len(self._parts)))
        return sum(
            each.cut_of(mine, target, mixed) for each, mine in zip(self._datasets, of_parts, strict=True) if mine
        )


def _rounds(
    counts: Sequence[Sequence[int]], weights: Sequence[float | Fraction] | None, repeats: Sequence[int]
) -> list[Fraction]:
    """How often each part goes round while the mixture has as many draws as all have samples, or as it repeats."""
    if weights is None:
        return [Fraction(times) for times in repeats]
    total, whole = sum(map(sum, counts)), sum(Fraction(str(weight)) for weight in weights)
    given = zip(weights, counts, strict=True)
    return [total * Fraction(str(weight)) / whole / max(1, sum(each)) for weight, each in given]


class MixedPacks:
    """The counted samples of a mixture by class of cost. In each class the parts have their shares of the draws."""

    sample_bytes = 0.0  # of samples of several datasets no size is said

    def __init__(
        self, parts: Sequence[Part], weights: Sequence[float | Fraction] | None, repeats: Sequence[int]
    ) -> None:
        self._parts = tuple(parts)
        self._datasets: list[PackDataset] = [part.dataset for part in parts]
        counts = [each.by_bucket for each in self._datasets]
        self._times = _rounds(counts, weights, repeats)
        draws = [[n * times for n in each] for each, times in zip(counts, self._times, strict=True)]
        self.by_bucket = tuple(round(sum(of_class)) for of_class in zip(*draws, strict=True))
        self._shares = [Shares(of_class) for of_class in zip(*draws, strict=True)]
        self.samples = sum(self.by_bucket)
        self.packing = self._datasets[0].packing
        self.packs = Packs([top for _, top in self.packing.classes], self.by_bucket, self.packing.budget)
        self.cost = sum(each.cost * float(times) for each, times in zip(self._datasets, self._times, strict=True))
        self.left_out = sum(each.left_out for each in self._datasets)
        self.unknown = sum(each.unknown for each in self._datasets)
        self.over = sum(each.over for each in self._datasets)
        self.shards = [url for part in parts for url in _few(part)]

    @property
    def fill(self) -> float:
        """What the draws of an epoch cost, in parts of what its packs might."""
        return self.cost / max(1, self.packs.number * self.packing.budget)

    @property
    def fingerprint(self) -> str:
        """A digest of all parts and how often each is repeated."""
        of_parts = [f"{p.dataset.fingerprint} {p.seed} {p.window} {p.filter}" for p in self._parts]
        return f"{derive('mixed packs', *of_parts, repr(self._times)):016x}"

    @property
    def chains(self) -> list[tuple[Any, ...]]:
        """The stages of each part."""
        return [part.stages for part in self._parts]

    def parts(self) -> tuple[Dataset, ...]:
        """The datasets that a place's ``part`` counts."""
        return tuple(each.whole for each in self._datasets)

    def places(self, plan: PackPlan, rank: int, ranks: int, repeat: bool = True) -> PackPlaces:
        """A rank's places, step by step."""
        return PackPlaces(plan, rank, ranks)

    def orders(self, plan: PackPlan) -> list[BucketOrders]:
        """The order of each part's samples, from the part's own seed and window."""
        found = []
        for number, (part, dataset) in enumerate(zip(self._parts, self._datasets, strict=True)):
            lanes = class_lanes(dataset, part.shuffle)
            found.append(BucketOrders(dataset, lanes, part.seed, part.shuffle.is_on, number))
        return found

    def owner(self, bucket: int, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of which part draws of a class are, and which of its draws."""
        return self._shares[bucket].owner(draws)

    def check_costs(self) -> None:
        """Refuse samples without a cost, and those that cost more than the budget."""
        for each in self._datasets:
            each.check_costs()
