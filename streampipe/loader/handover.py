"""From a worker to its parent: tensors in blocks of shared memory, which go back when nobody looks at them any more.

Torch makes a segment of shared memory for every tensor that it sends, and a process that receives it opens that by a
socket: for a batch of photos that is a fifth of the work of decoding it. Here a block is sent once. After that its
number is enough, and the parent says by a flag in the block that it may be filled again: once the last view of the
batch is gone. A batch that is kept is never overwritten; the worker then takes other blocks. Blocks have no names, so
none is left when processes die.

What has no place in a block (tensors inside objects of the user's own, of other devices, with gradients) goes as torch
sends it; small tensors go by value.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any, NamedTuple

import numpy as np
import torch

from streampipe.decoding import DeferredBatch
from streampipe.memory import SMALL, Block, Blocks, contents, fill

_shelves: weakref.WeakValueDictionary[str, Shelf] = weakref.WeakValueDictionary()


class Shelf:
    """In the parent: the blocks that the workers of one start have sent. Workers know it by its name."""

    def __init__(self, name: str | None = None) -> None:
        self.name = name or os.urandom(8).hex()
        self.blocks: dict[tuple[int, int], torch.Tensor] = {}
        _shelves[self.name] = self

    def __reduce__(self) -> Any:
        return Shelf, (self.name,)


class _Placed(NamedTuple):
    """A tensor in one of the blocks of a parcel."""

    block: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


class _Small(NamedTuple):
    """A tensor by value."""

    data: bytes
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class Packed:
    """An item on its way. Where it is unpickled it is that item again, and the blocks it lies in are taken care of."""

    def __init__(self, item: Any, shelf: str, worker: int, blocks: Blocks) -> None:
        self._shelf = shelf
        self._worker = worker
        self._sent: list[tuple[int, torch.Tensor | None]] = []
        self._places: dict[int, int] = {}  # number of a block: its place in ``_sent``
        self._blocks = blocks
        self._item = _mapped(item, (torch.Tensor,), self._packed)
        self._dropped = blocks.dropped()

    def __reduce__(self) -> Any:
        return _unpacked, (self._item, self._shelf, self._worker, self._sent, self._dropped)

    def _packed(self, tensor: torch.Tensor) -> Any:
        if not _is_plain(tensor):
            return tensor
        tensor = tensor.resolve_conj().resolve_neg()  # torch would send what they stand for, and forget that they do
        block = self._blocks.holding(tensor)
        if block is not None and (block.number in self._places or not block.flag[0]):
            return self._placed(tensor, block)
        if tensor.is_shared():  # type: ignore[no-untyped-call]
            return tensor
        if not _is_dense(tensor):
            tensor = tensor.contiguous()
        flat = tensor.as_strided((tensor.numel(),), (1,))
        if flat.numel() * flat.element_size() < SMALL:
            data = flat.view(torch.uint8).numpy().tobytes()
            return _Small(data, tensor.dtype, tuple(tensor.shape), tensor.stride())
        memory = self._blocks.take(flat.numel() * flat.element_size())
        if memory is None:
            return tensor
        row = torch.empty(0, dtype=tensor.dtype, device="cpu").set_(
            memory.untyped_storage(), 0, tensor.shape, tensor.stride()
        )
        fill(row, tensor)
        block = self._blocks.holding(row)
        assert block is not None
        return self._placed(row, block)

    def _placed(self, tensor: torch.Tensor, block: Block) -> _Placed:
        if block.number not in self._places:
            self._places[block.number] = len(self._sent)
            self._sent.append((block.number, None if block.sent else block.memory))
            block.flag[0] = 1
            block.sent = True
        shape, stride = tuple(tensor.shape), tensor.stride()
        return _Placed(self._places[block.number], tensor.dtype, shape, stride, int(tensor.storage_offset()))


def _unpacked(
    item: Any, name: str, worker: int, sent: Sequence[tuple[int, torch.Tensor | None]], dropped: Sequence[int]
) -> Any:
    """In the parent: the item, in the memory that the worker wrote it to."""
    known = _shelves[name].blocks
    storages = []
    for number, memory in sent:
        if memory is None:
            memory = known[worker, number]
        known[worker, number] = memory
        array = contents(memory)
        weakref.finalize(array, _give_back, memory.numpy(), os.getpid()).atexit = False
        storages.append(torch.from_numpy(array).untyped_storage())
    for number in dropped:
        known.pop((worker, number), None)

    def restored(found: _Placed | _Small) -> torch.Tensor:
        empty = torch.empty(0, dtype=found.dtype, device="cpu")
        if isinstance(found, _Placed):
            return empty.set_(storages[found.block], found.offset, found.shape, found.stride)
        data = torch.frombuffer(bytearray(found.data), dtype=torch.uint8)
        return empty.set_(data.untyped_storage(), 0, found.shape, found.stride)

    return _mapped(item, (_Placed, _Small), restored)


def _give_back(memory: np.ndarray, process: int) -> None:
    """Nobody looks at a block any more. A fork of the parent has no say in it."""
    if os.getpid() == process:
        memory[0] = 0


def _mapped(item: Any, kinds: tuple[type, ...], function: Callable[[Any], Any]) -> Any:
    """An item with what it has of some kinds replaced: in dicts, lists, tuples and images that wait for a GPU."""
    if isinstance(item, kinds):
        return function(item)
    if type(item) is dict:
        return {name: _mapped(value, kinds, function) for name, value in item.items()}
    if type(item) in (list, tuple):
        return type(item)(_mapped(each, kinds, function) for each in item)
    if type(item) is DeferredBatch:
        found = copy(item)
        found.data = _mapped(item.data, kinds, function)
        return found
    return item


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether a tensor is nothing but numbers in this process's memory."""
    return (
        type(tensor) is torch.Tensor
        and tensor.device.type == "cpu"
        and tensor.layout is torch.strided
        and not (tensor.requires_grad or tensor.is_quantized)
        and tensor.numel() > 0
    )


def _is_dense(tensor: torch.Tensor) -> bool:
    """Whether the numbers of a tensor lie one behind the other, in whatever order of its axes."""
    expected = 1
    for stride, length in sorted((s, n) for n, s in zip(tensor.shape, tensor.stride(), strict=True) if n > 1):
        if stride != expected:
            return False
        expected *= length
    return True


__all__ = ["Packed", "Shelf"]
