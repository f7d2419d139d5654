"""More than 8 bits, or fewer: transparency, labels that keep their values, images of any mode that are fitted."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

import streampipe as sp
from tests.data import encoded, natural, photo


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(values, colour, depth=16, clear=None, channels=1):
    """One row of a PNG, as it is stored."""
    if depth == 16:
        row = struct.pack(f">{len(values)}H", *values)
    else:
        bits = "".join(f"{value:0{depth}b}" for value in values)
        bits += "0" * (-len(bits) % 8)
        row = int(bits, 2).to_bytes(len(bits) // 8, "big")
    header = struct.pack(">IIBBBBB", len(values) // channels, 1, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header)
    body += b"" if clear is None else chunk(b"tRNS", struct.pack(f">{len(clear)}H", *clear))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")


def one(name, data, **options):
    (sample,) = sp.from_iterable([{"__key__": "a", name: data}]).decode(**options)
    return sample


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_transparent_grey_of_any_depth_is_transparent(depth):
    most = (1 << depth) - 1
    for clear, other in ((0, most), (most, 0), (most // 2, most)):
        if clear == other:
            continue
        made = one("png", png([clear, other], 0, depth, [clear]), alpha="mask", background=(9, 8, 7))
        assert made["mask"][0, 0].tolist() == [0, 255]
        assert made["png"][:, 0, 0].tolist() == [9, 8, 7]
        assert made["png"][:, 0, 1].tolist() == [255 * other // most] * 3


@pytest.mark.parametrize("depth", [8, 16])
def test_a_transparent_colour_of_any_depth_is_transparent_and_its_neighbours_are_not(depth):
    colour = (18, 86, 154) if depth == 8 else (4660, 22136, 39612)
    near = (18, 86, 155) if depth == 8 else (4660, 22136, 39613)  # the same to the eye
    data = png([*colour, *near, 1, 2, 3], 2, depth, colour, channels=3)
    made = one("png", data, alpha="mask")
    assert made["mask"][0, 0].tolist() == [0, 255, 255]
    assert made["png"][:, 0, 0].tolist() == [255, 255, 255]
    assert made["png"][:, 0, 1].tolist() == [18, 86, 154 if depth == 16 else 155]
    assert one("mask.png", data)["mask.png"][:, 0, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", ["seg.png", "mask", "mask.png", "masklabel.png"])
def test_labels_keep_their_values_and_their_one_channel(name):
    wide = one(name, png([3, 24001, 24002, 65535], 0))[name]
    assert (wide.dtype, wide.tolist()) == (torch.int32, [[[3, 24001, 24002, 65535]]])
    narrow = one(name, png([3, 77, 255], 0, 8))[name]
    assert (narrow.dtype, narrow.tolist()) == (torch.uint8, [[[3, 77, 255]]])
    colours = one(name, png([255, 0, 0, 0, 0, 255], 2, 8, channels=3))[name]
    assert colours[:, 0].T.tolist() == [[255, 0, 0], [0, 0, 255]]
    assert one(name, encoded(Image.new("L", (16, 16), 255)))[name].shape == (1, 16, 16)  # a JPEG


def test_labels_of_16_bits_are_cut_flipped_batched_and_never_means():
    labels = np.random.default_rng(0).choice([7, 300, 24001, 65000], (60, 90)).astype(np.uint16)
    rows = [
        {"__key__": str(i), "jpg": photo(i, 90, 60), "seg.png": encoded(Image.fromarray(labels), "PNG")}
        for i in range(6)
    ]
    pipe = sp.from_iterable(rows).decode(32, crop="random", flip=0.5)
    (batch,) = pipe.batch(6)
    assert batch["seg.png"].shape == (6, 1, 32, 32)
    assert batch["seg.png"].dtype == torch.int32
    assert set(batch["seg.png"].unique().tolist()) == {7, 300, 24001, 65000}
    for one_, sample in zip(batch["seg.png"], pipe, strict=True):
        assert torch.equal(one_, sample["seg.png"])
    with pytest.raises(sp.ConfigError, match=r"sample '0', field 'seg.png': labels of more than 8 bits take"):
        list(sp.from_iterable(rows).decode(32, interpolation={"seg": "bicubic"}))
    for output in ("numpy", "pil"):
        (sample, *_) = sp.from_iterable(rows).decode(32, output=output)
        assert set(np.unique(np.asarray(sample["seg.png"])).tolist()) <= {7, 300, 24001, 65000}


def test_a_transparent_mask_is_nothing_where_nothing_is_drawn():
    """As editors save them: a white stroke on nothing."""
    strokes = np.zeros((2, 2, 4), np.uint8)
    strokes[0, 0] = 255
    made = one("mask.png", encoded(Image.fromarray(strokes), "PNG"))["mask.png"]
    assert made[0].tolist() == [[255, 0], [0, 0]]


def test_pixels_of_32_bits_are_no_white_picture():
    within, beyond = (encoded(Image.fromarray(np.array([[0, n]], np.int32)), "TIFF") for n in (65535, 70_000))
    pipe = [sp.from_iterable([{"__key__": "a", "tif": data}]).decode(formats=("tiff",)) for data in (within, beyond)]
    assert [each["tif"][0].tolist() for each in pipe[0]] == [[[0, 255]]]
    with pytest.raises(
        sp.DecodeError, match="whole numbers from 0 to 70000, which have no known range; register a dec"
    ):
        list(pipe[1])


def test_grey_palettes_are_one_channel_and_others_their_colours():
    image = Image.new("P", (2, 1))
    image.putdata([1, 0]) if not hasattr(image, "frombytes") else image.frombytes(b"\1\0")
    image.putpalette([0, 0, 0, 200, 200, 200])
    assert one("seg.png", encoded(image, "PNG"))["seg.png"].tolist() == [[[200, 0]]]
    image.putpalette([0, 0, 0, 200, 10, 20])
    assert one("seg.png", encoded(image, "PNG"))["seg.png"][:, 0].T.tolist() == [[200, 10, 20], [0, 0, 0]]


def test_how_many_channels_a_palette_has_does_not_depend_on_its_pixels():
    image = Image.new("P", (2, 1))  # one class alone: black
    image.putpalette([0, 0, 0, 200, 10, 20])
    (sample,) = sp.from_iterable([{"__key__": "a", "mask.png": encoded(image, "PNG")}]).decode()
    assert sample["mask.png"].shape == (3, 1, 2)


MODES = ["1", "L", "P", "RGB", "RGBA", "LA", "PA", "CMYK", "YCbCr", "HSV", "I", "F", "I;16", "RGBa", "RGBX"]


def of_mode(mode, width=90, height=60):
    picture = natural(width, height)
    if mode == "I;16":
        return Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    if mode == "RGBa":
        return picture.convert("RGBA").convert(mode)
    if mode == "LA":
        return picture.convert("RGBA").convert("LA")
    return picture.convert("P").convert("PA") if mode == "PA" else picture.convert(mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("options", [{"flip": 1.0}, {"mode": "pad"}, {"mode": "contain"}, {"crop": "random"}])
def test_fit_takes_pil_images_of_every_mode_and_leaves_them_in_it(mode, options):
    image = of_mode(mode)
    (made,) = sp.from_iterable([{"__key__": "a", "image": image}]).fit((24, 32), **options)
    assert made["image"].mode == mode
    assert made["image"].size == ((32, 21) if options.get("mode") == "contain" else (32, 24))
    assert image.size == (90, 60)
    if options == {"flip": 1.0}:
        (plain,) = sp.from_iterable([{"__key__": "a", "image": image}]).fit((24, 32))
        left = np.asarray(plain["image"].convert("RGB") if mode != "I;16" else plain["image"]).astype(int)
        right = np.asarray(made["image"].convert("RGB") if mode != "I;16" else made["image"]).astype(int)
        assert np.abs(left[:, ::-1] - right).mean() <= 8 * (257 if mode == "I;16" else 1)


def test_fit_takes_what_decode_gives_for_labels():
    rows = [{"__key__": "a", "jpg": photo(0, 90, 60), "seg.png": encoded(of_mode("I;16"), "PNG")}]
    for output in ("tensor", "numpy", "pil"):
        (fused,) = sp.from_iterable(rows).decode((24, 32), output=output)
        (apart,) = sp.from_iterable(rows).decode(output=output).fit((24, 32))
        assert np.array_equal(np.asarray(fused["seg.png"]), np.asarray(apart["seg.png"]))
    arrays = {"image": np.zeros((60, 90, 4), np.uint8), "mask": np.full((60, 90), 60000, np.uint16)}
    (made,) = sp.from_iterable([{"__key__": "a", **arrays}]).fit(20)
    assert made["image"].shape == (20, 20, 4)
    assert (made["mask"].dtype, made["mask"].shape, int(made["mask"][0, 0])) == (np.uint16, (20, 20), 60000)


def test_floating_point_pixels_are_refused_and_told_why(tmp_path):
    data = encoded(Image.new("F", (4, 4), 0.5), "TIFF")
    with pytest.raises(sp.DecodeError, match=r"floating-point.*decoders=\{'tiff'"):
        one("tiff", data, formats=("tiff",))


def test_labels_of_16_bits_are_written_as_they_were_read(tmp_path):
    labels = np.array([[3, 24001], [24002, 65535]], np.uint16)
    rows = [
        {
            "__key__": "a",
            "seg.png": encoded(Image.fromarray(labels), "PNG"),
            "mask.png": encoded(Image.new("L", (3, 3), 7), "PNG"),
        }
    ]
    for output in ("tensor", "numpy"):
        sp.from_iterable(rows).decode(output=output).write(f"{tmp_path}/{output}/{{:05d}}.tar")
        (again,) = sp.stream(tmp_path / output).decode()
        assert again["seg.png"][0].tolist() == labels.tolist()
        assert again["mask.png"].shape == (1, 3, 3)
