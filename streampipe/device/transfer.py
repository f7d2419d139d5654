"""Tensors to a GPU while it works: through pinned memory that is used again, on a stream of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from streampipe.decoding.several import Images


class Transfer:
    """Copies the tensors of a batch to a device. What is not a tensor stays as it is.

    The memory of a batch's tensors is copied into pinned memory first, which the GPU reads by itself; a copy from other
    memory would wait for it. The pinned memory is used again once the copy from it is over.

    Args:
        device: where to.
        kept: pinned copies of each tensor that may be on their way at once.
    """

    def __init__(self, device: torch.device, kept: int) -> None:
        self._device = device
        self._kept = kept
        self._pinned: dict[Any, list[tuple[torch.Tensor, torch.cuda.Event]]] = {}

    def __call__(self, value: Any, stream: torch.cuda.Stream | None) -> Any:
        """A batch (tensors, in dicts, lists and tuples) on the device, as ``stream`` will see it."""
        return mapped(value, lambda each: self._copy(each, stream))

    def _copy(self, tensor: torch.Tensor, stream: torch.cuda.Stream | None) -> torch.Tensor:
        if tensor.device == self._device:
            return tensor
        if stream is None or tensor.device.type != "cpu":
            return tensor.to(self._device)
        if tensor.is_pinned() or not tensor.numel():
            return tensor.to(self._device, non_blocking=True)
        pinned, done = self._slot(tensor)
        pinned.copy_(tensor)
        found = pinned.to(self._device, non_blocking=True)
        done.record(stream)
        return found

    def _slot(self, tensor: torch.Tensor) -> tuple[torch.Tensor, torch.cuda.Event]:
        """Pinned memory for a tensor: the one that was used longest ago, if there are enough of its kind."""
        kind = tensor.dtype, tensor.shape, tensor.stride()
        slots = self._pinned.setdefault(kind, [])
        if len(slots) < self._kept:
            slot = torch.empty_like(tensor, pin_memory=True), torch.cuda.Event()  # type: ignore[no-untyped-call]
            if len(self._pinned) > _KINDS:  # shapes that do not come again: batches of many buckets, short ones
                self._pinned = {kind: slots}
        else:
            slot = slots.pop(0)
            slot[1].synchronize()
        slots.append(slot)
        return slot


_KINDS = 64
"""Kinds of tensors for which pinned memory is kept."""


def mapped(value: Any, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The value with a function applied to its tensors.

    >>> mapped({"x": torch.ones(2), "names": ["a", "b"]}, lambda each: each + 1)
    {'x': tensor([2., 2.]), 'names': ['a', 'b']}
    """
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, dict):
        return {name: mapped(each, function) for name, each in value.items()}
    if type(value) in (list, tuple, Images):  # a named tuple has its own way of being made, and no tensors
        return type(value)(mapped(each, function) for each in value)
    return value
