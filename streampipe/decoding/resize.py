"""One antialiased resize of a box of an image, by torch's uint8 kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from streampipe.decoding.geometry import Cut, extent, turns

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_KERNELS: dict[str, Any] = {
    "bicubic": torch.ops.aten._upsample_bicubic2d_aa,
    "bilinear": torch.ops.aten._upsample_bilinear2d_aa,
}


def resize(pixels: np.ndarray, cut: Cut, interpolation: str, out: torch.Tensor | None) -> torch.Tensor:
    """The cut of an image that was decoded at the cut's scale, resized and turned: uint8, 3 x height x width.

    ``pixels`` is height x width x 3. With ``out`` the result is written there. Without, it has channels-last memory.
    """
    left, top, width, height = cut.scaled
    rows = extent(top, height, pixels.shape[0])
    columns = extent(left, width, pixels.shape[1])
    box = pixels[top : top + rows, left : left + columns]
    target = (cut.out_height, cut.out_width)
    if (rows, columns) == target == (height, width):
        return _deliver(turn(_chw(box), cut.orientation), out)
    if (rows == target[0] and rows != height) or (columns == target[1] and columns != width):
        # torch takes equal sizes for nothing to do, also where the box is a fraction of a pixel smaller
        return _deliver(
            turn(_chw(pillow_resize(Image.fromarray(box), width, height, target, interpolation)), cut.orientation), out
        )
    slot = out if out is not None and cut.orientation == 1 and _is_hwc(out) else _empty(target)
    scales = cut.out_height / height, cut.out_width / width
    _KERNELS[interpolation].out(_chw(box)[None], target, False, *scales, out=slot[None])
    if slot is out or (out is None and cut.orientation == 1):
        return slot
    return _deliver(turn(slot, cut.orientation), out)


def pillow_resize(
    box: Image.Image, width: float, height: float, target: tuple[int, int], interpolation: str
) -> np.ndarray:
    """The first ``width`` x ``height`` pixels of a box, resized to ``target`` (height, width) by Pillow."""
    target = target[1], target[0]
    if box.size != target or (width, height) != target:
        box = box.resize(target, _FILTERS[interpolation], box=(0, 0, width, height))
    return np.array(box)


def turn(image: torch.Tensor, orientation: int) -> torch.Tensor:
    """An image (3 x height x width) turned as its EXIF orientation says."""
    swap, flip_x, flip_y = turns(orientation)
    if swap:
        image = image.transpose(1, 2)
    axes = [axis for axis, flip in ((2, flip_x), (1, flip_y)) if flip]
    return image.flip(axes) if axes else image


def _deliver(image: torch.Tensor, out: torch.Tensor | None) -> torch.Tensor:
    """The image where it was asked for, or in memory of its own: never a view of a decoder's buffer."""
    return (_empty((image.shape[1], image.shape[2])) if out is None else out).copy_(image)


def _empty(size: tuple[int, int]) -> torch.Tensor:
    return _chw(np.empty((*size, 3), np.uint8))


def _chw(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _is_hwc(image: torch.Tensor) -> bool:
    return image.permute(1, 2, 0).is_contiguous()
