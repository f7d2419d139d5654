"""What is done to images on their way into a shard, where that is asked for; all others keep their bytes.

An image that is changed is turned upright (unless that is to be kept), keeps its colour profile (unless sRGB is
wanted), and loses its other metadata. Masks are never blended nor compressed with a loss. 16 bits become 8 as
``decode`` scales them, unless a PNG keeps them. Of an animation the first frame is left, which is told. The size that
an image had goes into its sample's json, where ``decode`` finds it.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from streampipe.decoding import MAX_PIXELS, ImageHeader, probe
from streampipe.decoding.fields import ALL_IMAGES, is_mask, main_image
from streampipe.decoding.icc import UNUSABLE, conversion, to_srgb
from streampipe.decoding.pillow import check_range, is_animated, of_16_bits, open_pillow
from streampipe.errors import ConfigError, DecodeError

FORMATS = {"jpg": "JPEG", "webp": "WEBP", "png": "PNG"}
Size = tuple[int, int]
_ORIENTATION = 0x0112  # of EXIF
_WHITE = (255, 255, 255)
_COLOURS = {"RGBA": "RGB", "LA": "L", "P": "RGB", "PA": "RGB"}  # what their colours are without transparency
_SUFFIXES = {kind: suffix for suffix, kind in FORMATS.items()}


QUALITY = 92


@dataclass(frozen=True)
class Change:
    """How images are changed.

    Args:
        resize: pixels of the shorter edge, at most; smaller images are not enlarged.
        max_pixels: pixels of an image, at most.
        format: ``"jpg"``, ``"webp"`` or ``"png"``, what images become that are of another format.
        quality: of JPEG and WebP.
        orientation: of images whose orientation only EXIF says: ``"bake"`` turns all, ``"auto"`` those that are changed
            anyway, ``"keep"`` none: what is changed says it in EXIF again.
        srgb: bring colours of another profile to sRGB.
    """

    resize: int | None = None
    max_pixels: int | None = None
    format: str | None = None
    quality: int = QUALITY
    orientation: str = "auto"
    srgb: bool = False

    def __post_init__(self) -> None:
        for name in ("resize", "max_pixels"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is a number of pixels of 1 or more, not {value}")
        if self.format is not None and self.format not in FORMATS:
            raise ConfigError(f"format is one of {', '.join(FORMATS)}, not {self.format!r}")
        if self.orientation not in ("auto", "bake", "keep"):
            raise ConfigError(f"orientation is 'auto', 'bake' or 'keep', not {self.orientation!r}")
        if not 1 <= self.quality <= 100:
            raise ConfigError(f"quality is 1 to 100, not {self.quality}")
        if self.quality != QUALITY and not self:
            raise ConfigError(
                f"quality={self.quality} is of images that are made anew, and none would be: say format=, resize=, "
                f"max_pixels=, srgb= or orientation='bake' too"
            )

    def __bool__(self) -> bool:
        return bool(self.resize or self.max_pixels or self.format or self.orientation == "bake" or self.srgb)

    def apply(self, fields: dict[str, bytes], still: Callable[[str], object] = lambda name: None) -> dict[str, bytes]:
        """The fields of a sample, its images changed. ``still`` hears of those of which one frame of several is left.

        Raises:
            DecodeError: an image is damaged, or has more pixels than are decoded.
        """
        images = [name for name in fields if name.rpartition(".")[2] in ALL_IMAGES]
        if not images:
            return fields
        result = {name: data for name, data in fields.items() if name not in images}
        for name in images:
            header = probe(fields[name])
            new_name, data = self._one(name, fields[name], header, still)
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

    def _one(self, name: str, data: bytes, header: ImageHeader, still: Callable[[str], object]) -> tuple[str, bytes]:
        size, mask = self._size(header), is_mask(name)
        wanted = FORMATS[self.format] if self.format is not None and not mask else header.format
        resized = size != (header.height, header.width)
        turned = self.orientation == "bake" and header.orientation != 1
        coloured = self.srgb and not mask and _other_colours(data, header.format)
        if not resized and wanted == header.format and not turned and not coloured:
            return name, data
        if header.width * header.height > MAX_PIXELS:
            raise DecodeError(
                f"it has {header.width} x {header.height} pixels, more than the {MAX_PIXELS} of a sound image"
            )
        if mask or wanted not in _SUFFIXES:
            wanted = "PNG"
        try:
            with open_pillow(header.format.lower(), data) as opened:
                kept = self.orientation == "keep" and header.orientation
                to = (size[::-1] if kept and header.orientation > 4 else size) if resized else None
                image, profile = _changed(opened, to, mask, wanted, not kept, self.srgb)
                if header.format != "JPEG" and is_animated(opened):  # a JPEG's others are views of the same
                    still(name)
                data = _encoded(image, wanted, self.quality, profile, kept or 1)
        except (ConfigError, DecodeError):
            raise
        except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, its bomb error, ...
            raise DecodeError(f"its {header.format} image cannot be decoded ({error})") from error
        before, dot, suffix = name.rpartition(".")
        return f"{before}{dot}{suffix if wanted == header.format else _SUFFIXES[wanted]}", data


def _changed(
    image: Image.Image, size: Size | None, mask: bool, wanted: str, turn: bool, srgb: bool
) -> tuple[Image.Image, bytes | None]:
    """The image, turned and of the wanted size and mode, and its colour profile."""
    if size is not None and image.format == "JPEG" and not mask:
        image.draft(image.mode, (max(size), max(size)))  # decoded at the smallest scale that suffices either way round
    image.load()
    profile = image.info.get("icc_profile")
    turned = ImageOps.exif_transpose(image) if turn else image
    if not mask:
        check_range(turned)
        if turned.mode.startswith("I") and (wanted != "PNG" or "transparency" in turned.info):
            turned = _in_8_bits(turned)
        if srgb and profile is not None and _is_other(profile, turned.mode):
            turned, profile = _in_srgb(turned, profile), None
        if turned.mode in ("P", "PA", "LA", "1", "CMYK", "YCbCr", "HSV", "LAB") or "transparency" in turned.info:
            opaque = "A" not in turned.mode and "transparency" not in turned.info
            turned = turned.convert("RGB" if opaque else "RGBA")
        if wanted == "JPEG" and turned.mode not in ("L", "RGB"):
            turned = _opaque(turned)
    if size is None:
        return turned, profile
    sharp = mask or turned.mode.startswith(("I", "F"))
    how = Image.Resampling.NEAREST if sharp else Image.Resampling.LANCZOS
    return turned.resize((size[1], size[0]), how), profile


def _other_colours(data: bytes, kind: str) -> bool:
    """Whether an image has a profile that is not sRGB, and that can be used."""
    try:
        with open_pillow(kind.lower(), data) as opened:
            profile = opened.info.get("icc_profile")
            return profile is not None and _is_other(profile, opened.mode)
    except Exception:  # who decodes it says what is wrong
        return False


def _is_other(profile: bytes, mode: str) -> bool:
    """Whether a profile is one of other colours than sRGB that images of a mode can have."""
    return conversion(profile, _COLOURS.get(mode, mode)) not in (None, UNUSABLE)


def _in_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """An image in sRGB: the colours of a palette as those of pixels, transparency as it was."""
    if image.mode in ("P", "PA") or "transparency" in image.info:
        image = image.convert("RGBA" if "A" in image.mode or "transparency" in image.info else "RGB")
    alpha = image.getchannel("A") if image.mode in ("RGBA", "LA") else None
    converted, _ = to_srgb(image if alpha is None else image.convert(_COLOURS[image.mode]), profile)
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


def _in_8_bits(image: Image.Image) -> Image.Image:
    """An image of 16 bits as ``decode`` has it; Pillow's own conversions clip, to white mostly."""
    pixels = of_16_bits(image, _WHITE)
    if pixels.alpha is None:
        return Image.fromarray(pixels.values[..., 0])
    return Image.fromarray(np.concatenate([pixels.values, pixels.alpha], -1))


def _opaque(image: Image.Image) -> Image.Image:
    """Transparent pixels on white, as ``decode`` has them."""
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, (*_WHITE, 255)), rgba).convert("RGB")


def _encoded(image: Image.Image, kind: str, quality: int, profile: bytes | None, orientation: int) -> bytes:
    options: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": quality, "subsampling": 0},
        "WEBP": {"quality": quality, "method": 4},
        "PNG": {"compress_level": 6},
    }
    file = io.BytesIO()
    if orientation != 1:
        exif = Image.Exif()
        exif[_ORIENTATION] = orientation
        options[kind]["exif"] = exif
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
