"""Colours by their ICC profile, as browsers show them."""

import io

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
