"""Which epoch a pass over a pipeline is: told by the parent, or agreed on by the workers of a plain DataLoader."""

from __future__ import annotations

import torch
from torch.utils.data import get_worker_info

from streampipe.rng import derive

_PASS_BITS = 32


class EpochClock:
    """Counts passes. Every pass over a pipeline begins a new epoch; ``set`` says which is the next one.

    A plain DataLoader never calls its dataset in the parent, only in its workers, which must agree without talking.
    What they share is a pass's identity: the loader's base seed, which is new for every set of workers, and how often
    this set was started. One 64-bit number in shared memory holds (epoch, identity of the pass that began it). A worker
    that finds its own pass there takes that epoch; any other value means that it is the first to see a new pass, and it
    writes the next epoch. Workers that race write the same number, so no lock is needed, and none is held when a worker
    is killed.
    """

    def __init__(self) -> None:
        self._cell: torch.Tensor = torch.zeros(1, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        self._started = 0  # by this process's copy: how many passes it began
        self.set(0)

    def set(self, epoch: int) -> None:
        """The next pass begins at ``epoch``."""
        self._cell[0] = epoch << _PASS_BITS

    def begin(self, epochs: int) -> int:
        """The first epoch of a pass of ``epochs`` epochs that begins now, in this process."""
        identity = self._identity()
        value = int(self._cell[0])
        epoch, owner = value >> _PASS_BITS, value & ((1 << _PASS_BITS) - 1)
        if owner != identity:
            epoch += epochs if owner else 0  # owner 0: set() named this epoch, or nothing ran yet
            self._cell[0] = epoch << _PASS_BITS | identity
        return epoch

    def next(self, epochs: int) -> int:
        """The epoch that a pass would begin at if it began now."""
        value = int(self._cell[0])
        return (value >> _PASS_BITS) + (epochs if value & ((1 << _PASS_BITS) - 1) else 0)

    def _identity(self) -> int:
        self._started += 1
        info = get_worker_info()
        parts = ("main", self._started) if info is None else (info.seed - info.id, self._started)
        return derive(*parts) % ((1 << _PASS_BITS) - 1) + 1
