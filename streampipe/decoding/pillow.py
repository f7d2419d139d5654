"""Pillow: it decodes every format but fast JPEGs, and says what the fast path must agree with.

Its plugins are called one by one, never by what Pillow finds in the bytes: so no parser is reached that was not asked
for, and the limit on pixels is the caller's, not Pillow's global one.
"""

from __future__ import annotations

import io
from functools import lru_cache
from importlib import import_module
from types import FunctionType
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from streampipe.decoding.codec import Colour, Data, ImageHeader, Pixels, Wanted
from streampipe.decoding.exif import orientation_of
from streampipe.decoding.icc import array_to_srgb, to_srgb
from streampipe.errors import ConfigError, DecodeError

ANIMATED = "animations, first frame taken"
_STRIP = 1 << 22  # pixels that are converted at once: what is in between is a multiple of it, not of the image
_NO_RANGE = "which have no known range; register a decoder that scales them: decode(decoders={'tiff': my_function})"
_PLUGINS = {
    "jpeg": ("PIL.JpegImagePlugin", "JpegImageFile", ""),
    "png": ("PIL.PngImagePlugin", "PngImageFile", ""),
    "webp": ("PIL.WebPImagePlugin", "WebPImageFile", ""),
    "gif": ("PIL.GifImagePlugin", "GifImageFile", ""),
    "avif": ("PIL.AvifImagePlugin", "AvifImageFile", ""),
    "bmp": ("PIL.BmpImagePlugin", "BmpImageFile", ""),
    "tiff": ("PIL.TiffImagePlugin", "TiffImageFile", ""),
    "jpeg2000": ("PIL.Jpeg2KImagePlugin", "Jpeg2KImageFile", ""),
    "heic": ("pillow_heif", "HeifImageFile", "heic"),
    "jxl": ("pillow_jxl.JpegXLImagePlugin", "JXLImageFile", "jxl"),
}


def open_pillow(name: str, data: Data) -> Any:
    """An image of a format, its header read and no pixel decoded.

    Raises:
        DecodeError: it is damaged.
        ConfigError: a package is missing; the message has the command that installs it.
    """
    module, plugin, extra = _PLUGINS[name]
    try:
        factory = getattr(import_module(module), plugin)
    except ImportError:
        what = f"'streampipe[{extra}]'" if extra else "--upgrade pillow"
        raise ConfigError(f"{name} images need one more package: pip install {what}") from None
    try:
        return _whole(factory)(io.BytesIO(data))
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error, its bomb error, ...
        raise damaged(name, data, error) from error


class _Whole(ImageFile.ImageFile):
    """What loads pixels, whole or not at all, also in programs that set ``ImageFile.LOAD_TRUNCATED_IMAGES``, as many
    training scripts do: Pillow then gives the rest of a damaged image in grey, without a word.

    It is Pillow's own function, which finds that variable switched off; nobody else's is changed.
    """

    load = FunctionType(
        ImageFile.ImageFile.load.__code__,
        {**ImageFile.ImageFile.load.__globals__, "LOAD_TRUNCATED_IMAGES": False},
        closure=ImageFile.ImageFile.load.__closure__,
    )


@lru_cache
def _whole(factory: type) -> type:
    """A plugin's class in front of that one, so that what it has of its own comes first."""
    own: dict[str, Any] = {}
    if factory.__name__ == "Jpeg2KImageFile":  # it calls the base's by its name
        own["load"] = _Whole.load
    elif factory.__name__ == "JpegImageFile":  # it asks the same variable, and ends a file that is cut off
        own["load_read"] = lambda image, size: image.fp.read(size)
    return type(factory.__name__, (factory, _Whole), {"__module__": factory.__module__, **own})


def pillow_header(name: str, data: Data) -> ImageHeader:
    """The header of an image by Pillow; but EXIF and XMP by ourselves: Pillow refuses what it cannot parse."""
    with open_pillow(name, data) as image:
        info = image.info
        exif, xmp = info.get("exif"), info.get("xmp") or info.get("XML:com.adobe.xmp")
        xmp = xmp.encode() if isinstance(xmp, str) else xmp
        return ImageHeader(name.upper(), image.height, image.width, orientation_of(exif, xmp))


def pillow_memory(header: ImageHeader, bytes_a_pixel: int) -> int:
    """Bytes that an image takes here at most: so many a pixel, and what a strip is converted in."""
    pixels = header.stored_width * header.stored_height
    return bytes_a_pixel * pixels + 16 * min(pixels, _STRIP)


def decode_pillow(name: str, data: Data, wanted: Wanted) -> Pixels:
    """All pixels of the first frame."""
    with open_pillow(name, data) as image:
        return load_pillow(name, image, data, wanted)


def load_pillow(name: str, image: Any, data: Data, wanted: Wanted) -> Pixels:
    """All pixels of the first frame of an opened image."""
    try:
        image.load()
        pixels = _labels(image) if wanted.labels else _picture(image, wanted)
    except DecodeError:
        raise
    except Exception as error:
        raise damaged(name, data, error) from error
    return pixels._replace(notes=(*pixels.notes, ANIMATED)) if is_animated(image) else pixels


def damaged(name: str, data: Data, error: Exception) -> DecodeError:
    """What Pillow raised, as an error that says of what."""
    return DecodeError(f"the {name.upper()} image of {len(data)} bytes cannot be decoded ({error})")


def is_animated(image: Any) -> bool:
    """Whether there are more frames; they may be damaged, which does not concern the first one."""
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:
        return False


def _picture(image: Image.Image, wanted: Wanted) -> Pixels:
    """The frame in RGB: 16 bits scaled to 8, colours by the profile, transparency composited."""
    profile = image.info.get("icc_profile") if wanted.icc == "srgb" else None
    if image.mode.startswith("I"):  # Pillow's own conversion clips them to white
        return of_16_bits(image, wanted.background, profile)
    check_range(image)
    if has_alpha(image):
        return _composited(image, wanted.background, profile)
    rgb = np.empty((image.height, image.width, 3), np.uint8)
    notes: tuple[str, ...] = ()
    for rows, strip in _strips(image):
        if profile and image.mode != "RGB":  # palettes' profiles are of RGB
            strip = strip.convert("RGB") if image.mode in ("P", "1") else strip
            strip, notes = to_srgb(strip, profile)
        rgb[rows] = np.asarray(strip if strip.mode == "RGB" else strip.convert("RGB"))
    return Pixels(rgb, None, profile if image.mode == "RGB" else None, notes)


def check_range(image: Image.Image) -> None:
    """Refuse pixels of no known range.

    Raises:
        DecodeError: they are floating-point numbers.
    """
    if image.mode == "F":
        raise DecodeError(f"its pixels are floating-point numbers, {_NO_RANGE}")


def has_alpha(image: Image.Image) -> bool:
    """Whether some of an image's pixels may be transparent."""
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info


def _composited(image: Image.Image, background: Colour, profile: bytes | None) -> Pixels:
    rgb = np.empty((image.height, image.width, 3), np.uint8)
    alpha = np.empty((image.height, image.width, 1), np.uint8)
    notes: tuple[str, ...] = ()
    for rows, strip in _strips(image):
        strip = strip.convert("RGBA")
        opacity = strip.getchannel("A")
        if profile:
            colours, notes = to_srgb(strip.convert("RGB"), profile)
            strip = Image.merge("RGBA", (*colours.split(), opacity))
        under = Image.new("RGBA", strip.size, (*background, 255))
        rgb[rows] = np.asarray(Image.alpha_composite(under, strip).convert("RGB"))
        alpha[rows] = np.asarray(opacity)[..., None]
    return Pixels(rgb, alpha, None, notes)


def of_16_bits(image: Image.Image, background: Colour, profile: bytes | None = None) -> Pixels:
    """An image of 16 bits, in RGB: scaled to 8, in sRGB, its transparent colour replaced by the background.

    Raises:
        DecodeError: it has more bits, and uses them.
    """
    rgb = np.empty((image.height, image.width, 3), np.uint8)
    clear = image.info.get("transparency")
    alpha = None if not isinstance(clear, int) else np.empty((image.height, image.width, 1), np.uint8)
    notes: tuple[str, ...] = ()
    for rows, strip in _strips(image):
        stored = np.asarray(strip)
        if image.mode == "I" and not (stored.min() >= 0 and stored.max() < 1 << 16):
            raise DecodeError(f"its pixels are whole numbers from {stored.min()} to {stored.max()}, {_NO_RANGE}")
        rgb[rows] = ((stored.astype(np.int64) + 128) // 257)[..., None]
        if profile:
            rgb[rows], notes = array_to_srgb(rgb[rows], profile)
        if alpha is not None:
            alpha[rows] = np.where(stored == clear, 0, 255)[..., None]
            rgb[rows][stored == clear] = background
    return Pixels(rgb, alpha, None, notes)


def _labels(image: Image.Image) -> Pixels:
    """The frame's values as they are stored. Of a palette its colours: greys are one channel, others are three."""
    if image.mode in ("1", "L"):
        return Pixels(np.array(image.convert("L"))[..., None])
    if image.mode.startswith("I"):
        return Pixels(np.array(image).astype(np.int32)[..., None])
    alpha = None
    if has_alpha(image):  # what is not there is no label: 0
        alpha = np.array(image.convert("RGBA").getchannel("A"))[..., None]
    rgb = np.array(image.convert("RGBA").convert("RGB") if alpha is not None else image.convert("RGB"))
    if alpha is not None:
        rgb[alpha[..., 0] == 0] = 0
    grey = image.mode in ("LA", "La") or (image.mode in ("P", "PA") and _is_of_greys(image))
    return Pixels(np.ascontiguousarray(rgb[..., :1]) if grey else rgb, alpha)


def _is_of_greys(image: Image.Image) -> bool:
    """Whether a palette has greys alone. Its pixels are not asked: a file of one class would have fewer channels than
    others of its dataset.
    """
    colours = np.array(image.getpalette() or (0, 0, 0)).reshape(-1, 3)
    return bool((colours == colours[:, :1]).all())


def _strips(image: Image.Image) -> Any:
    """(rows, image) of strips from top to bottom."""
    step = max(1, _STRIP // image.width)
    if image.height <= step:
        yield slice(None), image
        return
    for top in range(0, image.height, step):
        bottom = min(image.height, top + step)
        yield slice(top, bottom), image.crop((0, top, image.width, bottom))
