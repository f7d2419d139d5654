"""One image, by content, straight to its size."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from streampipe.decoding.geometry import MARGIN, Cut, Geometry, decide, whole
from streampipe.decoding.header import ImageHeader, quick_header
from streampipe.decoding.jpeg import decode_jpeg
from streampipe.decoding.pillow import load_pillow, open_pillow, pillow_header
from streampipe.decoding.resize import resize
from streampipe.decoding.sniff import sniff
from streampipe.errors import DecodeError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF")
MAX_PIXELS = 64_000_000


class EncodedImage:
    """An image of which the header has been read, and no pixel yet. Live: for one image, never kept.

    Raises:
        DecodeError: damaged, of no allowed format, or larger than ``max_pixels``.
    """

    def __init__(
        self, data: bytes | memoryview, *, max_pixels: int = MAX_PIXELS, formats: tuple[str, ...] = FORMATS
    ) -> None:
        kind = sniff(data)
        if kind is None or kind not in formats:
            raise DecodeError(
                f"{len(data)} bytes that begin {bytes(data[:8])!r} are no image of the formats {', '.join(formats)}"
            )
        self._data = data
        self._kind = kind
        self._opened: Image.Image | None = None
        header = quick_header(data, kind)
        if header is None:
            self._opened = open_pillow(data, kind)
            _check_pixels(kind, *self._opened.size, max_pixels)
            header = pillow_header(self._opened, data, kind)
        _check_pixels(kind, header.width, header.height, max_pixels)
        self.header: ImageHeader = header

    def cut(self, geometry: Geometry | None, margin: float | None = MARGIN) -> Cut:
        """What a geometry (None: the whole image as it is) means for this file."""
        header = self.header
        stored = header.stored_width, header.stored_height, header.orientation
        return whole(*stored) if geometry is None else geometry.cut(*stored, margin if self._has_scales else None)

    @property
    def _has_scales(self) -> bool:
        """Whether the fast codec can decode this image, and at smaller scales too."""
        return self._kind == "JPEG" and self._opened is None and self.header.channels in (1, 3)

    def decode(
        self,
        cut: Cut,
        *,
        interpolation: str = "bicubic",
        background: tuple[int, int, int] = (255, 255, 255),
        alpha: str | None = None,
        out: torch.Tensor | None = None,
        fast: bool = True,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The cut as uint8, 3 x height x width, into ``out`` if given; and with ``alpha``, an interpolation, the alpha
        channel by that, 1 x height x width: 255 where the image has none.
        """
        if fast and self._has_scales:
            try:
                rgb = decode_jpeg(self._data, self.header, cut, interpolation, out)
                return rgb, None if alpha is None else _opaque(rgb)
            except ValueError:  # the strict codec stumbles over harmless extras too: Pillow decides
                pass
        image = self._opened or open_pillow(self._data, self._kind)
        with image:
            pixels = load_pillow(image, self._data, self._kind, background)
        full = cut.at_full_scale
        rgb = resize(pixels.rgb, full, interpolation, out, fast)
        if alpha is None or pixels.alpha is None:
            return rgb, None if alpha is None else _opaque(rgb)
        return rgb, resize(pixels.alpha, full, alpha, None, fast)


def decode_image(
    data: bytes | memoryview,
    *,
    size: tuple[int, int] | None = None,
    crop: tuple[float, float] = (0.5, 0.5),
    flip: bool = False,
    output: str = "tensor",
    background: tuple[int, int, int] = (255, 255, 255),
    max_pixels: int = MAX_PIXELS,
    margin: float | None = MARGIN,
    interpolation: str = "bicubic",
    formats: tuple[str, ...] = FORMATS,
    out: torch.Tensor | None = None,
    fast: bool = True,
) -> Any:
    """An image as uint8 tensor (3 x height x width, RGB, channels-last memory), or as numpy array or PIL image.

    With ``size`` (height, width) the image is scaled to cover it, cropped at ``crop`` ((top, left), each in [0, 1]; the
    centre by default) and, with ``flip``, mirrored. EXIF orientation is applied; the first frame of an animation is
    taken; 16 bits become 8; transparency is composited on ``background``. JPEGs take a fast path that decodes at a
    smaller scale; it agrees with the Pillow path (``fast=False``) to 40 dB PSNR or better on photos, and to 3 levels
    with ``margin=None``. ``out`` is where to write the pixels: uint8, 3 x height x width.

    Raises:
        DecodeError: damaged, of no allowed format, or larger than ``max_pixels``; never a part of an image.

    >>> import io
    >>> file = io.BytesIO()
    >>> Image.new("RGB", (60, 40), (200, 0, 0)).save(file, "PNG")
    >>> decode_image(file.getvalue(), size=(8, 8))[:, 0, 0]
    tensor([200,   0,   0], dtype=torch.uint8)
    """
    image = EncodedImage(data, max_pixels=max_pixels, formats=formats)
    shown = image.header.height, image.header.width
    geometry = None if size is None else decide(shown, size, crop, flip, margin)
    cut = image.cut(geometry, margin)
    return delivered(
        image.decode(cut, interpolation=interpolation, background=background, out=out, fast=fast)[0], output
    )


def delivered(image: torch.Tensor, output: str) -> Any:
    """An image as ``"tensor"``, ``"numpy"`` (height x width x channels) or ``"pil"``."""
    if output == "tensor":
        return image
    pixels = image.permute(1, 2, 0).contiguous().numpy()
    return pixels if output == "numpy" else Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def fit_image(image: Any, geometry: Geometry, interpolation: str) -> Any:
    """An image that was decoded at its own size, brought to a size; what it was it stays: tensor, numpy or PIL."""
    pixels = pixels_of(image)
    height, width = pixels.shape[:2]
    fitted = resize(pixels, geometry.cut(width, height), interpolation)
    if isinstance(image, torch.Tensor):
        return fitted
    if isinstance(image, Image.Image):
        return delivered(fitted, "pil")
    return delivered(fitted, "numpy").reshape(*geometry.target, *image.shape[2:])


def is_image(value: Any) -> bool:
    """Whether a value is a decoded image: a PIL image, a uint8 tensor (1 or 3 x height x width), or a uint8 array
    (height x width, or height x width x 1 or 3).
    """
    if isinstance(value, torch.Tensor):
        return value.dtype == torch.uint8 and value.dim() == 3 and value.shape[0] in (1, 3)
    if isinstance(value, np.ndarray):
        return value.dtype == np.uint8 and (value.ndim == 2 or (value.ndim == 3 and value.shape[2] in (1, 3)))
    return isinstance(value, Image.Image)


def pixels_of(image: Any) -> np.ndarray:
    """A decoded image's pixels, height x width x channels, contiguous: torch's resize mixes up other layouts."""
    if isinstance(image, torch.Tensor):
        return np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    if isinstance(image, Image.Image):
        image = np.array(image if image.mode in ("L", "RGB") else image.convert("RGB"))
    return np.require(image.reshape(*image.shape[:2], -1), requirements=["C", "W"])


def size_of(image: Any) -> tuple[int, int]:
    """(height, width) of a decoded image."""
    if isinstance(image, torch.Tensor):
        return image.shape[1], image.shape[2]
    return (image.height, image.width) if isinstance(image, Image.Image) else image.shape[:2]


def _opaque(rgb: torch.Tensor) -> torch.Tensor:
    return torch.full((1, *rgb.shape[1:]), 255, dtype=torch.uint8)


def _check_pixels(kind: str, width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise DecodeError(
            f"the {kind} image has {width} x {height} pixels (at most {max_pixels} allowed); raise max_pixels if it is "
            f"meant"
        )
