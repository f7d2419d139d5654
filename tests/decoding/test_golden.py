"""Known pixels of every kind of image, at full size and through a resize that changes nothing."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from streampipe.decoding import decode_image
from tests.data import encoded


def png(rows):
    """A PNG that Pillow cannot write: RGB of 16 bits."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = np.asarray(rows, ">u2")
    header = struct.pack(">IIBBBBB", rows.shape[1] // 3, rows.shape[0], 16, 2, 0, 0, 0)
    body = b"".join(b"\0" + row.tobytes() for row in rows)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def palette(pixels, colours, **options):
    image = Image.new("P", (len(pixels[0]), len(pixels)))
    image.frombytes(np.asarray(pixels, np.uint8).tobytes())
    image.putpalette([each for colour in colours for each in colour])
    return encoded(image, "PNG", **options)


def array(pixels, mode=None, kind="PNG", **options):
    image = Image.fromarray(np.asarray(pixels, np.uint8))
    return encoded(image.convert(mode) if mode else image, kind, **options)


GOLDEN = {
    # name: (bytes, the row's pixels over a background of (10, 20, 30))
    "RGB": (array([[[1, 2, 3], [250, 128, 0]]]), [(1, 2, 3), (250, 128, 0)]),
    "grey": (array([[0, 77, 255]]), [(0,) * 3, (77,) * 3, (255,) * 3]),
    "one bit": (array([[0, 255, 0]], "1"), [(0,) * 3, (255,) * 3, (0,) * 3]),
    "alpha: none, all, half": (
        array([[[200, 0, 0, 255], [200, 0, 0, 0], [210, 120, 30, 128]]]),
        [(200, 0, 0), (10, 20, 30), (110, 70, 30)],
    ),
    "grey with alpha": (
        encoded(Image.merge("LA", [Image.new("L", (1, 1), 90), Image.new("L", (1, 1), 0)]), "PNG"),
        [(10, 20, 30)],
    ),
    "palette": (palette([[1, 0]], [(9, 9, 9), (40, 50, 60)]), [(40, 50, 60), (9, 9, 9)]),
    "palette with a transparent entry": (
        palette([[1, 0]], [(9, 9, 9), (40, 50, 60)], transparency=1),
        [(10, 20, 30), (9, 9, 9)],
    ),
    "palette with alphas": (
        palette([[1, 0]], [(210, 120, 30), (40, 50, 60)], transparency=bytes((128, 255))),
        [(40, 50, 60), (110, 70, 30)],
    ),
    "grey with a transparent value": (array([[0, 77]], transparency=77), [(0,) * 3, (10, 20, 30)]),
    "RGB with a transparent colour": (
        array([[[1, 2, 3], [4, 5, 6]]], transparency=(1, 2, 3)),
        [(10, 20, 30), (4, 5, 6)],
    ),
    "16 bits of grey": (
        encoded(Image.fromarray(np.array([[0, 257, 128 * 257, 65535, 129, 128]], np.uint16)), "PNG"),
        [(0,) * 3, (1,) * 3, (128,) * 3, (255,) * 3, (1,) * 3, (0,) * 3],
    ),
    "16 bits of RGB": (png([[257, 2 * 257, 3 * 257, 65535, 0, 128 * 257]]), [(1, 2, 3), (255, 0, 128)]),
    "WebP with alpha": (
        array([[[200, 0, 0, 255], [200, 0, 0, 0]]], kind="WEBP", lossless=True, exact=True),
        [(200, 0, 0), (10, 20, 30)],
    ),
    "GIF": (encoded(Image.new("RGB", (2, 1), (255, 0, 0)), "GIF"), [(255, 0, 0)] * 2),
    "the first of two frames": (
        array([[[1, 2, 3]]], save_all=True, append_images=[Image.new("RGB", (1, 1), (9, 9, 9))]),
        [(1, 2, 3)],
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_known_pixels(name):
    data, wanted = GOLDEN[name]
    for options in ({}, {"size": (1, len(wanted))}, {"interpolation": "nearest"}, {"fast": False}):
        found = decode_image(data, background=(10, 20, 30), **options)
        assert np.abs(found[:, 0].T.numpy().astype(int) - wanted).max() <= (
            1 if "half" in name or "alphas" in name else 0
        )


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 128, 255)])
@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_known_colours_of_jpegs(mode, colour):
    data = encoded(Image.new("RGB", (16, 16), colour).convert(mode), "JPEG", quality=100, subsampling=0)
    for options in ({}, {"size": (8, 8)}, {"fast": False}):
        found = decode_image(data, **options)
        assert np.abs(found.reshape(3, -1).T.numpy().astype(int) - colour).max() <= 3
