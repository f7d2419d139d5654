"""Rows of batches to come: a value is written where its batch will have it, so ``batch`` need not copy it.

Who makes values in front of ``batch`` takes a row for each sample (``Rows``). ``collate`` finds that the values of a
field are the rows of one block, in order and all of them as they were, and takes the block (``joined``). Whatever
stands between may do as it likes: of a value that was replaced, a sample that was left out or another order, values are
copied, as any others are. So a row is only ever a saving, and nobody has to know who is behind.

A block is joined once: what somebody still sees of it then belongs to that batch.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch

from streampipe.memory import empty


class _Memory(np.ndarray):
    """The bytes of one field of a block. Rows are made of it, and keep it alive; so as long as anybody looks at a row,
    its address is that of this block."""

    whole: torch.Tensor
    row_bytes: int
    like: tuple[torch.Size, tuple[int, ...], torch.dtype]  # a row's shape, strides and dtype
    as_array: tuple[np.dtype[Any], tuple[int, ...]] | None  # the last two as numpy has them, if it does
    joined: bool


_memories: WeakValueDictionary[int, _Memory] = WeakValueDictionary()


class Block:
    """The memory of one batch's values: for each field one tensor, made at its first sample."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.taken = 0
        self.kinds: dict[str, type] = {}  # of each field, what its values were made as
        self._fields: dict[str, _Memory] = {}
        self._lock = threading.Lock()

    def fits(self, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        """Whether no batch has it yet, and its rows are of these shapes where there are some."""
        for name, memory in list(self._fields.items()):  # other threads may begin more
            if memory.joined or shapes.get(name, memory.like[0]) != memory.like[0]:
                return False
        return True

    def row(self, name: str, number: int) -> torch.Tensor | None:
        """Where the value of a sample goes, in memory that ends where the row does: torch would make an ``out=`` larger
        for a larger value, over the rows behind it. None where nobody knows yet of what shape values are.
        """
        memory = self._fields.get(name)
        if memory is None:
            return None
        shape, strides, dtype = memory.like
        at = number * memory.row_bytes
        if memory.as_array is not None:
            kind, steps = memory.as_array
            return torch.from_numpy(np.ndarray(shape, kind, memory, at, steps))
        row = torch.from_numpy(np.ndarray(memory.row_bytes, np.uint8, memory, at))
        return row.view(dtype).as_strided(shape, strides)

    def put(self, name: str, number: int, shape: tuple[int, ...], dtype: torch.dtype, data: memoryview) -> Any:
        """The row of a sample, with these bytes in it; None where a field has values of another kind already."""
        self.begin(name, shape, dtype)
        memory = self._fields.get(name)
        if memory is None or memory.like[0] != shape or memory.like[2] is not dtype:
            return None
        at = number * memory.row_bytes
        memory[at : at + memory.row_bytes] = np.frombuffer(data, np.uint8)
        return self.row(name, number)

    def begin(
        self,
        name: str,
        shape: Sequence[int],
        dtype: torch.dtype,
        channels_last: bool = False,
        kind: type = torch.Tensor,
    ) -> None:
        """Make the memory for values of this shape, if a field has none yet. Called from several threads."""
        if name in self._fields:
            return
        with self._lock:
            if name not in self._fields and 0 not in shape:
                self.kinds[name] = kind
                self._fields[name] = _memory(empty((self.rows, *shape), dtype, channels_last))


class Rows:
    """Rows for one sample after the other, in the thread that pulls them. ``size``: samples of a batch."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._block: Block | None = None

    def next(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[Block, int]:
        """The block of the next sample and its number there; ``shapes``: of the fields of which one is known.

        A new block begins with each batch: also where the last one was joined early, or a sample fits it no more.
        """
        block = self._block
        if block is None or block.taken == block.rows or not block.fits(shapes):
            block = self._block = Block(self.size)
        block.taken += 1
        return block, block.taken - 1


def joined(values: Sequence[Any]) -> torch.Tensor | None:
    """The values as one tensor, if they are the rows of a block in order; it has them then. None: they are not."""
    first = values[0]
    memory = _memories.get(first.data_ptr()) if _memories and isinstance(first, torch.Tensor) else None
    if memory is None or memory.joined or len(values) > len(memory.whole):
        return None
    address = memory.whole.data_ptr()
    for value in values:
        if not isinstance(value, torch.Tensor) or value.data_ptr() != address:
            return None
        if (value.shape, value.stride(), value.dtype) != memory.like:
            return None
        address += memory.row_bytes
    memory.joined = True
    return memory.whole[: len(values)]


def _memory(whole: torch.Tensor) -> _Memory:
    size = whole.numel() * whole.element_size()
    flat: Any = torch.empty(0, dtype=torch.uint8, device="cpu")
    flat.set_(whole.untyped_storage(), whole.storage_offset() * whole.element_size(), (size,), (1,))
    memory: _Memory = flat.numpy().view(_Memory)
    memory.whole, memory.joined, memory.as_array = whole, False, None
    memory.row_bytes, memory.like = size // len(whole), (whole.shape[1:], whole.stride()[1:], whole.dtype)
    with suppress(TypeError):  # of a type that numpy does not have
        kind = torch.empty(0, dtype=whole.dtype, device="cpu").numpy().dtype
        memory.as_array = kind, tuple(each * kind.itemsize for each in whole.stride()[1:])
    _memories[whole.data_ptr()] = memory
    return memory


__all__ = ["Block", "Rows", "joined"]
