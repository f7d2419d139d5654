"""Which lane a slot of a batch draws from, and which rank and worker a lane belongs to.

The lanes stand in a table: ``places`` (A) rows and ``columns`` (T) columns; lane number a*T + c is at place a of column
c. Batch t is drawn from column t mod T, its slot q from place q mod A. Slot q goes to rank q mod R: where R divides A,
that is (q mod A) mod R, so a lane belongs to one rank. Batch t goes to worker t mod W: where W divides T, that is
(t mod T) mod W, so a lane belongs to one worker too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streampipe.errors import ConfigError


@dataclass(frozen=True)
class Rotation:
    """Global batches of ``size`` samples, drawn from ``places`` times ``columns`` lanes."""

    size: int
    places: int = 1
    columns: int = 1

    def __post_init__(self) -> None:
        if self.size < 1 or self.places < 1 or self.columns < 1 or self.size % self.places:
            raise ConfigError(
                f"{self.places} places do not divide a global batch of {self.size}: choose a divisor of the batch size"
            )

    @property
    def number(self) -> int:
        """How many lanes there are."""
        return self.places * self.columns

    @property
    def draws(self) -> int:
        """Samples that a lane gives to each batch of its column."""
        return self.size // self.places

    def at(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lane, and item of that lane, of the draws of these numbers, as long as every lane has items.

        Draw t*size + q is slot q of batch t.

        >>> lane, item = Rotation(4, places=2, columns=2).at(np.arange(10))
        >>> lane.tolist(), item.tolist()
        ([0, 2, 0, 2, 1, 3, 1, 3, 0, 2], [0, 0, 1, 1, 0, 0, 1, 1, 2, 2])
        """
        t, q = np.divmod(numbers, self.size)
        turn, column = np.divmod(t, self.columns)
        return (q % self.places) * self.columns + column, turn * self.draws + q // self.places

    def before(self, lane: int, step: int) -> int:
        """How many items of a lane are in the batches before ``step``: the number of the first that is not.

        >>> [Rotation(4, places=2, columns=2).before(lane, 3) for lane in range(4)]
        [4, 2, 4, 2]
        """
        column = lane % self.columns
        return -(-(step - column) // self.columns) * self.draws

    def fits(self, ranks: int) -> bool:
        """Whether every lane belongs to one rank."""
        return self.places % ranks == 0

    def workers(self, most: int) -> int:
        """How many of ``most`` workers can be used, so that every lane belongs to one of them.

        >>> Rotation(16, 4, 6).workers(4), Rotation(16, 4, 6).workers(8), Rotation(16, 4, 6).workers(0)
        (3, 6, 1)
        """
        return max(w for w in range(1, max(1, min(most, self.columns)) + 1) if self.columns % w == 0)

    def owner(self, lane: int, ranks: int, workers: int) -> tuple[int, int]:
        """Rank and worker that a lane belongs to; ``workers`` as ``workers()`` says."""
        place, column = divmod(lane, self.columns)
        return place % ranks, column % workers

    def owned(self, rank: int, ranks: int, worker: int = 0, workers: int = 1) -> list[int]:
        """The lanes of a worker of a rank, ascending. ``workers``: how many are used.

        Raises:
            ConfigError: the lanes cannot be divided so.

        >>> Rotation(8, places=4, columns=2).owned(1, 2), Rotation(8, places=4, columns=2).owned(1, 2, 0, 2)
        ([2, 3, 6, 7], [2, 6])
        """
        if self.places % ranks or self.columns % workers:
            raise ConfigError(
                f"{self.places} x {self.columns} lanes cannot be divided among {ranks} ranks with {workers} workers: "
                f"choose ranks that divide {self.places} and workers that divide {self.columns}"
            )
        columns = range(worker, self.columns, workers)
        return [place * self.columns + column for place in range(rank, self.places, ranks) for column in columns]
