"""Global batches in integers: which samples of an epoch stand in which slot of which batch, and who builds it.

N samples are cut into A*T lanes, each with its own windowed shuffle. Global batch t takes from the lanes of column
t mod T; its slot q draws from lane (q mod A, t mod T) the draw (t div T)*(G/A) + q div A. What the lanes have left when
the shortest has run out comes last, in lane order. Nothing here depends on the number of ranks or workers: those only
say which slots are whose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from streampipe.plan.cut import Cut, check_ranks
from streampipe.plan.order import window_slice
from streampipe.plan.rotation import Rotation
from streampipe.rng import derive

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
    none. ``tail`` says what becomes of the last batch when it is not full (see ``Cut``).
    """

    samples: int
    size: int
    places: int = 1
    columns: int = 1
    window: int = 0
    tail: str = "short"

    def __post_init__(self) -> None:
        _ = self.rotation, self.cut  # they check the numbers

    @cached_property
    def rotation(self) -> Rotation:
        """Which lane each draw is of."""
        return Rotation(self.size, self.places, self.columns)

    @cached_property
    def cut(self) -> Cut:
        """The epoch's batches."""
        return Cut(self.samples, self.size, self.tail)

    @property
    def number(self) -> int:
        """How many lanes there are."""
        return self.places * self.columns

    @property
    def draws(self) -> int:
        """Samples that a lane gives to each batch of its column."""
        return self.size // self.places

    @cached_property
    def batches(self) -> int:
        """Batches of an epoch, the same for every rank."""
        return self.cut.batches

    @cached_property
    def full(self) -> int:
        """Batches that are built from lanes; those after them are built from what the lanes have left."""
        return self.samples // self.number // self.draws * self.columns

    def bounds(self, lane: int) -> tuple[int, int]:
        """The positions of the epoch's stream that a lane covers: first and one past the last."""
        return lane * self.samples // self.number, (lane + 1) * self.samples // self.number

    def at(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lane, and item of that lane, of the epoch's draws of these numbers.

        >>> lane, item = Lanes(samples=7, size=2, places=2).at(np.arange(7))
        >>> lane.tolist(), item.tolist()
        ([0, 1, 0, 1, 0, 1, 1], [0, 0, 1, 1, 2, 2, 3])
        """
        lane, item = self.rotation.at(numbers)
        end = self.full * self.size
        if len(numbers) and numbers.max() >= end:
            tail = numbers >= end
            lane[tail], item[tail] = self._in_tail(numbers[tail] - end)
        return lane, item

    def _in_tail(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The tail's draws number ``at``: lane after lane, each from where the full batches end."""
        lane = np.searchsorted(self._rests, at, side="right")
        before = np.where(lane > 0, self._rests[np.maximum(lane, 1) - 1], 0)
        return lane, self._used + at - before

    @property
    def _used(self) -> int:
        """Samples that the full batches take from each lane."""
        return self.full // self.columns * self.draws

    @cached_property
    def _rests(self) -> np.ndarray:
        """Where in the tail each lane's rest ends."""
        lanes = np.arange(1, self.number + 1)
        return np.asarray(lanes * self.samples // self.number - self._used * lanes)


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


class Shuffle(NamedTuple):
    """How the samples of an epoch are shuffled.

    ``window``: so many samples; 0: shards alone; None: nothing, all is in its listed order. ``chosen``: nobody gave the
    window, so that of the lanes (``sensible_window``) takes its place.
    """

    window: int | None = None
    chosen: bool = False

    @property
    def is_on(self) -> bool:
        """Whether anything is shuffled."""
        return self.window is not None

    def in_lanes(self, places: int, lanes: int = 1, sample_bytes: float = 0) -> int:
        """The window of each of so many lanes, of which ``places`` meet in a batch."""
        return sensible_window(places, lanes, sample_bytes) if self.is_on and self.chosen else self.window or 0


class EpochOrder:
    """The order of one epoch. It remembers the piece of each lane's order that is in use, and nothing else.

    >>> order = EpochOrder(Lanes(samples=10, size=4), seed=0)
    >>> [order.batch(t).tolist() for t in range(order.lanes.batches)]
    [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    """

    def __init__(self, lanes: Lanes, seed: int) -> None:
        self.lanes = lanes
        self.seed = seed
        self._pieces: dict[int, tuple[int, int, memoryview]] = {}  # a lane's start, its piece's first draw, the piece

    def batch(self, t: int) -> np.ndarray:
        """Positions in the epoch's stream of the samples of global batch ``t``, slot by slot."""
        return self.draws(self.lanes.cut.numbers(t))

    def draws(self, numbers: np.ndarray) -> np.ndarray:
        """Positions in the epoch's stream of the draws of these numbers: batch after batch, slot after slot.

        >>> EpochOrder(Lanes(samples=10, size=2, places=2), seed=0).draws(np.array([0, 1, 2, 9])).tolist()
        [0, 5, 1, 9]
        """
        lane, item = self.lanes.at(numbers)
        if not self.lanes.window:
            return np.asarray(lane * self.lanes.samples // self.lanes.number + item)
        return np.array([self._draw(*each) for each in zip(lane.tolist(), item.tolist(), strict=True)], np.int64)

    def _draw(self, lane: int, draw: int) -> int:
        start, first, piece = self._pieces.get(lane, _NOTHING)
        if not first <= draw < first + len(piece):
            # As many as the window: sorting then costs the same few operations a sample whatever the window is.
            first, step = draw, min(max(self.lanes.window, 64), 4096)
            start, end = self.lanes.bounds(lane)
            last = min(first + step, end - start)
            seed = lane_seed(self.seed, lane)
            piece = window_slice(end - start, self.lanes.window, seed, first, last).astype(np.int32).data
            self._pieces[lane] = (start, first, piece)
        return start + int(piece[draw - first])


_NOTHING = (0, 0, memoryview(b""))


def batch_seed(seed: int, epoch: int) -> int:
    """The seed of the order of an epoch's samples."""
    return derive(seed, "batches", epoch)


def lane_seed(seed: int, lane: int) -> int:
    """The seed of a lane's windowed shuffle in the epoch whose ``batch_seed`` is ``seed``."""
    return derive(seed, "lane", lane)


class RankReader:
    """From the number of a batch to the positions of a rank's samples in it, in the order of its slots.

    ``cut``: the batches, where they are not those of the order's own lanes. ``repeat``: as in ``Cut.numbers``.

    Raises:
        ConfigError: the global batch cannot be divided among the ranks.
    """

    def __init__(self, order: EpochOrder, rank: int, ranks: int, cut: Cut | None = None, repeat: bool = True) -> None:
        self.cut = cut or order.lanes.cut
        check_ranks(self.cut.size, ranks)
        self.slots = self.cut.size // ranks
        self._order = order
        self._options = rank, ranks, repeat

    def __call__(self, t: int) -> np.ndarray:
        """The positions of one batch."""
        return self._order.draws(self.cut.numbers(t, *self._options))

    def several(self, batches: Sequence[int]) -> tuple[np.ndarray, list[int]]:
        """Those of several, at least one, one after the other; and how many each has."""
        numbers, slots = self.cut.several(batches, *self._options)
        return self._order.draws(numbers), slots
