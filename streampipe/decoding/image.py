"""``decode_image``: one image, by content, straight to its size."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from streampipe.decoding.geometry import Cut, cover, whole
from streampipe.decoding.header import ImageHeader, jpeg_header
from streampipe.decoding.jpeg import decode_jpeg
from streampipe.decoding.pillow import check_pixels, decode_pillow
from streampipe.decoding.sniff import sniff
from streampipe.errors import DecodeError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF")
MARGIN = 1.5
"""How many times larger than the target a JPEG decoded at a smaller scale must stay. Chosen by measurement: see
docs/performance.md."""


def decode_image(
    data: bytes | memoryview,
    *,
    size: tuple[int, int] | None = None,
    crop: tuple[float, float] = (0.5, 0.5),
    output: str = "tensor",
    background: tuple[int, int, int] = (255, 255, 255),
    max_pixels: int = 64_000_000,
    margin: float | None = MARGIN,
    interpolation: str = "bicubic",
    formats: tuple[str, ...] = FORMATS,
    out: torch.Tensor | None = None,
    fast: bool = True,
) -> Any:
    """An image as uint8 tensor (3 x height x width, RGB, channels-last memory), or as numpy array or PIL image.

    With ``size`` (height, width) the image is scaled to cover it and cropped at ``crop`` (x, y in [0, 1]; the centre by
    default). EXIF orientation is applied; the first frame of an animation is taken; 16 bits become 8; transparency is
    composited on ``background``. JPEGs take a fast path that decodes at a smaller scale; it agrees with the Pillow path
    (``fast=False``) to 40 dB PSNR or better on photos, and to 3 levels with ``margin=None``. ``out`` is where to
    write the pixels: uint8, 3 x height x width.

    Raises:
        DecodeError: damaged, of no allowed format, or larger than ``max_pixels``; never a part of an image.

    >>> import io
    >>> file = io.BytesIO()
    >>> Image.new("RGB", (60, 40), (200, 0, 0)).save(file, "PNG")
    >>> decode_image(file.getvalue(), size=(8, 8))[:, 0, 0]
    tensor([200,   0,   0], dtype=torch.uint8)
    """
    kind = sniff(data)
    if kind is None or kind not in formats:
        raise DecodeError(
            f"{len(data)} bytes that begin {bytes(data[:8])!r} are no image of the formats {', '.join(formats)}"
        )

    def plan(header: ImageHeader) -> Cut:
        stored = header.stored_width, header.stored_height, header.orientation
        scaled = margin if header.format == "JPEG" and header.channels in (1, 3) else None
        return whole(*stored) if size is None else cover(*stored, size, crop, scaled)

    image: torch.Tensor | None = None
    header = jpeg_header(data) if kind == "JPEG" else None
    if header is not None:
        check_pixels(header, max_pixels)
        if fast and header.channels in (1, 3):
            try:
                image = decode_jpeg(data, header, plan(header), interpolation, out)
            except ValueError:  # the strict codec stumbles over harmless extras too: Pillow decides
                image = None
    if image is None:
        image = decode_pillow(data, kind, max_pixels, background, interpolation, plan)
        image = out.copy_(image) if out is not None else image
    if output == "tensor":
        return image
    pixels = image.permute(1, 2, 0).contiguous().numpy()
    return pixels if output == "numpy" else Image.fromarray(pixels)
