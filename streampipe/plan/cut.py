"""An epoch's draws, cut into batches: which draws make a batch, and which of those belong to a rank.

Draws are numbered through the epoch: batch after batch, slot after slot. An epoch that goes on with another batch size
is therefore the same draws in the same order, cut in other places from one of them on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from streampipe.errors import ConfigError

TAILS = ("short", "drop", "pad")


@dataclass(frozen=True)
class Cut:
    """Batches of ``size`` draws over all ranks, from number ``draw`` on, which is where batch ``step`` begins.

    ``tail`` says what becomes of the last batch when it is not full: ``short`` as it is (but one sample a rank at
    least), ``drop`` left out, ``pad`` filled with the epoch's first draws.

    >>> cut = Cut(10, 4)
    >>> [cut.numbers(t).tolist() for t in range(cut.batches)]
    [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    >>> rest = Cut(10, 3, "pad", draw=4, step=1)
    >>> [rest.numbers(t).tolist() for t in range(1, rest.batches)]
    [[4, 5, 6], [7, 8, 9]]
    """

    samples: int
    size: int
    tail: str = "short"
    draw: int = 0
    step: int = 0

    def __post_init__(self) -> None:
        if self.tail not in TAILS:
            raise ConfigError(f"tail is one of {', '.join(TAILS)}, not {self.tail!r}")

    @cached_property
    def batches(self) -> int:
        """Batches of the epoch, the same for every rank; those before ``step`` too."""
        left = self.samples - self.draw
        return self.step + (left // self.size if self.tail == "drop" else -(-left // self.size))

    @property
    def left_out(self) -> int:
        """Samples that are in no batch."""
        return (self.samples - self.draw) % self.size if self.tail == "drop" else 0

    def before(self, step: int) -> int:
        """The number of the first draw that is not in a batch before ``step``; behind the last batch none is left."""
        return self.samples if step >= self.batches else self.draw + (step - self.step) * self.size

    def numbers(self, step: int, rank: int = 0, ranks: int = 1, repeat: bool = True) -> np.ndarray:
        """The draws of a rank's slots of a batch, slot by slot; those of all ranks by default.

        Slot q belongs to rank q mod ``ranks``. A short batch of fewer draws than ranks has some for several ranks;
        without ``repeat`` none for the others.
        """
        first = self.draw + (step - self.step) * self.size
        left = self.samples - first
        if left >= self.size:
            return np.arange(first + rank, first + self.size, ranks)
        if self.tail == "short":
            return first + np.arange(rank, max(left, ranks) if repeat else left, ranks) % max(1, left)
        numbers = np.arange(first + rank, first + self.size, ranks)
        return np.where(numbers < self.samples, numbers, (numbers - self.samples) % self.samples)

    def several(
        self, steps: Sequence[int], rank: int = 0, ranks: int = 1, repeat: bool = True
    ) -> tuple[np.ndarray, list[int]]:
        """``numbers`` of some steps, in order, one after the other; and how many each has.

        >>> Cut(10, 4).several(range(1, 3))
        (array([4, 5, 6, 7, 8, 9]), [4, 2])
        """
        firsts = self.draw + (np.asarray(steps) - self.step) * self.size
        if firsts.max() + self.size <= self.samples:  # all of them are full
            found = firsts[:, None] + np.arange(rank, self.size, ranks)
            return found.ravel(), [found.shape[1]] * len(firsts)
        each = [self.numbers(step, rank, ranks, repeat) for step in steps]
        return np.concatenate(each), list(map(len, each))


def check_ranks(size: int, ranks: int) -> None:
    """Every rank must have as many slots of a global batch as the others.

    Raises:
        ConfigError: ``ranks`` do not divide it.
    """
    if size % ranks:
        raise ConfigError(
            f"a global batch of {size} samples cannot be divided among {ranks} ranks: choose a multiple of them"
        )
