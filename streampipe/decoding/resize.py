"""One resize of a box of an image: antialiased by torch's uint8 kernels or Pillow, or the nearest pixels."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor
from typing import Any

import numpy as np
import torch
from PIL import Image

from streampipe.decoding.geometry import Cut, Turn, extent
from streampipe.errors import ConfigError

INTERPOLATIONS = ("bicubic", "bilinear", "lanczos", "area", "nearest")
FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "area": Image.Resampling.BOX,
    "nearest": Image.Resampling.NEAREST,
}
"""Those of Pillow; an area is what its box filter means."""
_ALONE = 32767
"""The most numbers that torch works on in one thread: to wake others for an image costs more than it brings."""
_KERNELS: dict[str, Any] = {  # what torch.nn.functional.interpolate calls; by torch.ops a call costs a third more
    "bicubic": torch._C._nn._upsample_bicubic2d_aa,
    "bilinear": torch._C._nn._upsample_bilinear2d_aa,
}
_AS_IT_IS = Turn()


def resize(
    pixels: np.ndarray,
    cut: Cut,
    interpolation: str,
    out: torch.Tensor | None = None,
    fast: bool = True,
    fill: Sequence[int] = (0, 0, 0),
) -> torch.Tensor:
    """The cut of an image that was decoded at the cut's scale, resized and turned: channels x height x width.

    ``pixels`` is height x width x channels, uint8; int32 is for labels, which take ``"nearest"``. With ``out`` the
    result is written there. Without, it has channels-last memory. ``fast=False``: by Pillow, the reference. ``fill``:
    by channel, what a canvas has around the picture.

    Raises:
        ConfigError: labels of more than 8 bits would become means.
        ValueError: ``out`` is of another shape; torch would write behind its end.
    """
    if out is not None and tuple(out.shape[1:]) != cut.result:
        raise ValueError(f"out is {tuple(out.shape[1:])}, and the image {cut.result} (height, width)")
    if cut.canvas is not None:
        return _on_canvas(pixels, cut, interpolation, out, fast, fill)
    if pixels.dtype != np.uint8 and interpolation != "nearest":
        raise ConfigError(
            f"labels of more than 8 bits take interpolation='nearest', not {interpolation!r}: no mean is a label"
        )
    left, top, width, height = cut.scaled
    target = (cut.out_height, cut.out_width)
    if interpolation == "nearest":
        return _deliver(_chw(_nearest(pixels, cut)), cut.turn, out)
    x, y = floor(left + 1e-6), floor(top + 1e-6)
    rows, columns = extent(y, top + height, pixels.shape[0]), extent(x, left + width, pixels.shape[1])
    box = pixels[y : y + rows, x : x + columns]
    if (rows, columns) == target == (height, width):
        return _deliver(_chw(box), cut.turn, out)
    starts_whole = (left == x and top == y) or (abs(left - x) < 1e-6 and abs(top - y) < 1e-6)
    # torch takes equal sizes for nothing to do, also where the box is a fraction of a pixel smaller
    ignored = (rows == target[0] and rows != height) or (columns == target[1] and columns != width)
    if not (fast and starts_whole and interpolation in _KERNELS) or ignored:
        start = (max(0.0, left - x), max(0.0, top - y))
        return _deliver(_chw(_by_pillow(box, start, (width, height), target, interpolation)), cut.turn, out)
    channels, turned = pixels.shape[2], cut.turn != _AS_IT_IS
    in_place = out is not None and not turned and _is_hwc(out, (*target, channels))
    slot = out if in_place and out is not None else _empty((*target, channels), np.uint8)
    whole = np.ascontiguousarray(box)  # torch would copy it in several threads, which cost more than they bring
    batch = torch.from_numpy(whole[None].transpose(0, 3, 1, 2))
    _KERNELS[interpolation](batch, target, False, target[0] / height, target[1] / width, out=slot[None])
    return slot if in_place or (out is None and not turned) else _deliver(slot, cut.turn, out)


def turn(image: torch.Tensor, how: Turn) -> torch.Tensor:
    """An image (channels x height x width) turned."""
    if how.swap:
        image = image.transpose(1, 2)
    axes = [axis for axis, flip in ((2, how.flip_x), (1, how.flip_y)) if flip]
    return image.flip(axes) if axes else image


def _by_pillow(
    box: np.ndarray, start: tuple[float, float], size: tuple[float, float], target: tuple[int, int], interpolation: str
) -> np.ndarray:
    """``size`` (width, height) pixels of a box from ``start`` (left, top) on, which need not be whole."""
    image = Image.fromarray(box if box.shape[2] > 1 else box[..., 0])
    end = min(start[0] + size[0], image.width), min(start[1] + size[1], image.height)
    resized = image.resize((target[1], target[0]), FILTERS[interpolation], box=(*start, *end))
    return np.array(resized).reshape(*target, box.shape[2])


def _nearest(pixels: np.ndarray, cut: Cut) -> np.ndarray:
    """For each pixel of the result the one under its centre."""
    left, top, width, height = cut.scaled
    rows = _under(top, height, cut.out_height, pixels.shape[0])
    columns = _under(left, width, cut.out_width, pixels.shape[1])
    found: np.ndarray = pixels[rows[:, None], columns]
    return found


def _under(start: float, length: float, out: int, total: int) -> np.ndarray:
    centres = start + (np.arange(out) + 0.5) * (length / out)
    found: np.ndarray = np.floor(centres + 1e-9).astype(np.intp).clip(0, total - 1)
    return found


def _deliver(image: torch.Tensor, how: Turn, out: torch.Tensor | None) -> torch.Tensor:
    """The image turned, where it was asked for, or in memory of its own: never a view of a decoder's buffer."""
    channels, height, width = image.shape
    if how.swap:
        image, height, width = image.transpose(1, 2), width, height
    if out is None:
        out = _empty((height, width, channels), np.uint8 if image.dtype == torch.uint8 else np.int32)
    flips = how._replace(swap=False)
    if not any(flips) and image.stride() == out.stride():
        np.copyto(out.numpy(), image.numpy())
        return out
    if torch.get_num_threads() == 1 or out.shape != image.shape:
        return out.copy_(turn(image, flips))
    rows = max(1, _ALONE // (width * channels))
    for top in range(0, height, rows):
        end = min(top + rows, height)
        band = image[:, height - end : height - top] if how.flip_y else image[:, top:end]
        out[:, top:end].copy_(turn(band, flips))
    return out


def _on_canvas(
    pixels: np.ndarray, cut: Cut, interpolation: str, out: torch.Tensor | None, fast: bool, fill: Sequence[int]
) -> torch.Tensor:
    """The cut in the middle of a canvas."""
    assert cut.canvas is not None
    (height, width), (rows, columns), channels = cut.canvas, cut.shown, pixels.shape[2]
    canvas = _empty((height, width, channels), pixels.dtype.type) if out is None else out
    canvas.copy_(torch.tensor(fill[:channels], dtype=canvas.dtype, device="cpu")[:, None, None].expand(canvas.shape))
    top, left = (height - rows) // 2, (width - columns) // 2
    inner = canvas[:, top : top + rows, left : left + columns]
    resize(pixels, cut._replace(canvas=None), interpolation, inner, fast)
    return canvas


def _empty(shape: tuple[int, ...], kind: Any) -> torch.Tensor:
    return _chw(np.empty(shape, kind))


def _chw(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _is_hwc(image: torch.Tensor, shape: tuple[int, int, int]) -> bool:
    """Whether an image lies in memory as height x width x channels of that shape do."""
    height, width, channels = shape
    return image.shape == (channels, height, width) and image.stride() == (1, width * channels, channels)
