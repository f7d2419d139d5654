"""Which epoch a plain pass over a pipeline is: told by the parent, or agreed on by a plain DataLoader's workers."""

from __future__ import annotations

import itertools
import os
import sys
from typing import Any

import torch
from torch.utils.data import get_worker_info

from streampipe.rng import derive

_BITS = 32
_OWNER = (1 << _BITS) - 1
_NOBODY = -1  # no identity
_PASSES, _KEPT = 3, 509  # where the passes stand, and how many: one page of memory with what stands before
_sets = itertools.count(1)
_token = 0  # in a worker: of the set of workers that it is one of


class Clock:
    """Counts the plain passes over a pipeline. Every pass begins a new epoch; ``set`` says which is the next one.

    A plain DataLoader never calls its dataset in the parent, only in its workers, which must agree without talking.
    What they share is a pass's identity: the token of their set of workers, and how often this set was started. A
    64-bit number in shared memory holds (epoch, identity) of the pass that began last, and one of many more, found by
    the identity, those of each. A worker that finds its own pass there takes that epoch, however many others began
    since; else it is the first to see a new pass, and writes the next epoch. Workers that race write the same number,
    so no lock is needed, and none is held when a worker is killed.

    Two more cells: the identity of the pass that a loaded state was for, so that no later set of workers, which
    inherits the state too, takes it again; and whether a worker began the last pass, of which the parent knows nothing.
    """

    def __init__(self) -> None:
        self._cell: torch.Tensor = _shared(torch.zeros(_PASSES + _KEPT, dtype=torch.int64, device="cpu"))
        self._started = 0  # by this process's copy: how many passes it began

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._cell = _shared(self._cell)  # of a copy: its workers must agree, too

    def set(self, epoch: int) -> None:
        """The next pass begins at ``epoch``."""
        self._cell[0] = epoch << _BITS

    def loaded(self) -> None:
        """A state was loaded: the next pass may take it."""
        self._cell[1] = 0

    def gave_up(self) -> None:
        """The state that was loaded is for no pass, also for none that has begun and was not asked yet."""
        self._cell[1] = _NOBODY

    @property
    def took_state(self) -> bool:
        """Whether a pass has taken the state that was loaded."""
        return bool(self._cell[1])

    def start(self) -> int:
        """A pass starts in this process: its identity."""
        self._started += 1
        info = get_worker_info()
        parts = ("main", os.getpid(), self._started) if info is None else (info.seed - info.id, _token, self._started)
        self._cell[2] = int(info is not None)
        return derive(*parts) % _OWNER + 1

    def takes_state(self, identity: int) -> bool:
        """Whether the state that was loaded is for this pass."""
        if int(self._cell[1]) == 0:
            self._cell[1] = identity
        return int(self._cell[1]) == identity

    def begin(self, identity: int, epochs: int) -> int:
        """The first epoch of a pass of ``epochs`` epochs that begins now, in this process."""
        last = int(self._cell[0])  # first: a sibling that begins meanwhile writes this one last
        for value in (last, int(self._cell[self._place(identity)])):
            if value & _OWNER == identity:
                return value >> _BITS
        return _behind(last, epochs)

    def claim(self, identity: int, epoch: int) -> None:
        """This pass is that of ``epoch``. Who is told later than others changes nothing: a newer one may have begun."""
        value, place = epoch << _BITS | identity, self._place(identity)
        if int(self._cell[place]) != value:
            self._cell[place] = value
            self._cell[0] = value

    def next(self, epochs: int) -> int:
        """The epoch that a pass would begin at if it began now."""
        return _behind(int(self._cell[0]), epochs)

    def _place(self, identity: int) -> int:
        return _PASSES + identity % _KEPT

    @property
    def ran_in_workers(self) -> bool:
        """Whether the last pass ran in the workers of a plain DataLoader."""
        return bool(self._cell[2]) and get_worker_info() is None


def _behind(value: int, epochs: int) -> int:
    """The epoch behind the last pass, as its cell has that."""
    return (value >> _BITS) + (epochs if value & _OWNER else 0)  # owner 0: set() named it, or nothing ran yet


def _shared(cell: torch.Tensor) -> torch.Tensor:
    return cell if cell.is_shared() else cell.share_memory_()  # type: ignore[no-untyped-call]


def token_of_workers() -> int:
    """A number of the set of DataLoader workers that this process is starting; 0 if it starts none.

    Torch's base seed would name a set too, but repeats where a training loop seeds torch at the same place of every
    epoch. Nobody else knows which workers belong together than the iterator that starts them, somewhere up the stack.
    """
    frame: Any = sys._getframe()
    while frame is not None:
        starter: Any = frame.f_locals.get("self") if frame.f_code.co_name == "__init__" else None
        if type(starter).__name__.endswith("MultiProcessingDataLoaderIter"):
            found = starter.__dict__.get("_streampipe_token")
            if found is None:
                found = starter._streampipe_token = os.getpid() << _BITS | next(_sets)
            return int(found)
        frame = frame.f_back
    return 0


def set_token(token: int) -> None:
    """In a worker: which set it is of."""
    global _token
    _token = token


_about_to_fork = 0


def _before_fork() -> None:
    global _about_to_fork
    _about_to_fork = token_of_workers()


os.register_at_fork(before=_before_fork, after_in_child=lambda: set_token(_about_to_fork))
