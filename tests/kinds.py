"""Small images of every kind that a format has, made by Pillow."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageCms

from tests.data import encoded, natural


def _modes() -> dict[str, Image.Image]:
    colour = natural(37, 29)
    clear = colour.convert("RGBA")
    clear.putalpha(Image.fromarray(np.tile(np.arange(37, dtype=np.uint8) * 6, (29, 1))))
    lab = ImageCms.profileToProfile(
        colour, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    return {
        "RGB": colour,
        "RGBA": clear,
        "L": colour.convert("L"),
        "LA": clear.convert("LA"),
        "1": colour.convert("1"),
        "P": colour.quantize(17),
        "I;16": Image.fromarray(np.asarray(colour.convert("L")).astype(np.uint16) * 257),
        "CMYK": colour.convert("CMYK"),
        "LAB": lab,
    }


_KINDS: dict[str, tuple[str, tuple[str, ...], dict[str, object]]] = {
    "jpeg": ("JPEG", ("RGB", "L", "CMYK"), {}),
    "png": ("PNG", ("RGB", "RGBA", "L", "LA", "1", "P", "I;16"), {}),
    "webp": ("WEBP", ("RGB", "RGBA"), {"lossless": True}),
    "gif": ("GIF", ("RGB", "RGBA", "L", "P"), {}),
    "avif": ("AVIF", ("RGB", "RGBA"), {}),
    "bmp": ("BMP", ("RGB", "RGBA", "L", "1", "P"), {}),
    "tiff": ("TIFF", ("RGB", "RGBA", "L", "LA", "1", "P", "I;16", "CMYK", "LAB"), {}),
    "jpeg2000": ("JPEG2000", ("RGB", "RGBA", "L", "I;16"), {}),
    "heic": ("HEIF", ("RGB", "RGBA", "L"), {}),
    "jxl": ("JXL", ("RGB", "RGBA", "L"), {"lossless": True}),
}
TURNED = ("jpeg", "png", "webp", "avif", "tiff", "heic")


def kinds_of(name: str) -> dict[str, bytes]:
    """Files of a format by what is special about them. HEIC and JPEG XL need their packages."""
    if name == "heic":
        import pillow_heif

        pillow_heif.register_heif_opener()
    elif name == "jxl":
        import pillow_jxl  # noqa: F401
    kind, modes, options = _KINDS[name]
    pictures = _modes()
    found = {mode: encoded(pictures[mode], kind, **options) for mode in modes}
    if name in TURNED:
        exif = Image.Exif()
        exif[0x0112] = 6
        found["turned"] = encoded(pictures["RGB"], kind, exif=exif, **options)
    if name in ("gif", "webp", "png", "avif"):
        found["animated"] = encoded(pictures["RGB"], kind, save_all=True, append_images=[natural(37, 29, 2)], **options)
    if name == "jpeg":
        found["progressive"] = encoded(pictures["RGB"], kind, progressive=True)
        found["restarts"] = encoded(pictures["RGB"], kind, restart_marker_blocks=2)
        found["rgb"] = encoded(pictures["RGB"], kind, keep_rgb=True)
    if name == "tiff":
        for compression in ("tiff_lzw", "jpeg", "packbits"):
            found[compression] = encoded(pictures["RGB"], kind, compression=compression)
    return found
