import io
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps

import streampipe as sp
from streampipe.counters import counters
from streampipe.decoding import decode_image, probe
from streampipe.threads import ordered
from tests.data import encoded, natural, photo


def psnr(a, b):
    error = ((a.float() - b.float()) ** 2).mean().item()
    return 99.0 if error == 0 else 10 * np.log10(255**2 / error)


def pixels(tensor):
    return tensor.permute(1, 2, 0).numpy()


def oriented(image, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, quality=95, exif=exif)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_as_pillow_does(orientation, fast):
    data = oriented(natural(96, 64), orientation)
    wanted = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    found = pixels(decode_image(data, fast=fast))
    assert found.shape == wanted.shape
    assert np.abs(found.astype(int) - wanted).max() <= 2
    assert (probe(data).width, probe(data).height) == (wanted.shape[1], wanted.shape[0])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("crop", [(0.5, 0.5), (0.0, 1.0), (0.83, 0.17)])
def test_fast_and_pillow_paths_cut_the_same_box(orientation, crop):
    data = oriented(natural(517, 389, orientation), orientation)
    for size in ((64, 64), (50, 90), (128, 40)):
        slow = decode_image(data, size=size, crop=crop, fast=False)
        assert psnr(decode_image(data, size=size, crop=crop), slow) >= 40
        exact = decode_image(data, size=size, crop=crop, margin=None)
        slow = decode_image(data, size=size, crop=crop, margin=None, fast=False)
        assert (exact.int() - slow.int()).abs().max() <= 3


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(1, 8),
    st.integers(0, 99),
)
def test_any_size_can_be_reached_and_both_paths_agree(width, height, out_h, out_w, orientation, place):
    data = oriented(natural(width, height, 3), orientation)
    for margin in (1.5, None):
        options = {"size": (out_h, out_w), "crop": (place / 100, 1 - place / 100), "margin": margin}
        fast, slow = decode_image(data, **options), decode_image(data, fast=False, **options)
        assert fast.shape == slow.shape == (3, out_h, out_w)
        if margin is None:
            assert (fast.int() - slow.int()).abs().max() <= 4


def test_the_centre_crop_is_where_pillow_fits_it():
    image = natural(640, 400)
    wanted = np.asarray(ImageOps.fit(image, (200, 200), Image.Resampling.BICUBIC))
    found = decode_image(encoded(image, "PNG"), size=(200, 200))
    assert np.abs(pixels(found).astype(int) - wanted).max() <= 2


GRADIENT = np.tile(np.arange(256, dtype=np.uint8), (8, 1))


def test_sixteen_bits_are_scaled_not_clipped():
    image = Image.fromarray(GRADIENT.astype(np.uint16) * 257)
    assert (pixels(decode_image(encoded(image, "PNG")))[..., 0] == GRADIENT).all()


def test_transparency_is_composited_on_the_background():
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[..., 0] = 200
    rgba[:2, :, 3] = 255
    for image in (Image.fromarray(rgba), Image.fromarray(rgba).convert("LA")):
        data = encoded(image, "PNG")
        assert decode_image(data)[:, 3, 0].tolist() == [255, 255, 255]
        assert decode_image(data, background=(1, 2, 3))[:, 3, 0].tolist() == [1, 2, 3]
    assert decode_image(encoded(Image.fromarray(rgba), "PNG"))[:, 0, 0].tolist() == [200, 0, 0]
    assert decode_image(encoded(Image.fromarray(rgba), "WEBP", lossless=True))[:, 3, 3].tolist() == [255, 255, 255]


def test_palette_with_a_transparent_entry():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([9, 9, 9, 10, 20, 30])
    assert decode_image(encoded(image, "PNG"))[:, 0, 0].tolist() == [10, 20, 30]
    assert decode_image(encoded(image, "PNG", transparency=1))[:, 0, 0].tolist() == [255, 255, 255]
    assert decode_image(encoded(image, "GIF", transparency=1))[:, 0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("mode", ["L", "1", "CMYK"])
def test_other_colour_spaces_become_rgb_as_pillow_makes_them(mode):
    kind = "PNG" if mode == "1" else "JPEG"
    data = encoded(natural(40, 30).convert(mode), kind)
    wanted = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(pixels(decode_image(data)).astype(int) - wanted).max() <= 2


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation_is_taken(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    counters.take()
    assert decode_image(data)[:, 4, 4].tolist() == [255, 0, 0]
    assert counters.get("decode", "animations, first frame taken") == 1
    decode_image(encoded(frames[0], kind))
    assert counters.get("decode", "animations, first frame taken") == 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_truncated_image_is_an_error_at_every_cut(kind):
    data = encoded(natural(300, 200), kind)
    for percent in range(100):
        with pytest.raises(sp.DecodeError):
            decode_image(data[: len(data) * percent // 100], size=(64, 64))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP", "TIFF", "JPEG2000"])
def test_a_truncated_image_is_an_error_whatever_a_program_has_set_pillow_to(kind, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as many training scripts do
    data = encoded(natural(80, 60, 2), kind)
    formats = ("bmp", "tiff", "jpeg2000")
    assert decode_image(data, formats=formats).shape == (3, 60, 80)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(sp.DecodeError):
            decode_image(data[: len(data) * 2 // 3], formats=formats)


def test_progressive_jpegs_and_harmless_extras_decode():
    assert decode_image(photo(progressive=True), size=(32, 32)).shape == (3, 32, 32)
    assert torch.equal(decode_image(photo() + b"trailing", size=(32, 32)), decode_image(photo(), size=(32, 32)))


def test_large_images_are_refused_by_their_header():
    bomb = encoded(Image.new("1", (13_000, 13_000)), "PNG")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(sp.DecodeError, match="13000 x 13000 pixels"):
            decode_image(bomb)
    with pytest.raises(sp.DecodeError, match="120 x 160"):
        decode_image(photo(), max_pixels=1000)


def test_no_global_of_pillow_is_touched():
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    decode_image(photo(), max_pixels=10**9)
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)


@pytest.mark.parametrize("data", [b"", b"%!PS-Adobe-3.0 EPSF", b"<html>", b"BM" + bytes(60), bytes(100)])
def test_what_is_no_image_of_the_allowed_formats_is_refused(data):
    with pytest.raises(sp.DecodeError, match="no image of the formats"):
        decode_image(data)
    with pytest.raises(sp.DecodeError):
        decode_image(encoded(natural(8, 8), "BMP"))


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_pixels_can_be_written_in_place(kind, orientation, channels_last):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(natural(100, 70), kind, exif=exif)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    batch = torch.zeros((2, 3, 32, 24), dtype=torch.uint8).contiguous(memory_format=layout)
    result = decode_image(data, size=(32, 24), out=batch[1])
    assert result.data_ptr() == batch[1].data_ptr()
    assert torch.equal(batch[1], decode_image(data, size=(32, 24)))
    assert not batch[0].any()


def test_outputs_and_views_are_the_same_pixels():
    data = photo()
    tensor = decode_image(data, size=(40, 50))
    assert (decode_image(data, size=(40, 50), output="numpy") == pixels(tensor)).all()
    assert (np.asarray(decode_image(memoryview(data), size=(40, 50), output="pil")) == pixels(tensor)).all()


def test_threads_do_not_share_a_buffer():
    images = [photo(seed, 100 + 7 * seed, 90) for seed in range(12)]
    serial = [decode_image(data, size=(48, 48)) for data in images]
    for _ in range(3):
        threaded = list(ordered(lambda data: decode_image(data, size=(48, 48)), images, 4))
        assert all(torch.equal(a, b) for a, b in zip(serial, threaded, strict=True))
    whole = [decode_image(data) for data in images]
    assert torch.equal(whole[0], decode_image(images[0]))


def test_avif_where_pillow_can():
    from PIL import features

    if not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    assert decode_image(encoded(natural(64, 48), "AVIF"), size=(16, 16)).shape == (3, 16, 16)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("behind", [False, True])
def test_the_orientation_of_a_png_is_found_without_decoding_it(orientation, behind, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(natural(60, 40), "PNG", exif=exif)
    at = data.index(b"eXIf") - 4
    end = at + 12 + int.from_bytes(data[at : at + 4], "big")
    if behind:  # the pixels: allowed, and other tools write it there
        data = data[:at] + data[end:-12] + data[at:end] + data[-12:]
    wanted = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    with monkeypatch.context() as patch:
        patch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("pixels were decoded"))
        header = probe(data)
    assert (header.orientation, header.width, header.height) == (orientation, wanted.shape[1], wanted.shape[0])
    assert (pixels(decode_image(data)) == wanted).all()


def test_an_orientation_in_a_text_of_a_png_is_found_by_pillow():
    from PIL import PngImagePlugin

    texts = PngImagePlugin.PngInfo()
    xmp = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="6"/></x:xmpmeta>'
    texts.add_itxt("XML:com.adobe.xmp", xmp)
    data = encoded(natural(60, 40), "PNG", pnginfo=texts)
    assert ImageOps.exif_transpose(Image.open(io.BytesIO(data))).size == (40, 60)
    assert decode_image(data).shape == (3, 60, 40)


def test_a_bomb_is_refused_before_a_pixel_is_decoded(monkeypatch):
    bomb = encoded(Image.new("1", (9000, 9000)), "PNG")
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("pixels were decoded"))
    with pytest.raises(sp.DecodeError, match="9000 x 9000 pixels"):
        decode_image(bomb)
