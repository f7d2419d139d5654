"""Buckets in the planned tier: every bucket of a dataset is a dataset of its own, and a plan of whole batches of them.

The counts of a bucket are a column of the matrix shards x buckets that the indexes give. Its order is that of any
planned dataset: the shards permuted (in the same way for all buckets, so that they are in use together), lanes, a
windowed shuffle. A step is a group (see ``groups``); its samples are draws of that order. So the state is the number of
a step, and any number of ranks and workers makes the same batches.
"""

from __future__ import annotations

import zlib
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from streampipe.counters import counters
from streampipe.errors import ConfigError, StageError
from streampipe.index import Finder
from streampipe.index.answers import Tally
from streampipe.plan.ask import ask, said
from streampipe.plan.buckets import MISSTATED, Buckets, name_of
from streampipe.plan.compound import Compound, Signatures
from streampipe.plan.dataset import Dataset, EpochStream, Size
from streampipe.plan.deal import shard_seed
from streampipe.plan.groups import GroupOrder, Groups, Origin
from streampipe.plan.lanes import EpochOrder, Lanes, batch_seed, sensible_window
from streampipe.plan.planned import Counted, Cursor, Place, Plan
from streampipe.plan.ratios import cut_away_between
from streampipe.plan.sorter import BEYOND, NO_SIZE, UNSIZED, WRONG, Occurring, Sorter
from streampipe.query.condition import Keep
from streampipe.rng import derive
from streampipe.source import redact
from streampipe.urls import ShardList

_PLACES = 48
_FORWARD_PLACES = 8  # where shards are read front to back: what is passed of each waits for its bucket


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


class BucketDataset:
    """The counted samples of a list of shards, by bucket."""

    chains = None

    def __init__(self, whole: Dataset, buckets: Buckets, tally: Tally) -> None:
        self.whole = whole
        self._buckets = buckets
        self.counts = tally.counts
        self.by_bucket = tuple(int(n) for n in self.counts.sum(0, dtype=np.int64))
        self.sample_bytes = whole.sample_bytes
        self.cut = tally.sums / np.maximum(self.by_bucket, 1)
        self.dropped = Counter({buckets.outside: tally.numbers[BEYOND], NO_SIZE: tally.numbers[UNSIZED]})
        self._unsized_at = tally.first
        self.misstated = tally.numbers[WRONG]
        self.samples = whole.samples

    @property
    def buckets(self) -> Buckets:
        """The set of buckets."""
        return self._buckets

    @property
    def shards(self) -> ShardList:
        """The shards."""
        return self.whole.shards

    @property
    def fingerprint(self) -> str:
        """A digest of the shards' number and of their samples in each bucket."""
        counts = zlib.crc32(np.ascontiguousarray(self.counts, np.int32).tobytes())
        return f"{derive('buckets', len(self.shards), counts):016x}"

    def check_sized(self) -> None:
        """Refuse samples of unknown size.

        Raises:
            StageError: it names the first.
        """
        if self._unsized_at is not None:
            shard, row = self._unsized_at
            url = self.shards[shard]
            index = self.whole.finder.find(url, columns=())
            key = index.keys()[row] if index is not None and row < len(index) else f"sample {row}"
            lack = ""
            if isinstance(self._buckets, Signatures):
                names = " or ".join(name for name, _ in self._buckets.compound.rules)
                lack = f" (or lack {names}, which sp.Compound(..., missing='keep') allows)"
            raise StageError(
                f"stage 'bucket': {self.dropped[NO_SIZE]} samples have no image whose size can be read, nor width and "
                f"height in their json{lack}; the first is {key!r} of {redact(url)}; leave them out by on_error='skip'"
            )

    def cut_of(self, places: Sequence[Place], target: int, mixed: bool) -> float:
        """The shares that are cut away of the samples at these places, summed; for each the mean of its bucket."""
        if not mixed:
            return float(self.cut[target]) * len(places)
        ends = np.cumsum(self.counts[[place.shard for place in places]], 1)
        own = (ends <= np.array([place.number for place in places])[:, None]).sum(1)
        more = cut_away_between(self.buckets.sizes)[own, target]
        return float((1 - (1 - self.cut[own]) * (1 - more)).sum())

    def places(self, plan: BucketPlan, rank: int, ranks: int, repeat: bool = True) -> BucketPlaces:
        """A rank's places, step by step; too few for all ranks are always repeated."""
        return BucketPlaces(self, plan, rank, ranks)

    def orders(self, plan: BucketPlan) -> list[BucketOrders]:
        """The order of its buckets' samples."""
        return [BucketOrders(self, plan.lanes, plan.seed, plan.shuffled)]

    def owner(self, bucket: int, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of which dataset draws are, and which of its draws: there is but one."""
        return np.zeros(len(draws), np.int64), draws

    def parts(self) -> tuple[Dataset, ...]:
        """The one dataset that all places are of."""
        return (self.whole,)


def count_buckets(
    shards: ShardList, finder: Finder, buckets: Buckets, keep: Keep | None = None, job: str | None = ""
) -> BucketDataset:
    """Count the samples of shards by bucket; raises as ``ask`` does."""
    if isinstance(buckets, Compound):
        occurring = ask(shards, finder, Occurring(buckets, keep), job)
        buckets = Signatures(buckets, map(Signatures.of_text, occurring.numbers))
    sorter = Sorter(buckets, keep)
    tally = ask(shards, finder, sorter, job)
    totals = tally.counts.sum(1, dtype=np.int64)
    whole = Dataset(shards, finder, totals, sorter, Size(tally.wanted, tally.whole))
    whole.told = said(tally)
    return BucketDataset(whole, buckets, tally)


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
        if not (1 <= places <= _PLACES and columns == 1):
            raise ConfigError(
                f"the state's lanes are {[places, columns]}, but buckets have 1 to {_PLACES} x 1: it is damaged"
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
    window: int | None,
    seed: int,
    filter: str,
    sensible: bool = False,
    leftover: str = "carry",
    same: bool = True,
) -> BucketPlan:
    """A plan for a new run of batches of ``sizes[b]`` samples of bucket b on each rank.

    ``same``: a step is one bucket on all ranks, else one bucket on each. ``leftover``: see ``Groups``. ``filter``: the
    conditions, for the state. ``window`` and ``sensible``: as in ``planned.make``.
    """
    per_group = tuple(size * ranks for size in sizes) if same else tuple(sizes)
    groups = Groups(dataset.buckets, dataset.by_bucket, per_group, leftover, 1 if same else ranks)
    lanes = choose_lanes(dataset, window, sensible)
    return BucketPlan(dataset, lanes, seed, window is not None, filter, sensible, groups=groups, ranks=ranks)


def choose_lanes(dataset: Any, window: int | None, sensible: bool) -> Lanes:
    """Lanes for all buckets of a dataset alike. They take turns draw by draw, whatever a bucket's batches hold."""
    deserved = max(1, min(len(dataset.shards), dataset.samples // (4 * _PLACES)))
    if any(part.forward for part in dataset.parts()):
        deserved = min(deserved, _FORWARD_PLACES)
    places = 1 if window is None else max(a for a in range(1, _PLACES + 1) if _PLACES % a == 0 and a <= deserved)
    size = getattr(dataset, "sample_bytes", 0.0)  # a mixture does not say
    sensibly = sensible_window(places, places * len(dataset.by_bucket), size)
    width = 0 if window is None else sensibly if sensible else window
    return Lanes(dataset.samples, places, places, 1, width)


class ByBucket(Protocol):
    """Samples by what they are batched by: ``counts``, shards x buckets, and their sums."""

    counts: np.ndarray
    by_bucket: tuple[int, ...]


class BucketOrders:
    """The samples of each bucket of a dataset in their order, epoch after epoch. ``part``: which dataset of several."""

    def __init__(self, dataset: ByBucket, lanes: Lanes, seed: int, shuffled: bool, part: int = 0) -> None:
        self._dataset = dataset
        self._lanes = lanes
        self._seed = seed
        self._shuffled = shuffled
        self._part = part
        self._orders: OrderedDict[tuple[int, int], tuple[EpochStream, EpochOrder]] = OrderedDict()
        self._shards: dict[int, np.ndarray] = {}  # by epoch: the order of its shards, which all buckets have

    def find(self, bucket: int, draws: np.ndarray, size: tuple[int, ...] | None = None) -> list[Place]:
        """Where the draws of a bucket are, numbered over all epochs, ascending."""
        if not len(draws):
            return []
        epochs, numbers = np.divmod(draws, self._dataset.by_bucket[bucket])
        places = []
        for epoch in np.unique(epochs).tolist():
            stream, order = self._order(bucket, epoch)
            for shard, number in stream.find(order.draws(numbers[epochs == epoch])):
                before = int(self._dataset.counts[shard, :bucket].sum())  # a shard's samples are sorted by bucket
                places.append(Place(shard, before + number, epoch, self._part, size))
        return places

    def _order(self, bucket: int, epoch: int) -> tuple[EpochStream, EpochOrder]:
        """A bucket's shards and samples in an epoch. The two epochs that a bucket is in at most are remembered."""
        known = self._orders.get((bucket, epoch))
        if known is None:
            seed = shard_seed(self._seed, epoch) if self._shuffled else None
            own = derive(batch_seed(self._seed, epoch), "bucket", bucket)
            counts = self._dataset.counts[:, bucket].astype(np.int64)
            stream = EpochStream(counts, seed, 0, self._shards.get(epoch))
            known = stream, EpochOrder(self._lanes_of(bucket), own)
            self._shards = {e: each for e, each in self._shards.items() if e >= epoch - 1} | {epoch: stream.shards}
            self._orders[bucket, epoch] = known
            while len(self._orders) > 2 * len(self._dataset.by_bucket):
                self._orders.popitem(last=False)
        else:
            self._orders.move_to_end((bucket, epoch))
        return known

    def _lanes_of(self, bucket: int) -> Lanes:
        """The lanes of one bucket: its share of the window, so that all buckets use the same shards at a time."""
        n, whole = self._dataset.by_bucket[bucket], self._lanes
        return replace(whole, samples=n, window=-(-whole.window * n // max(1, whole.samples)))


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
