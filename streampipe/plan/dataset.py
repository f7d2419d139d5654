"""A dataset whose samples are counted: how many each shard has, and where the samples of a step are.

Held in memory are numbers by shard, never by sample: a shard's index is read when the first of its samples is wanted
and let go with the shard.
"""

from __future__ import annotations

import zlib
from copy import copy
from functools import partial
from itertools import islice
from typing import NamedTuple, Protocol

import numpy as np

from streampipe.index import Finder, ShardIndex
from streampipe.plan.ask import All, Found, ask, per_shard, said, some_of
from streampipe.plan.clips import ClipKeep
from streampipe.plan.deal import shard_seed
from streampipe.plan.lanes import RankReader
from streampipe.plan.planned import Place, Plan
from streampipe.query.condition import Keep
from streampipe.rng import derive, permutation
from streampipe.samplesource import SampleSource
from streampipe.urls import ShardList


class Select(Protocol):
    """From a shard's index to the numbers of the samples that are wanted of it, in the order in which they are counted.

    ``columns`` are those of the index that it looks at; None: any.
    """

    @property
    def columns(self) -> frozenset[str] | None: ...
    def __call__(self, index: ShardIndex) -> np.ndarray: ...


_AT_ONCE = 1024  # places that are found in one go, where batches are small
_place = partial(tuple.__new__, Place)  # of a tuple of five


class Size(NamedTuple):
    """Bytes of a dataset: of the samples that are wanted, and of the shards."""

    wanted: int
    shards: int


class Dataset:
    """The counted samples of a list of shards. It is picklable and holds nothing open.

    Of every epoch's stream (the shards one after the other, as listed or in the order of the epoch) it has the samples
    [first, last), after ``keep``; all, by default.
    """

    chains = None  # a mixture has stages for each of its parts

    def __init__(
        self,
        shards: ShardList,
        finder: Finder,
        counts: np.ndarray,
        keep: Select | None = None,
        size: Size | None = None,
        first: int = 0,
        last: int | None = None,
        forward: bool = False,
        indexed: bool = True,
        given: SampleSource | None = None,
    ) -> None:
        self.forward = forward  # its shards can only be read front to back
        self.indexed = indexed  # it is known which sample is which, not only how many there are
        self.given = given  # what gives its samples; None for tars
        self.shards = shards
        self.finder = finder
        self.counts = counts
        self.keep = keep
        self.size = size
        self.drops: dict[tuple[str, str], int] = {}  # what stages drop of each epoch, and why
        self.whole = int(counts.sum())
        self.first, self.last = within(self.whole, first, last)
        self.samples = self.last - self.first

    def limited(self, first: int, last: int | None = None) -> Dataset:
        """Of every epoch the samples [first, last) of those that there are here; ``last`` None: all from ``first`` on.

        Without a shuffle they are the same in every epoch: those that are listed there. With one the shards are
        permuted first, so each epoch has others, from few shards, and the windowed shuffle mixes them. In every epoch
        ``limited(0, n)`` and ``limited(n)`` have all samples together, each once.

        >>> both = Dataset(["a.tar", "b.tar"], None, np.array([3, 4])).limited(2, 6)
        >>> both.samples, both.limited(1, 2).stream(None).find(np.array([0]))
        (4, [(1, 0)])
        """
        a, b = within(self.samples, first, last)
        size = self.size and Size(self.size.wanted * (b - a) // max(1, self.samples), self.size.shards)
        found = copy(self)
        found.size, found.samples = size, b - a
        found.first, found.last = self.first + a, self.first + b
        return found

    @property
    def fingerprint(self) -> str:
        """A digest of the shards' number and kept samples; where they lie is not part of it, so data may move."""
        whole = f"{len(self.shards)} {zlib.crc32(np.ascontiguousarray(self.counts, np.int64).tobytes())}"
        limit = [f"{self.first} {self.last}"] if self.samples < self.whole else []
        return f"{derive('dataset', whole, *limit):016x}"

    @property
    def sample_bytes(self) -> float:
        """Bytes of a sample, on average; 0 where that is not known."""
        return self.size.wanted / self.samples if self.size is not None and self.samples else 0.0

    @property
    def is_remote(self) -> bool:
        """Whether some of its shards must be fetched."""
        return any(self.finder.source.is_remote(url) for url in some_of(self.shards))

    def stream(self, seed: int | None) -> EpochStream:
        """The order of one epoch's shards: as listed, or shuffled by ``seed``."""
        return EpochStream(self.counts, seed, self.first)

    def places(self, plan: Plan, rank: int, ranks: int, repeat: bool = True) -> RankPlaces:
        """A rank's places, step by step; see ``RankReader``."""
        return RankPlaces(self, plan, rank, ranks, repeat)

    def parts(self) -> tuple[Dataset, ...]:
        """The datasets that a place's ``part`` counts: of a mixture several, here this one."""
        return (self,)


class EpochStream:
    """Positions in an epoch's stream of samples, the shards one after the other, as (shard, number in it).

    Position 0 is the ``first``-th sample of the stream. ``shards``: their order, where it is known already.
    """

    def __init__(self, counts: np.ndarray, seed: int | None, first: int = 0, shards: np.ndarray | None = None) -> None:
        if shards is None:
            shards = np.arange(len(counts)) if seed is None else permutation(len(counts), seed)
        self.shards = shards
        self._start = -first
        self._ends = np.cumsum(counts[self.shards]) - first
        self._last = (0, 0, 0)  # start, end and number of the shard that was found last

    def find(self, positions: np.ndarray) -> list[tuple[int, int]]:
        """Shard and number in the shard of each position."""
        if len(positions) == 1:
            return [self._find_one(int(positions[0]))]
        which = np.searchsorted(self._ends, positions, side="right")
        starts = np.where(which > 0, self._ends[np.maximum(which, 1) - 1], self._start)
        return list(zip(self.shards[which].tolist(), (positions - starts).tolist(), strict=True))

    def turn(self, position: int) -> tuple[int, int]:
        """The turn of the shard that a position is in (its place in the epoch's order), and where that shard begins."""
        which = int(self._ends.searchsorted(position, side="right"))
        return which, int(self._ends[which - 1]) if which else self._start

    def _find_one(self, position: int) -> tuple[int, int]:
        """The same for one position: mostly in the shard of the one before."""
        start, end, shard = self._last
        if not start <= position < end:
            which, start = self.turn(position)
            shard = int(self.shards[which])
            self._last = (start, int(self._ends[which]), shard)
        return shard, position - start


class RankPlaces:
    """From a step to the places of one rank's samples, slot by slot."""

    def __init__(self, dataset: Dataset, plan: Plan, rank: int, ranks: int, repeat: bool = True) -> None:
        self._dataset = dataset
        self._plan = plan
        self._rank = (rank, ranks)
        self._repeat = repeat
        self._epoch = self._asked = self._stride = -1
        self._ahead: dict[int, list[Place]] = {}

    def __call__(self, epoch: int, step: int) -> list[Place]:
        """Where the rank's samples of a batch are.

        Who asks for steps one after the other is told of several at once: numpy costs as much for one sample as for 64.
        """
        if epoch != self._epoch:
            plan = self._plan
            self._stream = self._dataset.stream(shard_seed(plan.seed, epoch) if plan.shuffled else None)
            self._read = RankReader(plan.order(epoch), *self._rank, plan.cut(epoch), self._repeat)
            self._epoch, self._ahead = epoch, {}
        found = self._ahead.pop(step, None)
        stride, self._asked = step - self._asked, step
        if found is None:
            in_a_row, self._stride = stride == self._stride and stride > 0, stride
            many = max(1, _AT_ONCE // self._read.slots) if in_a_row else 1
            end = min(step + stride * many, self._read.cut.batches) if many > 1 else step + 1
            self._find(range(step, end, stride if many > 1 else 1))
            found = self._ahead.pop(step)
        return found

    def _find(self, steps: range) -> None:
        """Find the places of these steps."""
        positions, slots = self._read.several(steps)
        found = (_place((shard, number, self._epoch, 0, None)) for shard, number in self._stream.find(positions))
        self._ahead = {step: list(islice(found, each)) for step, each in zip(steps, slots, strict=True)}


def within(samples: int, first: int, last: int | None) -> tuple[int, int]:
    """The samples [first, last) of so many, as far as there are.

    >>> within(10, 2, 5), within(10, 8, 20), within(10, 12, None)
    ((2, 5), (8, 10), (10, 10))
    """
    start = min(first, samples)
    return start, max(start, samples if last is None else min(last, samples))


def count(shards: ShardList, finder: Finder, keep: Keep | None = None, job: str | None = "") -> Dataset:
    """Count the samples of shards that ``keep`` keeps; raises as ``ask`` does."""
    tally = ask(shards, finder, All() if keep is None else Kept(keep), job)
    found = Dataset(shards, finder, tally.counts[:, 0].astype(np.int64), keep, Size(tally.wanted, tally.whole))
    found.drops = said(tally)
    return found


class Kept:
    """Which samples conditions keep, as a question to a dataset."""

    groups = 1

    def __init__(self, keep: Keep) -> None:
        self._keep = keep
        self.text = keep.text
        self.columns = keep.columns

    def find(self, index: ShardIndex, ends: np.ndarray) -> Found:
        """How many of each shard are kept; why the others are not is to be counted."""
        kept, numbers = self._keep.judged(index)
        if isinstance(self._keep, ClipKeep):
            rows = np.flatnonzero(kept)
            times = np.zeros(len(kept), np.int64)
            times[rows] = self._keep.seen(index, rows).times
            return Found(per_shard(times, ends)[:, None], numbers, np.zeros(1))
        return Found(per_shard(kept, ends)[:, None], numbers, np.zeros(1))
