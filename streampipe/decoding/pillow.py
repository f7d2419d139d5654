"""The reference path: Pillow decodes every format, and says what the fast path must agree with."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

from streampipe.counters import counters
from streampipe.decoding.geometry import Cut, extent
from streampipe.decoding.header import ImageHeader, orientation_of
from streampipe.decoding.resize import pillow_resize, turn
from streampipe.errors import DecodeError

_Colour = tuple[int, int, int]


def decode_pillow(
    data: bytes | memoryview,
    kind: str,
    max_pixels: int,
    background: _Colour,
    interpolation: str,
    plan: Callable[[ImageHeader], Cut],
) -> torch.Tensor:
    """The cut of an image, as ``plan`` decides it from the header: uint8, 3 x height x width."""
    try:
        with Image.open(io.BytesIO(data), formats=(kind,)) as image:
            header = ImageHeader(kind, image.width, image.height, orientation_of(image))
            check_pixels(header, max_pixels)
            image.load()
            rgb = to_rgb(image, background)
            if _is_animated(image):
                counters.add("decode", "animations, first frame taken")
    except DecodeError:
        raise
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error, its bomb error, ...
        raise DecodeError(f"the {kind} image of {len(data)} bytes cannot be decoded ({error})") from error
    cut = plan(header)
    right = cut.left + extent(cut.left, cut.width, rgb.width)
    bottom = cut.top + extent(cut.top, cut.height, rgb.height)
    if (cut.left, cut.top, right, bottom) != (0, 0, rgb.width, rgb.height):
        rgb = rgb.crop((cut.left, cut.top, right, bottom))
    pixels = pillow_resize(rgb, cut.width, cut.height, (cut.out_height, cut.out_width), interpolation)
    return turn(torch.from_numpy(pixels).permute(2, 0, 1), cut.orientation)


def _is_animated(image: Image.Image) -> bool:
    """Whether there are more frames; they may be damaged, which does not concern the first one."""
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:
        return False


def check_pixels(header: ImageHeader, max_pixels: int) -> None:
    """Refuse an image that is too large by its header."""
    if header.width * header.height > max_pixels:
        raise DecodeError(
            f"the {header.format} image has {header.width} x {header.height} pixels (at most {max_pixels} allowed); "
            f"raise max_pixels if it is meant"
        )


def to_rgb(image: Image.Image, background: _Colour) -> Image.Image:
    """The first frame in RGB: 16 bits scaled to 8, transparency composited on ``background``."""
    if image.mode.startswith("I"):  # 16 bits: Pillow's own conversion clips them to white
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        under = Image.new("RGBA", rgba.size, (*background, 255))
        return Image.alpha_composite(under, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
