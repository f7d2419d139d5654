"""What is done to images on their way into a shard, where that is asked for; all others keep their bytes.

An image that is changed is turned upright, keeps its colour profile, and loses its other metadata. Masks are never
blended nor compressed with a loss. The size that an image had goes into its sample's json, where ``decode`` finds it.
"""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageOps

from streampipe.decoding import MAX_PIXELS, ImageHeader, probe
from streampipe.decoding.fields import IMAGES, is_mask, main_image
from streampipe.errors import ConfigError, DecodeError

FORMATS = {"jpg": "JPEG", "webp": "WEBP", "png": "PNG"}
_SUFFIXES = {kind: suffix for suffix, kind in FORMATS.items()}


@dataclass(frozen=True)
class Change:
    """How images are changed.

    Args:
        resize: pixels of the shorter edge, at most; smaller images are not enlarged.
        max_pixels: pixels of an image, at most.
        format: ``"jpg"``, ``"webp"`` or ``"png"``, what images become that are of another format.
        quality: of JPEG and WebP.
        upright: images whose orientation only EXIF says are turned.
    """

    resize: int | None = None
    max_pixels: int | None = None
    format: str | None = None
    quality: int = 92
    upright: bool = False

    def __post_init__(self) -> None:
        for name in ("resize", "max_pixels"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is a number of pixels of 1 or more, not {value}")
        if self.format is not None and self.format not in FORMATS:
            raise ConfigError(f"format is one of {', '.join(FORMATS)}, not {self.format!r}")
        if not 1 <= self.quality <= 100:
            raise ConfigError(f"quality is 1 to 100, not {self.quality}")

    def __bool__(self) -> bool:
        return bool(self.resize or self.max_pixels or self.format or self.upright)

    def apply(self, fields: dict[str, bytes]) -> dict[str, bytes]:
        """The fields of a sample, its images changed.

        Raises:
            DecodeError: an image is damaged, or has more pixels than are decoded.
        """
        images = [name for name in fields if name.rpartition(".")[2] in IMAGES]
        if not images:
            return fields
        result = {name: data for name, data in fields.items() if name not in images}
        for name in images:
            header = probe(fields[name])
            new_name, data = self._one(name, fields[name], header)
            if new_name in result:
                raise DecodeError(f"two images would become field {new_name!r}")
            result[new_name] = data
            if name == main_image(images) and self._size(header) != (header.height, header.width):
                result = _with_size(result, header)
        return result

    def _size(self, header: ImageHeader) -> tuple[int, int]:
        """The (height, width) that an image gets."""
        scale = 1.0
        if self.resize is not None:
            scale = min(scale, self.resize / min(header.height, header.width))
        if self.max_pixels is not None:
            scale = min(scale, math.sqrt(self.max_pixels / (header.height * header.width)))
        return max(1, round(header.height * scale)), max(1, round(header.width * scale))

    def _one(self, name: str, data: bytes, header: ImageHeader) -> tuple[str, bytes]:
        size, mask = self._size(header), is_mask(name)
        wanted = FORMATS[self.format] if self.format is not None and not mask else header.format
        resized = size != (header.height, header.width)
        if not resized and wanted == header.format and not (self.upright and header.orientation != 1):
            return name, data
        if header.width * header.height > MAX_PIXELS:
            raise DecodeError(
                f"it has {header.width} x {header.height} pixels, more than the {MAX_PIXELS} of a sound image"
            )
        if mask or wanted not in _SUFFIXES:
            wanted = "PNG"
        with io.BytesIO(data) as file:
            try:
                with Image.open(file, formats=(header.format,)) as opened:
                    image = _changed(opened, size if resized else None, mask, wanted)
                    data = _encoded(image, wanted, self.quality, opened.info.get("icc_profile"))
            except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, its bomb error, ...
                raise DecodeError(f"its {header.format} image cannot be decoded ({error})") from error
        before, dot, suffix = name.rpartition(".")
        return f"{before}{dot}{suffix if wanted == header.format else _SUFFIXES[wanted]}", data


def _changed(image: Image.Image, size: tuple[int, int] | None, mask: bool, wanted: str) -> Image.Image:
    if size is not None and image.format == "JPEG" and not mask:
        image.draft(image.mode, (max(size), max(size)))  # decoded at the smallest scale that suffices either way round
    image.load()
    turned = ImageOps.exif_transpose(image)
    if not mask:
        if turned.mode in ("P", "PA", "LA", "1", "CMYK", "YCbCr", "HSV", "LAB") or "transparency" in turned.info:
            opaque = "A" not in turned.mode and "transparency" not in turned.info
            turned = turned.convert("RGB" if opaque else "RGBA")
        if wanted == "JPEG" and turned.mode not in ("L", "RGB"):
            turned = _opaque(turned)
    if size is None:
        return turned
    sharp = mask or turned.mode.startswith(("I", "F"))
    return turned.resize((size[1], size[0]), Image.Resampling.NEAREST if sharp else Image.Resampling.LANCZOS)


def _opaque(image: Image.Image) -> Image.Image:
    """Transparent pixels on white, as ``decode`` has them."""
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba).convert("RGB")


def _encoded(image: Image.Image, kind: str, quality: int, profile: bytes | None) -> bytes:
    options: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": quality, "subsampling": 0},
        "WEBP": {"quality": quality, "method": 4},
        "PNG": {"compress_level": 6},
    }
    file = io.BytesIO()
    image.save(file, kind, icc_profile=profile, **options[kind])
    return file.getvalue()


def _with_size(fields: dict[str, bytes], header: ImageHeader) -> dict[str, bytes]:
    """With the size that the main image had in the json, unless it says one."""
    try:
        facts = json.loads(fields.get("json", b"{}"))
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        return fields
    facts.setdefault("original_width", header.width)
    facts.setdefault("original_height", header.height)
    return {**fields, "json": json.dumps(facts, ensure_ascii=False).encode()}
