"""Colours by their ICC profile, brought to sRGB by LittleCMS, through Pillow."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

LARGEST = 4 << 20
"""Bytes of a profile; printers' profiles are the largest, with 2 MB."""
UNUSABLE = "ICC profiles that cannot be used"
_SAME = 2  # levels: a profile that changes no colour by more is sRGB, whatever it is called
_MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab ": "LAB"}


@lru_cache(maxsize=32)
def conversion(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | str | None:
    """From the profile's colours in a Pillow mode to sRGB. None: the profile is sRGB; a text: it cannot be used."""
    try:
        if len(profile) > LARGEST:
            return UNUSABLE
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if _MODES.get(source.profile.xcolor_space) != mode:
            return UNUSABLE
        found = ImageCms.buildTransform(
            source, ImageCms.createProfile("sRGB"), mode, "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC
        )
        return None if mode == "RGB" and _changes_little(found) else found
    except Exception:  # PyCMSError, OSError, ValueError, ...: a profile never refuses an image
        return UNUSABLE


def to_srgb(image: Image.Image, profile: bytes) -> tuple[Image.Image, tuple[str, ...]]:
    """An image in sRGB, mode RGB, and what is to be counted; as it was where the profile is sRGB or of no use.

    A profile of greys is of use to an RGB image that has nothing else: codecs make such of files of one channel.
    """
    found = conversion(profile, image.mode)
    if isinstance(found, str) and image.mode == "RGB":
        of_greys = conversion(profile, "L")
        if not isinstance(of_greys, str) and _is_grey(image):
            image, found = image.getchannel("R"), of_greys
    if found is None or isinstance(found, str):
        return image, () if found is None else (found,)
    return ImageCms.applyTransform(image, found) or image, ("converted to sRGB",)


def array_to_srgb(rgb: np.ndarray, profile: bytes) -> tuple[np.ndarray, tuple[str, ...]]:
    """The same for height x width x 3 pixels."""
    if conversion(profile, "RGB") is None:
        return rgb, ()
    image = Image.fromarray(rgb)
    converted, notes = to_srgb(image, profile)
    return rgb if converted is image else np.array(converted), notes


def _is_grey(image: Image.Image) -> bool:
    rgb = np.asarray(image)
    return bool((rgb == rgb[..., :1]).all())


def _changes_little(found: ImageCms.ImageCmsTransform) -> bool:
    levels = np.linspace(0, 255, 9).astype(np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(27, 27, 3)
    changed = np.asarray(ImageCms.applyTransform(Image.fromarray(cube), found))
    return bool(np.abs(changed.astype(int) - cube).max() <= _SAME)
