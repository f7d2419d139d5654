"""Bytes of an image to 512 x 512: Pillow's usual way, and streampipe's decoder, as functions for any loader."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image, ImageOps

from streampipe.decoding import decode_image

SIZE = 512


def pillow_fit(data: bytes) -> torch.Tensor:
    """Pillow's usual way."""
    image = ImageOps.fit(Image.open(io.BytesIO(data)).convert("RGB"), (SIZE, SIZE), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def our_decode(data: bytes) -> torch.Tensor:
    """streampipe's decoder as a plain function."""
    return decode_image(data, size=(SIZE, SIZE))
