"""The counted samples of a list of shards, by bucket: what an order and a plan of buckets are made from."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from streampipe.errors import StageError
from streampipe.index import Finder
from streampipe.index.answers import Tally
from streampipe.plan.ask import ask, said
from streampipe.plan.bucket_orders import BucketOrders
from streampipe.plan.bucket_plan import BucketPlaces, BucketPlan
from streampipe.plan.buckets import Buckets
from streampipe.plan.compound import Compound, Signatures
from streampipe.plan.dataset import Dataset, Size
from streampipe.plan.planned import Place
from streampipe.plan.ratios import cut_away_between
from streampipe.plan.sorter import BEYOND, NO_SIZE, UNSIZED, WRONG, Occurring, Sorter
from streampipe.query.condition import Keep
from streampipe.rng import derive
from streampipe.source import redact
from streampipe.urls import ShardList


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
    whole.drops = said(tally)
    return BucketDataset(whole, buckets, tally)
