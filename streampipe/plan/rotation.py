"""Which lane a slot of a batch draws from.

The lanes stand in a table: ``places`` (A) rows and ``columns`` (T) columns; lane number a*T + c is at place a of column
c. Batch t is drawn from column t mod T, its slot q from place q mod A.
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
