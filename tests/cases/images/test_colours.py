"""Colours by their ICC profile, as browsers show them."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

import streampipe as sp
from streampipe.counters import counters
from tests.data import encoded, natural

PICTURE = natural(90, 60, 4)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def wide():
    """sRGB with red and green taken for each other: a profile that changes colours for all to see."""
    changed = bytearray(SRGB)
    tags = {}
    for i in range(int.from_bytes(changed[128:132], "big")):
        at = 132 + 12 * i
        tags[bytes(changed[at : at + 4])] = at + 4
    red, green = tags[b"rXYZ"], tags[b"gXYZ"]
    changed[red : red + 8], changed[green : green + 8] = changed[green : green + 8], changed[red : red + 8]
    return bytes(changed)


WIDE = wide()


def one(data, name="jpg", **options):
    (sample,) = sp.from_iterable([{"__key__": "a", name: data}]).decode(**options)
    return np.asarray(sample[name].permute(1, 2, 0)).astype(int)


def by_pillow(data):
    image = Image.open(io.BytesIO(data))
    source = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
    return np.asarray(
        ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), ImageCms.Intent(1), "RGB")
    ).astype(int)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_colours_with_a_profile_are_those_that_pillow_converts_to(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(PICTURE, kind, icc_profile=WIDE, **options)
    plain = one(encoded(PICTURE, kind, **options))
    before = counters.get("decode", "converted to sRGB")
    found = one(data)
    assert np.abs(found - by_pillow(data)).max() <= 3
    assert counters.get("decode", "converted to sRGB") == before + 1
    assert np.abs(found - plain).mean() > 10
    assert np.abs(one(data, icc="ignore") - plain).max() <= 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_profile_that_is_srgb_or_of_no_use_changes_nothing(kind):
    plain = one(encoded(PICTURE, kind))
    before = counters.get("decode", "ICC profiles that cannot be used")
    assert (one(encoded(PICTURE, kind, icc_profile=SRGB)) == plain).all()
    assert counters.get("decode", "ICC profiles that cannot be used") == before
    for broken in (b"garbage" * 30, WIDE[:200]):
        assert (one(encoded(PICTURE, kind, icc_profile=broken)) == plain).all()
    assert counters.get("decode", "ICC profiles that cannot be used") == before + 2


def test_transparent_pixels_and_sizes_go_with_it():
    clear = PICTURE.convert("RGBA")
    clear.putalpha(Image.fromarray(np.tile(np.arange(90, dtype=np.uint8) * 2, (60, 1))))
    data = encoded(clear, "PNG", icc_profile=WIDE)
    found = one(data, background=(10, 200, 30))
    colours = by_pillow(encoded(PICTURE, "PNG", icc_profile=WIDE))
    share = np.asarray(clear.getchannel("A"))[..., None] / 255
    assert np.abs(found - (colours * share + np.array([10, 200, 30]) * (1 - share))).max() <= 3
    small = one(encoded(PICTURE, "JPEG", icc_profile=WIDE, quality=95), size=(30, 30), mode="pad", background=(1, 2, 3))
    assert (small[0, 0] == (1, 2, 3)).all()
    assert np.abs(small[15, 15] - by_pillow(encoded(PICTURE, "PNG", icc_profile=WIDE))[30, 45]).max() <= 40


def test_labels_have_no_colours():
    grey = encoded(Image.new("L", (8, 8), 77), "PNG", icc_profile=WIDE)
    assert one(grey, "mask.png").tolist() == one(encoded(Image.new("L", (8, 8), 77), "PNG"), "mask.png").tolist()
    colours = encoded(Image.new("RGB", (8, 8), (9, 99, 200)), "PNG", icc_profile=WIDE)
    assert (one(colours, "seg.png") == (9, 99, 200)).all()


def test_the_option_is_checked():
    with pytest.raises(sp.ConfigError, match="icc is one of .srgb., .ignore."):
        one(encoded(PICTURE), icc="adobe")


def of_greys():
    """A profile of greys that are linear: the middle is much lighter in sRGB."""
    white = b"".join(round(each * 65536).to_bytes(4, "big") for each in (0.9642, 1.0, 0.8249))
    tags = {
        b"desc": b"desc" + bytes(4) + (5).to_bytes(4, "big") + b"test\0" + bytes(79),
        b"wtpt": b"XYZ " + bytes(4) + white,
        b"kTRC": b"curv" + bytes(4) + (1).to_bytes(4, "big") + (256).to_bytes(2, "big") + bytes(2),
    }
    table, body = len(tags).to_bytes(4, "big"), b""
    for name, tag in tags.items():
        table += name + (132 + 12 * len(tags) + len(body)).to_bytes(4, "big") + len(tag).to_bytes(4, "big")
        body += tag
    head = b"lcms" + (0x02400000).to_bytes(4, "big") + b"mntrGRAYXYZ " + bytes(12) + b"acsp" + bytes(28) + white
    size = 128 + len(table) + len(body)
    return (size.to_bytes(4, "big") + head).ljust(128, b"\0") + table + body


@pytest.mark.parametrize("size", [None, (30, 40)])
def test_greys_with_a_profile_are_the_same_in_every_format(size):
    grey, profile = PICTURE.convert("L"), of_greys()
    wide = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    opaque = grey.convert("LA")
    options = {"quality": 98}
    files = {
        "jpg": encoded(grey, "JPEG", icc_profile=profile, **options),
        "8.png": encoded(grey, "PNG", icc_profile=profile),
        "16.png": encoded(wide, "PNG", icc_profile=profile),
        "alpha.png": encoded(opaque, "PNG", icc_profile=profile),
    }
    expected = one(files["8.png"], "png", size=size)
    assert size or (expected == by_pillow(files["8.png"])).all()
    assert np.abs(expected - one(encoded(grey, "PNG"), "png", size=size)).mean() > 30
    for name, data in files.items():
        assert np.abs(one(data, name, size=size) - expected).mean() < 2, name


def test_a_background_is_not_brought_from_a_profile():
    edges = (8).to_bytes(4, "big")
    chunks = {
        b"IHDR": edges + edges + bytes((16, 2, 0, 0, 0)),  # 16 bits, colours
        b"iCCP": b"a\0\0" + zlib.compress(WIDE),
        b"tRNS": bytes(6),  # black is clear
        b"IDAT": zlib.compress(bytes(8 * (1 + 8 * 6))),
        b"IEND": b"",
    }
    data = b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, body) for kind, body in chunks.items())
    assert (one(data, "png", background=(10, 200, 30)) == (10, 200, 30)).all()


def chunk(kind, body):
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")
