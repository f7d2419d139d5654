"""Samples to one batch: tensors stacked, everything else a list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from streampipe.decoding import DeferredBatch, DeferredImage
from streampipe.errors import StageError
from streampipe.memory import empty, fill

Batch = dict[str, Any]


def collate(samples: Sequence[Any]) -> Any:
    """One dict: tensors (and numpy arrays) of a field stacked along a new first dimension, everything else a list.

    Inside a DataLoader worker the stacked tensors are made in shared memory, so handing them over copies nothing.

    Raises:
        StageError: the samples have different fields, or a field has tensors of different shapes or dtypes.

    >>> collate([{"__key__": "a", "x": torch.zeros(2)}, {"__key__": "b", "x": torch.ones(2)}])
    {'__key__': ['a', 'b'], 'x': tensor([[0., 0.],
            [1., 1.]])}
    """
    first = samples[0]
    if not isinstance(first, Mapping):
        return list(samples)  # samples of the user's own make: a list of them
    for sample in samples:
        if sample.keys() != first.keys():
            odd = sorted(sample.keys() ^ first.keys())
            raise StageError(
                f"samples {first.get('__key__')!r} and {sample.get('__key__')!r} cannot share a batch: only one "
                f"of them has {', '.join(map(repr, odd))}; use select(...), rename(image='jpg;png') or "
                f"default({odd[0]}=...) before batch"
            )
    return {name: _stack(name, [sample[name] for sample in samples], samples) for name in first}


def _stack(name: str, values: list[Any], samples: Sequence[Mapping[str, Any]]) -> Any:
    if isinstance(values[0], np.ndarray) and values[0].dtype.kind in "biufc":
        values = [as_tensor(value) for value in values]
    first = values[0]
    if isinstance(first, DeferredImage):
        for value, sample in zip(values, samples, strict=True):
            if not isinstance(value, DeferredImage) or value.size != first.size:
                raise _unlike(name, first, samples[0], value, sample)
        return DeferredBatch.of(values, empty)
    if not isinstance(first, torch.Tensor):
        return values
    for value, sample in zip(values, samples, strict=True):
        if not isinstance(value, torch.Tensor) or value.shape != first.shape or value.dtype != first.dtype:
            raise _unlike(name, first, samples[0], value, sample)
    out = empty((len(values), *first.shape), first.dtype, channels_last=is_channels_last(first))
    for row, value in zip(out, values, strict=True):
        fill(row, value)
    return out


def _unlike(name: str, first: Any, lead: Mapping[str, Any], value: Any, sample: Mapping[str, Any]) -> StageError:
    return StageError(
        f"field {name!r} cannot be stacked: it is {_kind(first)} in sample {lead.get('__key__')!r} and "
        f"{_kind(value)} in {sample.get('__key__')!r}; bring all to one size, as in decode(size=512), or give "
        f"those that lack it a value of that shape, as in default({name}=function)"
    )


def as_tensor(value: Any) -> Any:
    """An array as a tensor; anything else as it is."""
    return torch.from_numpy(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value


def is_channels_last(image: torch.Tensor) -> bool:
    """Whether an image (channels x height x width) has the channels of a pixel side by side."""
    return image.dim() == 3 and image.stride(0) == 1 and image.shape[0] > 1 and image.permute(1, 2, 0).is_contiguous()


def _kind(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a {value.dtype} tensor of shape {tuple(value.shape)}"
    if isinstance(value, DeferredImage):
        return f"an image of {value.size[0]} x {value.size[1]} (height x width)"
    return f"a {type(value).__name__}"
