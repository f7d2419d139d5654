"""The memory of batches, used again: to touch fresh pages costs as much as to fill them does.

A block is lent out as one array. Whoever looks at a part of it (a tensor, a view of one, what numpy makes of it) keeps
that array alive; when the last of them is gone the array is, and the block is lent again. So a batch that somebody
keeps is never written to, however long he keeps it; there are then more blocks.

Blocks of a worker lie in memory that its parent sees too. Such a block has a flag besides: it is in use as long as
anybody in the parent looks at it.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch.utils.data import get_worker_info

SMALL = 32 << 10
"""Bytes below which memory of its own is as cheap."""
_HEAD = 64  # bytes of a block in front of what is lent: the flag, and the distance that vector instructions like
_IDLE = 8  # blocks that are kept although nobody looks at them
_MOST = 64  # blocks that are looked after at all; who keeps more batches than that has them in memory of their own
_LARGEST = 31 << 20  # bytes of what glibc learns from: from 32 MB on, it does not


class Block:
    """Memory that is lent out as one array at a time."""

    __slots__ = ("_lent", "flag", "memory", "number", "sent")

    def __init__(self, size: int, number: int, shared: bool) -> None:
        self.number = number
        self.memory = _shared(size + _HEAD) if shared else torch.empty(size + _HEAD, dtype=torch.uint8, device="cpu")
        self.flag: np.ndarray = self.memory.numpy()[:1]
        self.flag[0] = 0
        self.sent = False  # the other process has it
        self._lent: weakref.ref[np.ndarray] | None = None

    @property
    def size(self) -> int:
        """Bytes that can be lent."""
        return len(self.memory) - _HEAD

    @property
    def is_free(self) -> bool:
        """Whether nobody looks at it, here or in the other process."""
        return not self.flag[0] and (self._lent is None or self._lent() is None)

    def lend(self) -> torch.Tensor:
        """All of it."""
        array = contents(self.memory)
        self._lent = weakref.ref(array)
        return torch.from_numpy(array)


class Blocks:
    """Blocks of a process, for all its threads. ``shared``: another process can see them."""

    def __init__(self, shared: bool = False) -> None:
        self._shared = shared
        self._lock = threading.Lock()
        self._blocks: list[Block] = []  # those that were lent last at the end
        self._made = 0
        self._by_address: dict[int, Block] = {}
        self._dropped: list[int] = []

    def take(self, size: int) -> torch.Tensor | None:
        """Memory of at least so many bytes, with anything in it; None where too many blocks are in use."""
        with self._lock:
            free = [each for each in self._blocks if each.is_free]
            fitting = [each for each in free if size <= each.size <= size + size // 4]
            block = min(fitting, key=lambda each: each.size, default=None)
            for each in free[: max(0, len(free) - _IDLE)]:
                if each is not block:
                    self._drop(each)
            if block is None:
                if len(self._blocks) >= _MOST and not self._drop_one():
                    return None
                self._made += 1
                block = Block(size, self._made, self._shared)
            else:
                self._blocks.remove(block)
            self._blocks.append(block)
            lent = block.lend()
            self._by_address[lent.data_ptr()] = block
            return lent

    def _drop(self, block: Block) -> None:
        self._blocks.remove(block)
        del self._by_address[block.memory.data_ptr() + _HEAD]
        if block.sent:
            self._dropped.append(block.number)

    def _drop_one(self) -> bool:
        free = next((each for each in self._blocks if each.is_free), None)
        if free is not None:
            self._drop(free)
        return free is not None

    def holding(self, tensor: torch.Tensor) -> Block | None:
        """The block that a tensor lies in."""
        return self._by_address.get(tensor.untyped_storage().data_ptr())

    def dropped(self) -> list[int]:
        """Numbers of blocks that the other process had and that are gone since this was asked last."""
        with self._lock:
            found, self._dropped = self._dropped, []
            return found

    def trim(self) -> None:
        """Let go of all that nobody looks at.

        It does not wait: a pass that the garbage collector ends may call it in a thread that is in ``take``, and whose
        blocks must stay as they are meanwhile. Who is in there lets go of most of them by himself.
        """
        if self._lock.acquire(blocking=False):
            try:
                while self._drop_one():
                    pass
            finally:
                self._lock.release()


def contents(memory: torch.Tensor) -> np.ndarray:
    """What is lent of a block. It is alive as long as anything that was made of it: numpy looks no further than here
    for the owner of a view, because what is behind it is no array.
    """
    return memory[_HEAD:].numpy()


def _shared(size: int) -> torch.Tensor:
    storage = torch.UntypedStorage._new_shared(size)  # type: ignore[no-untyped-call]
    return torch.empty(0, dtype=torch.uint8, device="cpu").set_(storage)


_own = Blocks()
_for_parent: Blocks | None = None


def share_with_parent() -> Blocks:
    """In a worker whose parent knows how to give blocks back: from now on batches lie in shared blocks."""
    global _for_parent
    if _for_parent is None:
        _for_parent = Blocks(shared=True)
    return _for_parent


def trim() -> None:
    """Let go of the memory of batches that nobody looks at."""
    _own.trim()


def _forked() -> None:
    """Blocks belong to the process that made them."""
    global _own, _for_parent
    _own, _for_parent = Blocks(), None


os.register_at_fork(after_in_child=_forked)


def empty(shape: Sequence[int], dtype: torch.dtype, channels_last: bool = False) -> torch.Tensor:
    """An uninitialised tensor for a batch: in a worker in memory that its parent sees, else in a block of this process.

    >>> empty((2, 3, 4, 4), torch.uint8, channels_last=True).stride()
    (48, 1, 12, 3)
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    plan = torch.empty(tuple(shape), dtype=dtype, device="meta", memory_format=layout)
    size = plan.numel() * plan.element_size()
    blocks = _for_parent or (_own if get_worker_info() is None else None)
    found = blocks.take(size) if blocks is not None and size >= SMALL else None
    if found is None:
        if get_worker_info() is None or (blocks is not None and size < SMALL):
            # empty_like would import sympy: 70 MB
            return torch.empty(tuple(shape), dtype=dtype, memory_format=layout, device="cpu")
        found = _shared(max(1, size))
    return torch.empty(0, dtype=dtype, device="cpu").set_(found.untyped_storage(), 0, plan.shape, plan.stride())


def fill(row: torch.Tensor, value: torch.Tensor) -> None:
    """Copy a value into a row of a batch, in this thread alone: torch would wake others, which cost more than they
    bring.
    """
    if value.stride() == row.stride() and value.dtype in _KNOWN_TO_NUMPY and not value.requires_grad:
        np.copyto(row.numpy(), value.numpy())
    else:
        row.copy_(value)


_KNOWN_TO_NUMPY = frozenset(
    (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float32, torch.float64)
)


@cache
def keep_freed() -> None:
    """From now on this process keeps memory that it freed, as far as 64 MB of it, for what it needs next.

    Fields are bytes, each in memory of its own, and a batch of them is let go at once. The C library then gives its
    memory back to the system, and takes it anew for the next batch, page by page: of 400 kB each, that costs more than
    to read them. From which size on it does so, glibc learns by the largest block that a process has freed; so this is
    one, which is never written to. Where ``MALLOC_TRIM_THRESHOLD_`` and the like are set it learns nothing, and other
    libraries do as they did.
    """
    np.empty(_LARGEST, np.uint8)
