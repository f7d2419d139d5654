"""Global batches in integers: which samples of an epoch stand in which slot of which batch, and who builds it.

N samples are cut into A*T lanes, each with its own windowed shuffle. Global batch t takes from the lanes of column
t mod T; its slot q draws from lane (q mod A, t mod T) the draw (t div T)*(G/A) + q div A. What the lanes have left when
the shortest has run out comes last, in lane order. Nothing here depends on the number of ranks or workers: those only
say which slots are whose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from streampipe.errors import ConfigError
from streampipe.plan.order import window_slice
from streampipe.rng import derive

TAILS = ("short", "drop", "pad")
_MOST_COLUMNS = 12
_MOST_PLACES = 48
_SHARE = 16  # samples of a batch to a place where the batch is so large that there are more places
SENSIBLE_WINDOW = 2_000
"""Samples that ``shuffle=True`` mixes over."""
_HELD = 128 << 20  # bytes of samples that come before their turn
_SHORTEST_WINDOW = 4
_LEAST_WINDOW = 64


@dataclass(frozen=True)
class Lanes:
    """How an epoch of ``samples`` samples becomes batches of ``size`` samples over all ranks.

    ``places`` (A) lanes meet in a batch and ``columns`` (T) sets of them take turns; ``window`` is the shuffle's, 0 for
    none. ``tail`` says what becomes of the last batch when it is not full: ``short`` as it is (but one sample a rank at
    least), ``drop`` left out, ``pad`` filled with the epoch's first samples.
    """

    samples: int
    size: int
    places: int = 1
    columns: int = 1
    window: int = 0
    tail: str = "short"

    def __post_init__(self) -> None:
        if self.size < 1 or self.places < 1 or self.columns < 1 or self.size % self.places:
            raise ConfigError(
                f"{self.places} places do not divide a global batch of {self.size}: choose a divisor of the batch size"
            )
        if self.tail not in TAILS:
            raise ConfigError(f"tail is one of {', '.join(TAILS)}, not {self.tail!r}")

    @property
    def number(self) -> int:
        """How many lanes there are."""
        return self.places * self.columns

    def bounds(self, lane: int) -> tuple[int, int]:
        """The positions of the epoch's stream that a lane covers: first and one past the last."""
        return lane * self.samples // self.number, (lane + 1) * self.samples // self.number

    @property
    def draws(self) -> int:
        """Samples that a lane gives to each batch of its column."""
        return self.size // self.places

    @cached_property
    def full(self) -> int:
        """Batches that are built from lanes; those after them are built from what the lanes have left."""
        return self.samples // self.number // self.draws * self.columns

    @cached_property
    def batches(self) -> int:
        """Batches of an epoch, the same for every rank."""
        return self.samples // self.size if self.tail == "drop" else -(-self.samples // self.size)


def slots(size: int, places: int, rank: int, ranks: int) -> np.ndarray:
    """The slots of a global batch that belong to a rank.

    >>> slots(8, 4, 1, 2).tolist()
    [1, 3, 5, 7]
    """
    q = np.arange(size)
    return np.asarray(q[(q % places) % ranks == rank] if places % ranks == 0 else q[q % ranks == rank])


def choose(size: int, samples: int, shards: int) -> tuple[int, int]:
    """Numbers of places and columns for a new run: as many lanes as the shards allow, in numbers with many divisors.

    They follow from the global batch and the data alone, so the batches of a new run are the same on any number of
    ranks. Up to 48 lanes meet in a batch, of large batches one for every 16 samples: so a job whose ranks have 16
    samples or more each, in numbers that divide the places, has no lane that two ranks read.

    >>> choose(256, 10_000_000, 1000), choose(16, 1000, 3), choose(16, 100_000, 100), choose(16_384, 10**10, 10**6)
    ((32, 12), (1, 3), (8, 12), (1024, 12))
    """
    deserved = max(1, min(shards, samples // max(1, 4 * size)))
    places = [a for a in range(1, min(size, max(size // _SHARE, _MOST_PLACES)) + 1) if size % a == 0]
    columns = [t for t in range(1, _MOST_COLUMNS + 1) if _MOST_COLUMNS % t == 0]
    fitting = [(a * t, t, a) for a in places for t in columns if a * t <= deserved]
    _, most, most_places = max(fitting)
    return most_places, most


def sensible_window(places: int, lanes: int = 1, sample_bytes: float = 0) -> int:
    """The window of each lane that ``shuffle=True`` stands for: 2,000 samples over the lanes that meet in a batch.

    Two neighbours are then as seldom in one batch as behind a shuffle buffer of 2,000. A reader of remote shards holds
    half a window for each of its lanes, and a single one has all ``lanes``: together they are 128 MB at most, so that
    requests stay long. It follows from the data alone, because all ranks, whatever their memory, must agree.

    >>> sensible_window(1), sensible_window(8), sensible_window(48)
    (2000, 250, 64)
    >>> sensible_window(16, 192, 100_000), sensible_window(16, 192, 20_000_000), sensible_window(1, 1, 100_000)
    (13, 4, 2000)
    """
    window = max(_LEAST_WINDOW, SENSIBLE_WINDOW // places)
    fitting = 2 * _HELD / (lanes * sample_bytes) if sample_bytes else window
    return max(_SHORTEST_WINDOW, min(window, int(fitting)))


class EpochOrder:
    """The batches of one epoch. It remembers the piece of each lane's order that is in use, and nothing else.

    >>> order = EpochOrder(Lanes(samples=10, size=4), seed=0)
    >>> [order.batch(t).tolist() for t in range(order.lanes.batches)]
    [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    """

    def __init__(self, lanes: Lanes, seed: int) -> None:
        self.lanes = lanes
        self.seed = seed
        self._pieces: dict[int, tuple[int, np.ndarray]] = {}
        self._rests: np.ndarray | None = None  # where in the tail each lane's rest ends

    def batch(self, t: int, wanted: np.ndarray | None = None) -> np.ndarray:
        """Positions in the epoch's stream of the samples of global batch ``t``; of the slots ``wanted`` only, if given.

        A wanted slot beyond the end of a short last batch is left out.
        """
        lanes = self.lanes
        q = np.arange(lanes.size) if wanted is None else wanted
        if t < lanes.full:
            lane = (q % lanes.places) * lanes.columns + t % lanes.columns
            return self._each(lane, t // lanes.columns * lanes.draws + q // lanes.places)
        return self._last(t, q)

    def draws(self, numbers: np.ndarray) -> np.ndarray:
        """Positions in the epoch's stream of the draws of these numbers: batch after batch, slot after slot.

        >>> EpochOrder(Lanes(samples=10, size=2, places=2), seed=0).draws(np.array([0, 1, 2, 9])).tolist()
        [0, 5, 1, 9]
        """
        lanes = self.lanes
        t, q = np.divmod(numbers, lanes.size)
        full = t < lanes.full
        lane, draw = (q % lanes.places) * lanes.columns + t % lanes.columns, t // lanes.columns * lanes.draws
        draw = draw + q // lanes.places
        if not full.all():
            lane[~full], draw[~full] = self._in_tail(numbers[~full] - lanes.full * lanes.size)
        return self._each(lane, draw)

    def short_batch(self, t: int, rank: int, ranks: int) -> np.ndarray | None:
        """A rank's samples of the last batch where that is a short one (None where it is not): dealt out evenly."""
        left = self.lanes.samples - t * self.lanes.size
        if self.lanes.tail != "short" or left >= self.lanes.size:
            return None
        mine = np.arange(rank, max(left, ranks), ranks) % left  # fewer samples than ranks: some are given twice
        return self._last(t, mine)

    def _last(self, t: int, q: np.ndarray) -> np.ndarray:
        """Slots ``q`` of a batch behind the full ones."""
        lanes = self.lanes
        at = (t - lanes.full) * lanes.size + q
        tail = lanes.samples - lanes.full * lanes.size
        if lanes.tail != "pad":
            at = at[at < tail]
        inside = at < tail
        found = np.empty(len(at), np.int64)
        lane, draw = self._in_tail(at[inside])
        found[inside] = self._each(lane, draw)
        missing = np.flatnonzero(~inside)
        if len(missing):
            found[missing] = self._first((at[missing] - tail) % lanes.samples)
        return found

    def _first(self, numbers: np.ndarray) -> np.ndarray:
        """The samples that the epoch's ``numbers``-th slots hold: what a last batch is padded with."""
        out = []
        for number in numbers.tolist():
            t, q = divmod(number, self.lanes.size)
            out.append(int(self.batch(t, np.array([q]))[0]))
        return np.array(out, np.int64)

    def _in_tail(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lane and draw of the tail's samples number ``at``: lane after lane, each from where the full batches end."""
        lanes = self.lanes
        used = lanes.full // lanes.columns * lanes.draws
        if self._rests is None:
            ends = np.arange(1, lanes.number + 1) * lanes.samples // lanes.number
            self._rests = ends - used * np.arange(1, lanes.number + 1)
        lane = np.searchsorted(self._rests, at, side="right")
        before = np.where(lane > 0, self._rests[np.maximum(lane, 1) - 1], 0)
        return lane, used + at - before

    def _each(self, lanes: np.ndarray, draws: np.ndarray) -> np.ndarray:
        if not self.lanes.window:
            return np.asarray(lanes * self.lanes.samples // self.lanes.number + draws)
        out = np.empty(len(lanes), np.int64)
        for i, (lane, draw) in enumerate(zip(lanes.tolist(), draws.tolist(), strict=True)):
            out[i] = self._draw(lane, draw)
        return out

    def _draw(self, lane: int, draw: int) -> int:
        start, end = self.lanes.bounds(lane)
        first, piece = self._pieces.get(lane, (0, _NOTHING))
        if not first <= draw < first + len(piece):
            # As many as the window: sorting then costs the same few operations a sample whatever the window is.
            first, step = draw, min(max(self.lanes.window, 64), 4096)
            seed = derive(self.seed, "lane", lane)
            last = min(first + step, end - start)
            piece = window_slice(end - start, self.lanes.window, seed, first, last).astype(np.int32)
            self._pieces[lane] = (first, piece)
        return start + int(piece[draw - first])


_NOTHING = np.empty(0, np.int32)


def batch_seed(seed: int, epoch: int) -> int:
    """The seed of the order of an epoch's samples."""
    return derive(seed, "batches", epoch)


ReadRank = Callable[[int], np.ndarray]


def rank_reader(order: EpochOrder, rank: int, ranks: int) -> ReadRank:
    """A function from the number of a batch to the positions of this rank's samples in it, in the order of its slots.

    Raises:
        ConfigError: the global batch cannot be divided among the ranks.
    """
    lanes = order.lanes
    if lanes.size % ranks:
        raise ConfigError(
            f"a global batch of {lanes.size} samples cannot be divided among {ranks} ranks: choose a multiple of them"
        )
    mine = slots(lanes.size, lanes.places, rank, ranks)

    def read(t: int) -> np.ndarray:
        short = order.short_batch(t, rank, ranks) if t == lanes.batches - 1 else None
        return order.batch(t, mine) if short is None else short

    return read
