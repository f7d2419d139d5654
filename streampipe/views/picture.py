"""Small pictures for pages: an image of whatever format becomes a WebP of some kilobytes, as base64.

A label (``mask``, ``seg``) becomes a layer that is laid over the image: where it is 0 it is clear.
"""

from __future__ import annotations

import base64
import io

import numpy as np
import torch
from PIL import Image

from streampipe.decoding import Data, EncodedImage, Geometry, Size, contained, is_mask
from streampipe.decoding.video import still

_QUALITY = 72
_OF_MASK = (255, 45, 85)
_OF_CLASSES = np.array(
    [
        [76, 120, 168],
        [245, 133, 24],
        [84, 162, 75],
        [228, 87, 86],
        [114, 183, 178],
        [178, 121, 162],
        [238, 202, 59],
        [157, 117, 93],
    ],
    np.uint8,
)
"""Of the classes of a segmentation, in turn."""


def thumbnail(image: EncodedImage, edge: int, damaged: str = "error") -> str:
    """An image, upright, in sRGB, at most ``edge`` pixels high and wide; never enlarged.

    Raises:
        DecodeError: it is damaged, and ``damaged`` is not ``"accept"``.
    """
    values, _ = image.decode(image.cut(_inside(image.size, edge)), icc="srgb", damaged=damaged)
    return webp(values.permute(1, 2, 0).numpy())


def video_still(data: Data, edge: int, at: float | None) -> str:
    """A frame of a video, at most ``edge`` pixels high and wide: that at a time, or in the middle.

    Raises:
        DecodeError: it is damaged.
    """
    return webp(still(data, lambda size: _inside(size, edge), at).permute(1, 2, 0).numpy())


def layer(name: str, image: EncodedImage, edge: int, damaged: str = "error") -> str:
    """An image of a sample that is laid over its main image: labels in colour and clear where they are 0, others as
    they are.
    """
    if not is_mask(name):
        return thumbnail(image, edge, damaged)
    cut = image.cut(_inside(image.size, edge), None)
    values, _ = image.decode(cut, interpolation="nearest", labels=True)
    return webp(_coloured(name, values))


def webp(pixels: np.ndarray) -> str:
    """Pixels, height x width x 3 or 4, as base64 of a WebP."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "WEBP", quality=_QUALITY, method=2)
    return base64.b64encode(file.getvalue()).decode()


def _inside(size: Size, edge: int) -> Geometry:
    least = min(edge, max(size))
    return contained(size, (least, least))


def _coloured(name: str, labels: torch.Tensor) -> np.ndarray:
    """Labels, channels x height x width, as height x width x 4. A mask is as strong as its value; classes have a colour
    each.
    """
    values = labels.permute(1, 2, 0).numpy()
    values = values.max(2) if values.shape[2] == 3 and "mask" in name.lower().split(".") else values
    if values.ndim == 3 and values.shape[2] == 3:  # classes as colours
        return np.dstack([values.astype(np.uint8), np.where(values.any(2), 255, 0).astype(np.uint8)])
    values = values.reshape(values.shape[:2])
    if "mask" in name.lower().split("."):
        strength = (values * (255.0 / max(1, int(values.max())))).astype(np.uint8)
        return np.dstack([np.full((*values.shape, 3), _OF_MASK, np.uint8), strength])
    colours = _OF_CLASSES[(values.astype(np.int64) - 1) % len(_OF_CLASSES)]
    return np.dstack([colours, np.where(values > 0, 255, 0).astype(np.uint8)])
