"""A dataset whose samples are counted: how many each shard has, and where the samples of a step are.

Held in memory are numbers by shard, never by sample: a shard's index is read when the first of its samples is wanted
and let go with the shard.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from typing import NamedTuple, TypeVar

import numpy as np
from tqdm import tqdm

from streampipe.index import Finder, ShardIndex
from streampipe.index.manifest import NAME
from streampipe.index.manifest import counts as read_manifest
from streampipe.plan.deal import shard_seed
from streampipe.plan.lanes import EpochOrder, batch_seed, rank_reader
from streampipe.plan.planned import Place, Plan
from streampipe.query.condition import Keep
from streampipe.rng import derive, permutation
from streampipe.source import has_query, redact
from streampipe.urls import SHARD_SUFFIXES, ShardList

T = TypeVar("T")
Select = Callable[[ShardIndex], np.ndarray]
"""From a shard's index to the numbers of the samples that are wanted of it, in the order in which they are counted."""
_THREADS = 16


class Uncounted(Exception):
    """Why the samples of a dataset cannot be counted without reading it: planning must do without."""


class Size(NamedTuple):
    """Bytes of a dataset: of the samples that are wanted, and of the shards."""

    wanted: int
    shards: int


class Dataset:
    """The counted samples of a list of shards. It is picklable and holds nothing open."""

    chains = None  # a mixture has stages for each of its parts

    def __init__(
        self,
        shards: ShardList,
        finder: Finder,
        counts: np.ndarray,
        keep: Select | None = None,
        size: Size | None = None,
    ) -> None:
        self.shards = shards
        self.finder = finder
        self.counts = counts
        self.keep = keep
        self.size = size
        self.samples = int(counts.sum())

    @property
    def fingerprint(self) -> str:
        """A digest of the shards' number and kept samples; where they lie is not part of it, so data may move."""
        whole = f"{len(self.shards)} {zlib.crc32(np.ascontiguousarray(self.counts, np.int64).tobytes())}"
        return f"{derive('dataset', whole):016x}"

    @property
    def sample_bytes(self) -> float:
        """Bytes of a sample, on average; 0 where that is not known."""
        return self.size.wanted / self.samples if self.size is not None and self.samples else 0.0

    @property
    def is_remote(self) -> bool:
        """Whether some of its shards must be fetched."""
        return any(self.finder.source.is_remote(url) for url in _some(self.shards))

    def stream(self, seed: int | None) -> EpochStream:
        """The order of one epoch's shards: as listed, or shuffled by ``seed``."""
        return EpochStream(self.counts, seed)

    def places(self, plan: Plan, rank: int, ranks: int) -> RankPlaces:
        """A rank's places, step by step."""
        return RankPlaces(self, plan, rank, ranks)

    def parts(self) -> tuple[Dataset, ...]:
        """The datasets that a place's ``part`` counts: of a mixture several, here this one."""
        return (self,)


class EpochStream:
    """Positions in an epoch's stream of samples, the shards one after the other, as (shard, number in it)."""

    def __init__(self, counts: np.ndarray, seed: int | None) -> None:
        self._shards = np.arange(len(counts)) if seed is None else permutation(len(counts), seed)
        self._ends = np.cumsum(counts[self._shards])
        self._last = (0, 0, 0)  # start, end and number of the shard that was found last

    def find(self, positions: np.ndarray) -> list[tuple[int, int]]:
        """Shard and number in the shard of each position."""
        if len(positions) == 1:
            return [self._find_one(int(positions[0]))]
        which = np.searchsorted(self._ends, positions, side="right")
        starts = np.where(which > 0, self._ends[np.maximum(which, 1) - 1], 0)
        return list(zip(self._shards[which].tolist(), (positions - starts).tolist(), strict=True))

    def _find_one(self, position: int) -> tuple[int, int]:
        """The same for one position: mostly in the shard of the one before."""
        start, end, shard = self._last
        if not start <= position < end:
            which = int(self._ends.searchsorted(position, side="right"))
            start = int(self._ends[which - 1]) if which else 0
            shard = int(self._shards[which])
            self._last = (start, int(self._ends[which]), shard)
        return shard, position - start


class RankPlaces:
    """From a step to the places of one rank's samples, slot by slot."""

    def __init__(self, dataset: Dataset, plan: Plan, rank: int, ranks: int) -> None:
        self._dataset = dataset
        self._plan = plan
        self._rank = (rank, ranks)
        self._epoch = -1

    def __call__(self, epoch: int, step: int) -> list[Place]:
        """Where the rank's samples of a batch are."""
        if epoch != self._epoch:
            plan = self._plan
            self._stream = self._dataset.stream(shard_seed(plan.seed, epoch) if plan.shuffled else None)
            self._read = rank_reader(EpochOrder(plan.lanes, batch_seed(plan.seed, epoch)), *self._rank)
            self._epoch = epoch
        return [Place(shard, number, epoch) for shard, number in self._stream.find(self._read(step))]


def count(shards: ShardList, finder: Finder, keep: Keep | None = None) -> Dataset:
    """Count the samples of shards from their manifest or indexes; local shards without one are scanned.

    Raises:
        Uncounted: a shard cannot be counted, or single samples of it cannot be read: it is compressed, read through
            an ``opener``, or remote without an index.
        IndexMismatch, ShardError: an index or a shard is damaged.
    """
    check_countable(shards, finder)
    known = _from_manifest(shards, finder) if keep is None else None
    if known is None:

        def facts(found: ShardIndex) -> tuple[int, int, int]:
            if keep is None:
                return len(found), found.shard_bytes, found.shard_bytes
            rows = keep.counted(found)
            return len(rows), int(found.table.column("size").to_numpy()[rows].sum()), found.shard_bytes

        known = np.array(of_indexes(shards, finder, facts), np.int64).T
    return Dataset(shards, finder, known[0], keep, Size(int(known[1].sum()), int(known[2].sum())))


def check_countable(shards: ShardList, finder: Finder) -> None:
    """Refuse shards of which single samples cannot be read.

    Raises:
        Uncounted: they are compressed, or read through an ``opener``.
    """
    if finder.source.opener is not None:
        raise Uncounted("shards come from opener=, which reads forward only")
    for url in _some(shards):
        if url.endswith(SHARD_SUFFIXES) and not url.endswith(".tar"):
            raise Uncounted(f"{redact(url)} is compressed: single samples of it cannot be read")


def of_indexes(shards: ShardList, finder: Finder, fact: Callable[[ShardIndex], T]) -> list[T]:
    """A fact of each shard from its index, several at once, in the order of the shards.

    Raises:
        Uncounted: a shard has no index and cannot be scanned.
    """

    def one(url: str) -> T:
        found = finder.find(url)
        if found is None:
            raise Uncounted(f"{redact(url)} has no index and is remote or compressed (streampipe index makes one)")
        return fact(found)

    first = one(shards[0])  # the usual case of no index at all costs one look, not sixteen
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="streampipe-index")
    try:
        found = chain([first], pool.map(one, islice(shards, 1, None)))  # the first is not looked at, or counted, twice
        return list(tqdm(found, total=len(shards), unit=" shards", desc="counting samples", delay=2))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _some(shards: ShardList) -> Iterator[str]:
    """All shards of a short list; of a long one (a pattern, mostly) the first and last."""
    yield from shards if len(shards) <= 10_000 else (shards[0], shards[len(shards) - 1])


def _from_manifest(shards: ShardList, finder: Finder) -> np.ndarray | None:
    """The counts of the shards, and twice their bytes, where one manifest beside the first has all; remote shards only.

    Local shards are cheap to look at, and may have changed since.
    """
    first = shards[0]
    if "://" not in first or first.startswith("file://") or (has_query(first) and not finder.folder):
        return None
    folder = finder.folder.rstrip("/") if finder.folder else first.rpartition("/")[0]
    most = finder.limits.max_index_bytes
    data = finder.source.read_if_there(f"{folder}/{NAME}", most)
    if data is None:
        return None
    names, numbers, sizes = read_manifest(data, redact(f"{folder}/{NAME}"), most)
    row = {name: i for i, name in enumerate(names)}
    rows = [row.get(redact(url).rpartition("/")[2]) for url in shards]
    if any(each is None for each in rows):
        return None
    return np.stack([numbers, sizes, sizes])[:, np.array(rows, np.int64)]
