"""Arrays that have a value for each pixel, and are no images: their image may not be cut without them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from streampipe.decoding import Size, is_mask
from streampipe.errors import DecodeError


def check_left(fields: Mapping[str, Any], size: Size, advice: str, every: bool = False) -> None:
    """Refuse labels of a picture's (height, width) that would stay as they are while the picture is cut: of each pixel
    they would say what another one is, and where only a flip makes the difference nobody would see it.

    Args:
        fields: those of a sample that are not cut.
        advice: what to do; ``NAME`` in it is the field's name.
        every: whatever their names are.

    Raises:
        DecodeError: a field (named ``mask``, ``masklabel`` or ``seg``) is an array or tensor of that size.

    >>> check_left({"seg.npy": np.zeros((4, 6), bool)}, (4, 6), "leave it out")
    Traceback (most recent call last):
        ...
    streampipe.errors.DecodeError: field 'seg.npy': it is of the image's size (bool, 4 x 6), and not cut with it; ...
    """
    for name, value in fields.items():
        if isinstance(value, (np.ndarray, torch.Tensor)) and (every or is_mask(name)) and _is_of(size, value):
            kind, shape = str(value.dtype).removeprefix("torch."), " x ".join(map(str, value.shape))
            raise DecodeError(
                f"field {name!r}: it is of the image's size ({kind}, {shape}), and not cut with it; "
                f"{advice.replace('NAME', name)}"
            )


def _is_of(size: Size, value: Any) -> bool:
    """Whether an array has a value for each pixel: height x width, channels in front or behind."""
    shape = tuple(value.shape)
    return len(shape) >= 2 and size in (shape[-2:], shape[:2])
