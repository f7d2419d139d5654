"""The reference path: Pillow decodes every format, and says what the fast path must agree with."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from streampipe.counters import counters
from streampipe.decoding.header import ImageHeader, orientation_of
from streampipe.errors import DecodeError

_Colour = tuple[int, int, int]


class Pixels(NamedTuple):
    """A decoded image at full size: height x width x 3, and its alpha channel (height x width x 1) if it has one."""

    rgb: np.ndarray
    alpha: np.ndarray | None


def open_pillow(data: bytes | memoryview, kind: str) -> Image.Image:
    """An image of a format, its header read and no pixel decoded."""
    try:
        return Image.open(io.BytesIO(data), formats=(kind,))
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error, its bomb error, ...
        raise _damaged(data, kind, error) from error


def pillow_header(image: Image.Image, data: bytes | memoryview, kind: str) -> ImageHeader:
    """The header of an opened image. Where texts in a PNG must be searched for the orientation, pixels are decoded."""
    try:
        return ImageHeader(kind, image.width, image.height, orientation_of(image))
    except Exception as error:
        raise _damaged(data, kind, error) from error


def load_pillow(image: Image.Image, data: bytes | memoryview, kind: str, background: _Colour) -> Pixels:
    """All pixels of the first frame of an opened image."""
    try:
        image.load()
        pixels = to_rgb(image, background)
        if _is_animated(image):
            counters.add("decode", "animations, first frame taken")
        return pixels
    except Exception as error:
        raise _damaged(data, kind, error) from error


def _is_animated(image: Image.Image) -> bool:
    """Whether there are more frames; they may be damaged, which does not concern the first one."""
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:
        return False


def to_rgb(image: Image.Image, background: _Colour) -> Pixels:
    """The frame in RGB: 16 bits scaled to 8, transparency composited on ``background``."""
    if image.mode.startswith("I"):  # 16 bits: Pillow's own conversion clips them to white
        grey = (np.asarray(image).astype(np.int64).clip(0, 65535) + 128) // 257
        return Pixels(np.repeat(grey.astype(np.uint8)[..., None], 3, 2), None)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        under = Image.new("RGBA", rgba.size, (*background, 255))
        alpha = np.array(rgba.getchannel("A"))[..., None]
        return Pixels(np.array(Image.alpha_composite(under, rgba).convert("RGB")), alpha)
    return Pixels(np.array(image if image.mode == "RGB" else image.convert("RGB")), None)


def _damaged(data: bytes | memoryview, kind: str, error: Exception) -> DecodeError:
    return DecodeError(f"the {kind} image of {len(data)} bytes cannot be decoded ({error})")
