"""One antialiased resize of a box of an image, by torch's uint8 kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from streampipe.decoding.geometry import Cut, extent, turns

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
    box = torch.from_numpy(pixels[top : top + rows, left : left + columns]).permute(2, 0, 1)
    target = (cut.out_height, cut.out_width)
    turned = cut.orientation != 1
    if (rows, columns) == target and (height, width) == target:
        return _deliver(_turn(box, cut.orientation), out)
    slot = out if out is not None and not turned and _is_hwc(out) else _hwc(target)
    _KERNELS[interpolation].out(
        box[None], target, False, cut.out_height / height, cut.out_width / width, out=slot[None]
    )
    return slot if slot is out else _deliver(_turn(slot, cut.orientation), out, own=True)


def turn(image: torch.Tensor, orientation: int) -> torch.Tensor:
    """An image (3 x height x width) turned as its EXIF orientation says."""
    return _turn(image, orientation)


def _turn(image: torch.Tensor, orientation: int) -> torch.Tensor:
    swap, flip_x, flip_y = turns(orientation)
    if swap:
        image = image.transpose(1, 2)
    axes = [axis for axis, flip in ((2, flip_x), (1, flip_y)) if flip]
    return image.flip(axes) if axes else image


def _deliver(image: torch.Tensor, out: torch.Tensor | None, own: bool = False) -> torch.Tensor:
    if out is not None:
        return out.copy_(image)
    if own and _is_hwc(image):
        return image
    slot = _hwc((image.shape[1], image.shape[2]))
    return slot.copy_(image)  # not a view of a decoder's buffer, which is used again


def _hwc(size: tuple[int, int]) -> torch.Tensor:
    return torch.empty((size[0], size[1], 3), dtype=torch.uint8).permute(2, 0, 1)


def _is_hwc(image: torch.Tensor) -> bool:
    return image.permute(1, 2, 0).is_contiguous()
