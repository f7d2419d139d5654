"""Samples to one batch: tensors of what can be stacked, lists of everything else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from streampipe.decoding import DeferredBatch, DeferredImage
from streampipe.decoding.several import Images
from streampipe.errors import StageError
from streampipe.memory import empty, fill
from streampipe.stages.fields import written
from streampipe.stages.rows import joined

Batch = dict[str, Any]
_ALONE = 32768
"""Numbers below which torch stacks in one thread: by one call, where a copy for each row would cost ten times that."""
Pad = Mapping[str, float]
"""Fields of unequal lengths, and the value that fills the shorter ones up."""


def collate(samples: Sequence[Any], pad: Pad | None = None) -> Any:
    """One dict: of each field a tensor, or else a list.

    Tensors and numpy arrays are stacked along a new first dimension. Numbers become a tensor: whole ones int64, others
    of torch's default dtype (float32), truth values bool. Anything else stays a list, and so does metadata
    (``__key__``), but for tensors. Samples that are tuples become a tuple of the same.

    Inside a DataLoader worker the stacked tensors are made in shared memory, so handing them over copies nothing.

    Several images in one field (see ``collect``) become a list of tensors: the first images of all samples, the second
    ones, and so on. Where samples have unequally many, or of unequal sizes, ``pad={"ref": 0}`` makes one tensor,
    samples x images x channels x height x width, and says in ``ref.count`` (int64, samples) how many each has, and in
    ``ref.size`` (int64, samples x images x 2) what height and width.

    Args:
        samples: dicts with the same fields, or tuples of one length.
        pad: fields whose tensors (or lists of numbers) may be of unequal length, each with the value that fills the
            shorter ones up, at their end: ``{"tokens": 0, "mask": 0}``.

    Raises:
        StageError: the samples have different fields, or a field has tensors of different shapes or dtypes.

    >>> collate([{"__key__": "a", "x": torch.zeros(2), "n": 1}, {"__key__": "b", "x": torch.ones(2), "n": 2}])
    {'__key__': ['a', 'b'], 'x': tensor([[0., 0.],
            [1., 1.]]), 'n': tensor([1, 2])}
    >>> collate([{"t": torch.tensor([5, 6])}, {"t": torch.tensor([7])}], pad={"t": 0})
    {'t': tensor([[5, 6],
            [7, 0]])}
    >>> collate([("a cat", 3), ("a dog", 4)])
    (['a cat', 'a dog'], tensor([3, 4]))
    """
    first = samples[0]
    if type(first) is tuple:
        return _of_tuples(samples, pad)
    if not isinstance(first, Mapping):
        return list(samples)  # samples of the user's own make: a list of them
    keys = [sample.get("__key__") for sample in samples]
    for sample in samples:
        if sample.keys() != first.keys():
            odd = sorted(sample.keys() ^ first.keys())
            raise StageError(
                f"samples {first.get('__key__')!r} and {sample.get('__key__')!r} cannot share a batch: only one "
                f"of them has {', '.join(map(repr, odd))}; use select(...), rename(image='jpg;png') or "
                f"default({written(odd[0], '...')}) before batch"
            )
    if pad and (odd_names := [name for name in pad if name not in first]):
        raise StageError(f"batch(pad=) names {odd_names[0]!r}, which the samples lack; they have {', '.join(first)}")
    found: Batch = {}
    for name in first:
        values = [sample[name] for sample in samples]
        found |= (
            _several(name, values, keys, pad)
            if type(first[name]) is Images
            else {name: _column(name, values, keys, pad)}
        )
    return found


def _of_tuples(samples: Sequence[tuple[Any, ...]], pad: Pad | None) -> tuple[Any, ...]:
    if pad:
        raise StageError("batch(pad=) names fields, and the samples are tuples: make them dicts, as in {'tokens': ...}")
    lengths = {len(sample) for sample in samples}
    if len(lengths) > 1:
        raise StageError(f"samples that are tuples of different lengths cannot share a batch: {sorted(lengths)}")
    numbers = list(range(len(samples)))
    return tuple(_column(str(i), list(values), numbers, None) for i, values in enumerate(zip(*samples, strict=True)))


def _column(name: str, values: list[Any], keys: Sequence[Any], pad: Pad | None) -> Any:
    """The values of a field as one tensor, or else as a list."""
    first, padded = values[0], pad is not None and name in pad
    if padded:
        values = of_lists(values)
    of_each_type = {type(value): value for value in values}.values()  # mostly one: to ask all of them takes longer
    arrays = any(isinstance(value, (np.ndarray, torch.Tensor)) for value in of_each_type)
    if arrays:
        values = [_tensor(name, value, key) for value, key in zip(values, keys, strict=True)]
        if (made := joined(values)) is not None:
            return made
    elif isinstance(first, (bool, int, float, np.generic)):
        found = None if name.startswith("__") else numbers(values)
        return values if found is None else found
    if isinstance(first, DeferredImage):
        for value, key in zip(values, keys, strict=True):
            if not isinstance(value, DeferredImage) or value.size != first.size:
                raise _unlike(name, first, keys[0], value, key)
        return DeferredBatch.of(values, empty)
    lead = next((i for i, value in enumerate(values) if isinstance(value, torch.Tensor)), None) if arrays else None
    if lead is None:
        if padded:
            raise StageError(
                f"field {name!r} cannot be padded: it is {_kind(first)}, and tensors or lists of numbers are"
            )
        return values
    if lead:
        raise _unlike(name, values[lead], keys[lead], first, keys[0])
    if pad is not None and padded:
        values = _padded(name, values, pad[name])
    return _stack(name, values, keys)


def _several(name: str, values: list[Any], keys: Sequence[Any], pad: Pad | None) -> Batch:
    """Several images of each sample: a tensor for each number, or one that is filled up."""
    if pad is not None and name in pad:
        return _padded_images(name, values, pad[name])
    counts = {len(each) for each in values}
    if len(counts) > 1:
        raise StageError(
            f"field {name!r} cannot be stacked: samples of one batch have {min(counts)} to {max(counts)} images in it; "
            f"bucket(sp.Compound(..., {name}=...)) batches those that are alike, batch(n, pad={{{name!r}: 0}}) fills up"
        )
    return {
        name: Images(_column(f"{name}.{i}", list(each), keys, None) for i, each in enumerate(zip(*values, strict=True)))
    }


def _padded_images(name: str, values: list[Any], value: float) -> Batch:
    """Images of each sample as one tensor, how many each has, and their heights and widths."""
    every = [as_tensor(each) for images in values for each in images]
    odd = next((x for x in every if not isinstance(x, torch.Tensor) or x.dim() != 3 or x.dtype != every[0].dtype), None)
    if odd is not None:
        raise StageError(f"field {name!r} cannot be padded: one of its images is {_kind(odd)}; they want one dtype")
    most = (max(map(len, values)), *(max((each.shape[i] for each in every), default=(3, 0, 0)[i]) for i in range(3)))
    dtype = every[0].dtype if every else torch.uint8
    _check_held(name, value, dtype)
    out = empty((len(values), *most), dtype).fill_(value)
    sizes = empty((len(values), most[0], 2), torch.int64).zero_()
    for row, size, images in zip(out, sizes, values, strict=True):
        for i, image in enumerate(map(as_tensor, images)):
            channels, height, width = image.shape
            row[i, :channels, :height, :width] = image
            size[i] = torch.tensor([height, width], device="cpu")
    return {
        name: out,
        f"{name}.count": torch.tensor([len(each) for each in values], device="cpu"),
        f"{name}.size": sizes,
    }


def numbers(values: Sequence[Any]) -> torch.Tensor | None:
    """Numbers as a tensor; None where one of them is none, or is too large for one."""
    plain = [value.item() if isinstance(value, np.generic) else value for value in values]
    kinds = {type(value) for value in plain}
    if kinds == {bool}:
        dtype = torch.bool
    elif kinds == {int}:
        dtype = torch.int64
    elif kinds <= {int, float}:
        dtype = torch.get_default_dtype()
    else:
        return None
    try:
        made = torch.tensor(plain, dtype=dtype, device="cpu")
    except (OverflowError, RuntimeError, ValueError):  # beyond 64 bits
        return None
    return empty(tuple(made.shape), dtype).copy_(made)


def of_lists(values: Sequence[Any]) -> list[Any]:
    """Lists of numbers as tensors of one dtype, also where some are empty, or have whole numbers alone; other values as
    they are.

    >>> [each.dtype for each in of_lists([[], [1, 2.5]])], of_lists([[], torch.ones(1).half()])[0].dtype
    ([torch.float32, torch.float32], torch.float16)
    """
    are = [isinstance(x, (list, tuple)) and all(isinstance(each, (bool, int, float)) for each in x) for x in values]
    kinds = {type(each) for x, is_list in zip(values, are, strict=True) if is_list for each in x}
    dtype = torch.int64 if kinds - {bool} else torch.bool
    if float in kinds:
        dtype = torch.get_default_dtype()
    elif not kinds:  # all are empty
        tensors = (as_tensor(x) for x in values if isinstance(x, (np.ndarray, torch.Tensor)))
        dtype = next((x.dtype for x in tensors), torch.int64)
    return [
        torch.tensor(x, dtype=dtype, device="cpu") if is_list else x for x, is_list in zip(values, are, strict=True)
    ]


def _tensor(name: str, value: Any, key: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.kind not in "biufc":
        return value  # texts, objects, rows of several columns
    if isinstance(value, torch.Tensor) and value.requires_grad and torch.is_grad_enabled():
        raise StageError(
            f"field {name!r} cannot be stacked: in sample {key!r} it wants a gradient, which no batch carries; compute "
            f"it under torch.no_grad(), or detach() it"
        )
    try:
        return as_tensor(value)
    except (TypeError, ValueError):
        raise StageError(
            f"field {name!r} cannot be stacked: torch has no numbers of the type {value.dtype} that it has in sample "
            f"{key!r}; bring it to another, as in map(lambda x: x.astype('float32'), {name!r})"
        ) from None


def _padded(name: str, values: list[torch.Tensor], value: float) -> list[torch.Tensor]:
    """The tensors, each filled up at the end of its dimensions to the longest."""
    dims = values[0].dim()
    if not all(isinstance(each, torch.Tensor) and each.dim() == dims for each in values):
        kinds = ", ".join(sorted({_kind(each) for each in values}))
        raise StageError(f"field {name!r} cannot be padded: it is {kinds} in the samples of a batch")
    _check_held(name, value, values[0].dtype)
    most = [max(each.shape[i] for each in values) for i in range(dims)]
    missing = [[end for i in reversed(range(dims)) for end in (0, most[i] - each.shape[i])] for each in values]
    return [torch.nn.functional.pad(each, ends, value=value) for each, ends in zip(values, missing, strict=True)]


def _check_held(name: str, value: float, dtype: torch.dtype) -> None:
    """Refuse a value to fill up with that tensors of a type cannot hold: torch cuts fractions off without a word."""
    if dtype.is_floating_point or dtype.is_complex:
        return
    least, most = (0, 1) if dtype == torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
    if value != value or value % 1 or not least <= value <= most:
        raise StageError(f"batch(pad={{{name!r}: {value}}}): {name!r} is {dtype}, which does not have that value")


def _stack(name: str, values: list[Any], keys: Sequence[Any]) -> torch.Tensor:
    first = values[0]
    for value, key in zip(values, keys, strict=True):
        if not isinstance(value, torch.Tensor) or value.shape != first.shape or value.dtype != first.dtype:
            raise _unlike(name, first, keys[0], value, key)
    if first.dim() == 4 and is_channels_last(first[0]) and first.stride(0) == first[0].numel():  # a clip's frames
        out = empty((len(values) * len(first), *first.shape[1:]), first.dtype, channels_last=True)
        out = out.view(len(values), *first.shape)
    else:
        out = empty((len(values), *first.shape), first.dtype, channels_last=is_channels_last(first))
    if out.numel() < _ALONE and all(each.is_cpu and not each.requires_grad for each in values):
        return torch.stack(values, out=out)
    for row, value in zip(out, values, strict=True):
        fill(row, value)
    return out


def _unlike(name: str, first: Any, lead: Any, value: Any, key: Any) -> StageError:
    return StageError(
        f"field {name!r} cannot be stacked: it is {_kind(first)} in sample {lead!r} and {_kind(value)} in {key!r}; "
        f"{_advice(name, first, value)}"
    )


def _advice(name: str, first: Any, value: Any) -> str:
    if isinstance(first, DeferredImage) and isinstance(value, DeferredImage):
        return "bring all images to one size, as in decode(size=512), or stack those of one size, as in bucket('sdxl')"
    if not isinstance(first, torch.Tensor) or not isinstance(value, torch.Tensor):
        return f"give those that lack it a value of that shape, as in default({written(name, 'function')})"
    if value.dtype != first.dtype:
        return f"bring them to one dtype, as in map(lambda x: x.float(), {name!r})"
    if first.dim() == 3 and first.dtype == torch.uint8:
        return "bring all images to one size, as in decode(size=512), or stack those of one size, as in bucket('sdxl')"
    return f"fill the shorter ones up, as in batch(n, pad={{{name!r}: 0}}), or bring all to one shape"


def as_tensor(value: Any) -> Any:
    """An array, of whatever order of bytes, as a tensor of its shape; anything else as it is."""
    if not isinstance(value, np.ndarray):
        return value
    return torch.from_numpy(np.require(value, value.dtype.newbyteorder("="), ["C", "W"]).reshape(value.shape))


def is_channels_last(image: torch.Tensor) -> bool:
    """Whether an image (channels x height x width) has the channels of a pixel side by side."""
    return image.dim() == 3 and image.stride(0) == 1 and image.shape[0] > 1 and image.permute(1, 2, 0).is_contiguous()


def _kind(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a {value.dtype} tensor of shape {tuple(value.shape)}"
    if value is None:
        return "None"
    if isinstance(value, DeferredImage):
        return f"an image of {value.size[0]} x {value.size[1]} (height x width)"
    return f"a {type(value).__name__}"
