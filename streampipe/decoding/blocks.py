"""Tensors in 8 bits: whole numbers from -127 to 127, and a scale for each block of 64 of them.

Blocks run over the values of a row (all dimensions but the first), so a token or a channel with large values costs the
others nothing. A scale is the block's largest value over 127, as bfloat16, rounded up. A value comes back within half a
scale of what it was, and the rounding of its own dtype: that is the bound, which follows from the scales alone.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch

from streampipe.errors import DecodeError

BLOCK = 64
LEAST_COSINE = 0.999
"""What every row must come back with at least; tensors that 8 bits cannot hold so well are refused."""
_MOST = 127
_AT_ONCE = 512  # blocks: 128 kB of float32
_SAME = 1e-5  # how far bounds may differ that were computed twice


class Eight(NamedTuple):
    """A tensor in 8 bits, and what that cost.

    Args:
        values: int8, in the tensor's shape.
        scales: bfloat16, rows x blocks.
        bound: no value is further from what it was.
        error: how far the furthest is.
        cosine: the least of a row with what it was.
    """

    values: torch.Tensor
    scales: torch.Tensor
    bound: float
    error: float
    cosine: float


def quantized(tensor: torch.Tensor) -> Eight:
    """A tensor of floats in 8 bits; what comes back was looked at.

    Raises:
        ValueError: it holds no floats, or some that are not finite; or a row would come back with a cosine below 0.999.

    >>> found = quantized(torch.tensor([[60.2, -127.0], [100.0, 3.0]]))
    >>> found.values
    tensor([[  60, -127],
            [ 127,    4]], dtype=torch.int8)
    >>> found.error <= found.bound < 0.6, found.cosine > 0.999
    (True, True)
    """
    if not tensor.dtype.is_floating_point:
        raise ValueError(f"8 bits are for floats, not for {tensor.dtype}")
    if not tensor.numel():
        scales = torch.empty((1, 0), dtype=torch.bfloat16, device="cpu")
        return Eight(tensor.to(torch.int8), scales, bound_of(scales, tensor.dtype), 0.0, 1.0)
    rows = _rows(tensor.float())
    if not bool(rows.isfinite().all()):
        raise ValueError("some of its values are not finite")
    blocks = torch.nn.functional.pad(rows, (0, -rows.shape[1] % BLOCK)).reshape(len(rows), -1, BLOCK)
    scales = _rounded_up(blocks.abs().amax(2) / _MOST)
    spread = torch.where(scales > 0, scales.float(), 1.0)[:, :, None]
    values = (blocks / spread).round().clamp(-_MOST, _MOST).to(torch.int8)
    whole = values.flatten(1)[:, : rows.shape[1]].reshape(tensor.shape).contiguous()
    back = _rows(restored(whole.numpy(), scales, tensor.dtype).float())
    error = float((back - rows).abs().max())
    found = Eight(whole, scales, bound_of(scales, tensor.dtype), error, _cosine(rows, back))
    if found.cosine < LEAST_COSINE or not error <= found.bound * (1 + _SAME):
        raise ValueError(
            f"8 bits keep only a cosine of {found.cosine:.5f} with it, less than {LEAST_COSINE}; its values are too "
            f"unlike each other, or too small for {tensor.dtype}"
        )
    return found


def restored(values: np.ndarray, scales: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The tensor that 8 bits stand for, in this dtype. Its float32 passes through the processor's cache in pieces.

    >>> restored(np.array([[2, -4]], np.int8), torch.tensor([[0.5]], dtype=torch.bfloat16), torch.float16)
    tensor([[ 1., -2.]], dtype=torch.float16)
    """
    out = torch.empty(values.shape, dtype=dtype, device="cpu")
    if not values.size:
        return out
    rows = values.reshape(values.shape[0] if values.ndim > 1 else 1, -1)
    spread = scales.float().numpy()
    if rows.shape[1] % BLOCK:
        wide = np.repeat(spread, BLOCK, 1)[:, : rows.shape[1]]
        return out.copy_(torch.from_numpy(rows * wide).view(values.shape))
    blocks, spread, flat = rows.reshape(-1, BLOCK), spread.reshape(-1, 1), out.view(-1, BLOCK)
    piece = np.empty((min(_AT_ONCE, len(blocks)), BLOCK), np.float32)
    for start in range(0, len(blocks), _AT_ONCE):
        part = blocks[start : start + _AT_ONCE]
        made = np.multiply(part, spread[start : start + _AT_ONCE], out=piece[: len(part)])
        flat[start : start + _AT_ONCE].copy_(torch.from_numpy(made))
    return out


def bound_of(scales: torch.Tensor, dtype: torch.dtype) -> float:
    """How far a value may be from what it was: half the largest scale, and the rounding to its dtype."""
    largest = float(scales.max()) if scales.numel() else 0.0
    rounding = 0.0 if dtype == torch.float64 else torch.finfo(dtype).eps / 2
    return largest * (0.5 + _MOST * rounding) + (0.0 if dtype == torch.float64 else torch.finfo(dtype).tiny)


def check(shape: tuple[int, ...], scales: torch.Tensor, dtype: torch.dtype, bound: float) -> None:
    """Compare the scales that were read with the shape of their values, and with the bound.

    Raises:
        DecodeError: they do not fit.
    """
    size = math.prod(shape)
    rows = shape[0] if len(shape) > 1 and size else 1
    wanted = (rows, math.ceil(size / rows / BLOCK))
    if tuple(scales.shape) != wanted:
        raise DecodeError(f"8 bits of shape {shape} want scales of {wanted}, {tuple(scales.shape)} are there")
    found = bound_of(scales, dtype)
    if not abs(found - bound) <= _SAME * max(found, bound):
        raise DecodeError(
            f"its scales allow errors up to {found:.4g}, and the bound that was stored is {bound:.4g}: it is damaged"
        )


def _rows(tensor: torch.Tensor) -> torch.Tensor:
    """All dimensions but the first as one; a tensor of one dimension is a row."""
    return tensor.reshape(tensor.shape[0], -1) if tensor.dim() > 1 else tensor.reshape(1, -1)


def _rounded_up(scales: torch.Tensor) -> torch.Tensor:
    """float32 to bfloat16, never to less."""
    bits: Any = scales.numpy().view(np.uint32)
    high = ((bits.astype(np.uint64) + 0xFFFF) >> 16).astype(np.int16)
    return torch.from_numpy(high).view(torch.bfloat16)


def _cosine(rows: torch.Tensor, back: torch.Tensor) -> float:
    """The least cosine of a row and what became of it; rows of zeros came back as they were."""
    sizes = rows.norm(dim=1, dtype=torch.float64) * back.norm(dim=1, dtype=torch.float64)
    dots = (rows.double() * back.double()).sum(1)
    cosines = torch.where(sizes > 0, dots / sizes.clamp(min=1e-300), 1.0 * (rows.abs().amax(1) == 0))
    return min(1.0, float(cosines.min()))
