"""An even spread of several sequences over one: whose turn it is, at any turn, without going through those before.

Item j of m of a sequence has the time (j + u(seed, sequence, j)) / m, u uniform in [0, 1), and all items stand sorted
by time. So every sequence advances evenly, each item at random within its own m-th part, and none comes in a burst. How
many items come before a time is known for each sequence from the time alone, which makes it possible to begin anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streampipe.rng import derive, uniform_at

_BLOCK = 1024  # turns that are sorted at once, or more:
_MOST_EDGES = 1 << 20  # how many numbers say where blocks begin


class Spread:
    """``lengths[s]`` items of each sequence s, spread evenly. It remembers the few turns around the one asked for last.

    >>> turns = Spread([4, 2], seed=1)
    >>> [turns.at(i) for i in range(turns.total)]
    [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (0, 3)]
    """

    def __init__(self, lengths: Sequence[int], seed: int) -> None:
        self.lengths = np.asarray(lengths, np.int64)
        self.total = int(self.lengths.sum())
        self._seeds = [derive(seed, "sequence", s) for s in range(len(self.lengths))]
        blocks = max(1, min(-(-self.total // _BLOCK), _MOST_EDGES // max(1, len(self.lengths))))
        times = np.arange(blocks + 1) / blocks
        self._edges = np.stack([self._before(s, times) for s in range(len(self.lengths))], 1)
        self._starts = self._edges.sum(1)
        self._block: tuple[int, list[tuple[int, int]]] = (-1, [])

    def at(self, turn: int) -> tuple[int, int]:
        """The sequence whose turn it is, and the number of its item."""
        number = int(np.searchsorted(self._starts, turn, side="right")) - 1
        if self._block[0] != number:
            self._block = (number, self._sorted(number))
        return self._block[1][turn - int(self._starts[number])]

    def before(self, turn: int) -> list[int]:
        """How many turns each sequence has had before this one.

        >>> Spread([4, 2], seed=1).before(5)
        [3, 2]
        """
        number = min(int(np.searchsorted(self._starts, turn, side="right")), len(self._starts) - 1) - 1
        counts = self._edges[number].copy()
        for s, _ in self._sorted(number)[: turn - int(self._starts[number])]:
            counts[s] += 1
        return [int(count) for count in counts]

    def _sorted(self, block: int) -> list[tuple[int, int]]:
        turns = []
        for s in range(len(self.lengths)):
            items = np.arange(self._edges[block, s], self._edges[block + 1, s])
            turns += list(zip(self._times(s, items).tolist(), [s] * len(items), items.tolist(), strict=True))
        return [(s, item) for _, s, item in sorted(turns)]

    def _times(self, s: int, items: np.ndarray) -> np.ndarray:
        return np.asarray((items + uniform_at(self._seeds[s], items)) / max(1, self.lengths[s]))

    def _before(self, s: int, times: np.ndarray) -> np.ndarray:
        """How many items of a sequence come before each time."""
        length = int(self.lengths[s])
        found = np.maximum(np.floor(times * length).astype(np.int64) - 1, 0)
        for _ in range(3):  # an item's time is known to within its m-th part, so the number is one of three
            found += (found < length) & (self._times(s, np.minimum(found, max(0, length - 1))) < times)
        found[-1] = length
        return np.asarray(found)
