"""Images keep their bytes unless asked; what is asked for is done to all images of a sample, masks without a loss."""

import io
import json

import numpy as np
import pytest
from PIL import Image, ImageFile

import streampipe as sp
from streampipe.cli import main
from streampipe.decoding import decode_image, probe
from streampipe.pack.change import Change
from tests.data import encoded, natural, photo
from tests.pack.test_pack import contents, quiet


def turned(width, height, orientation):
    """A JPEG that EXIF turns."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    natural(width, height).save(file, "JPEG", quality=95, exif=exif)
    return file.getvalue()


def size_of(data):
    header = probe(data)
    return header.format, header.height, header.width, header.orientation


def test_an_image_that_needs_no_change_keeps_its_bytes():
    data = photo(1, 64, 48)
    assert Change(resize=64, max_pixels=64 * 48, format="jpg", orientation="bake").apply({"jpg": data}) == {"jpg": data}


@pytest.mark.parametrize(
    ("change", "size"),
    [
        (Change(resize=24), ("JPEG", 24, 32, 1)),
        (Change(max_pixels=300), ("JPEG", 15, 20, 1)),
        (Change(resize=40, max_pixels=300), ("JPEG", 15, 20, 1)),
    ],
)
def test_sizes_are_bounded_and_the_old_one_is_in_the_json(change, size):
    found = change.apply({"jpg": photo(1, 64, 48), "json": b'{"a": 1}'})
    assert size_of(found["jpg"]) == size
    assert json.loads(found["json"]) == {"a": 1, "original_width": 64, "original_height": 48}


def test_a_size_that_the_json_says_is_kept_and_a_damaged_json_is_not_touched():
    found = Change(resize=24).apply({"jpg": photo(1, 64, 48), "json": b'{"original_width": 9}'})
    assert json.loads(found["json"]) == {"original_width": 9, "original_height": 48}
    assert Change(resize=24).apply({"jpg": photo(1, 64, 48), "json": b"{"})["json"] == b"{"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_is_changed_is_turned_upright_and_looks_the_same(orientation):
    data = turned(64, 48, orientation)
    header = probe(data)
    found = Change(resize=min(header.height, header.width) // 2).apply({"jpg": data})["jpg"]
    assert size_of(found) == ("JPEG", header.height // 2, header.width // 2, 1)
    size = (header.height // 2, header.width // 2)
    before = decode_image(data, size=size, output="numpy").astype(int)
    after = decode_image(found, output="numpy").astype(int)
    assert np.abs(before - after).mean() < 6
    upright = Change(orientation="bake").apply({"jpg": data})["jpg"]
    assert size_of(upright) == ("JPEG", header.height, header.width, 1)
    assert (upright == data) == (orientation == 1)
    kept = Change(resize=min(header.height, header.width) // 2, orientation="keep").apply({"jpg": data})["jpg"]
    assert size_of(kept) == ("JPEG", header.height // 2, header.width // 2, orientation)
    assert np.abs(before - decode_image(kept, output="numpy").astype(int)).mean() < 6


@pytest.mark.parametrize("kind", ["jpg", "webp", "png"])
def test_formats_change_with_their_names(kind):
    fields = {"png": encoded(natural(20, 10), "PNG"), "control.webp": encoded(natural(20, 10), "WEBP")}
    found = Change(format=kind).apply(fields)
    assert sorted(found) == sorted({kind, f"control.{kind}"})
    assert {size_of(data)[:3] for data in found.values()} == {({"jpg": "JPEG"}.get(kind, kind.upper()), 10, 20)}


@pytest.mark.parametrize("mode", ["L", "P"])
def test_masks_keep_their_labels(mode):
    labels = np.random.default_rng(0).integers(0, 7, (40, 60), np.uint8)
    mask = Image.fromarray(labels)
    if mode == "P":
        mask = Image.frombytes("P", mask.size, mask.tobytes())
        mask.putpalette([value * 9 % 256 for value in range(768)])
    data = encoded(mask, "PNG")
    found = Change(resize=20, format="jpg").apply({"jpg": photo(0, 60, 40), "mask.png": data})
    kept = Image.open(io.BytesIO(found["mask.png"]))
    assert (kept.mode, kept.size) == (mode, (30, 20))
    assert set(np.unique(np.asarray(kept))) <= set(range(7))
    assert Change(format="jpg").apply({"jpg": photo(0, 60, 40), "mask.png": data})["mask.png"] == data


def test_transparency_becomes_white_in_a_jpeg_and_stays_in_a_webp():
    image = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
    jpg = Change(format="jpg").apply({"png": encoded(image, "PNG")})["jpg"]
    assert np.asarray(Image.open(io.BytesIO(jpg))).min() > 250
    webp = Change(format="webp").apply({"png": encoded(image, "PNG")})["webp"]
    assert Image.open(io.BytesIO(webp)).mode == "RGBA"


@pytest.mark.parametrize("kind", ["jpg", "webp", "png"])
@pytest.mark.parametrize("clear", [None, 0])
def test_sixteen_bits_become_what_decode_makes_of_them(kind, clear):
    grey = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    grey[:8] = 0
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "PNG", **({} if clear is None else {"transparency": clear}))
    found = Change(format=kind).apply({"png": file.getvalue()})[kind]
    wanted = decode_image(file.getvalue(), output="numpy").astype(int)
    assert np.abs(decode_image(found, output="numpy").astype(int) - wanted).max() <= 5


@pytest.mark.parametrize("clear", [None, 0])
def test_sixteen_bits_stay_in_a_png_that_is_made_smaller(clear):
    grey = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "PNG", **({} if clear is None else {"transparency": clear}))
    found = Image.open(io.BytesIO(Change(resize=32).apply({"png": file.getvalue()})["png"]))
    assert found.size == (32, 32)
    if clear is None:
        assert set(np.unique(np.asarray(found))) <= set(grey.ravel())
    else:  # no 16 bits with transparency can be made smaller: what decode would show
        assert found.mode == "RGBA"
        assert 100 < np.asarray(found)[..., 0].mean() < 155


def test_pixels_without_a_range_cannot_be_changed():
    data = encoded(Image.fromarray(np.ones((64, 64), np.float32)), "TIFF")
    with pytest.raises(sp.DecodeError, match="floating-point numbers, which have no known range"):
        Change(format="jpg").apply({"png": data})


@pytest.mark.parametrize("options", [{"format": "webp"}, {"resize": 32}])
def test_animations_that_become_stills_are_told_also_after_an_interruption(tmp_path, options):
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "lime")]
    (tmp_path / "in").mkdir()
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=100)
    (tmp_path / "in" / "a.gif").write_bytes(file.getvalue())
    (tmp_path / "in" / "b.jpg").write_bytes(photo(1, 64, 48))
    assert quiet(tmp_path / "in", tmp_path / "as they are").stills == 0
    for _ in range(2):
        summary = quiet(tmp_path / "in", tmp_path / "out", **options)
        assert summary.stills == 1
        assert "1 animations are packed with their first frame alone" in str(summary)


def test_colour_profiles_stay():
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    file = io.BytesIO()
    natural(20, 10).save(file, "PNG", icc_profile=profile)
    found = Change(format="jpg").apply({"png": file.getvalue()})["jpg"]
    assert Image.open(io.BytesIO(found)).info["icc_profile"] == profile


def test_other_colours_become_srgb_where_that_is_asked_for():
    from PIL import ImageCms

    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    labels = {}
    for name, profile in (("png", swapped(srgb)), ("control.png", srgb), ("mask.png", swapped(srgb)), ("x.png", lab)):
        file = io.BytesIO()
        natural(20, 10).save(file, "PNG", icc_profile=profile)
        labels[name] = file.getvalue()
    found = Change(srgb=True).apply(labels)
    assert {name for name in labels if found[name] != labels[name]} == {"png"}
    image = Image.open(io.BytesIO(found["png"]))
    assert "icc_profile" not in image.info
    assert np.array_equal(np.asarray(image), decode_image(labels["png"], output="numpy", icc="srgb"))


@pytest.mark.parametrize("mode", ["RGBA", "P", "LA"])
def test_colours_with_transparency_or_a_palette_become_srgb_too(mode):
    from PIL import ImageCms

    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = natural(20, 10).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    file = io.BytesIO()
    image.convert(mode).save(file, "PNG", icc_profile=swapped(srgb))
    found = Change(srgb=True).apply({"png": file.getvalue()})["png"]
    if mode == "LA":  # whose profile has to be one of greys
        assert found == file.getvalue()
        return
    before, after = Image.open(io.BytesIO(file.getvalue())).convert("RGBA"), Image.open(io.BytesIO(found))
    assert "icc_profile" not in after.info
    red, green, blue, alpha = before.split()
    wanted = np.asarray(Image.merge("RGBA", (blue, green, red, alpha)), int)
    assert np.abs(wanted - np.asarray(after.convert("RGBA"))).max() <= 2


def test_an_image_that_is_cut_off_is_damaged_whatever_a_program_has_set_pillow_to(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as many training scripts do
    data = photo(1, 64, 48)
    for change in (Change(resize=16), Change(format="webp")):
        with pytest.raises(sp.DecodeError, match="truncated"):
            change.apply({"jpg": data[: len(data) * 2 // 3]})


def swapped(profile):
    """A profile with red and blue in each other's place."""
    return profile.replace(b"rXYZ", b"tXYZ").replace(b"bXYZ", b"rXYZ").replace(b"tXYZ", b"bXYZ")


def test_a_damaged_image_stops_or_is_listed(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(photo(1, 64, 48))
    (tmp_path / "in" / "b.jpg").write_bytes(b"\xff\xd8\xff" + bytes(100))
    with pytest.raises(sp.PackError, match=r"b\.jpg cannot be read"):
        quiet(tmp_path / "in", tmp_path / "out", resize=16)
    summary = quiet(tmp_path / "in", tmp_path / "out", resize=16, on_error="skip")
    assert ([each.file for each in summary.skipped], summary.samples) == ([str(tmp_path / "in" / "b.jpg")], 1)


def test_the_command_and_facts_of_images(tmp_path):
    (tmp_path / "in").mkdir()
    data = turned(64, 48, 6)
    (tmp_path / "in" / "a.jpg").write_bytes(data)
    quiet(tmp_path / "in", tmp_path / "as it is")
    index = sp.stream(str(tmp_path / "as it is")).where("orientation == 6 and width == 48 and height == 64")
    assert len(list(index)) == 1
    options = ["--resize", "24", "--format", "webp", "--quality", "80", "--quiet"]
    assert main(["pack", str(tmp_path / "in"), str(tmp_path / "out"), *options]) == 0
    (fields,) = contents(tmp_path / "out").values()
    assert (sorted(fields), size_of(fields["webp"])) == (["json", "webp"], ("WEBP", 32, 24, 1))
    import hashlib

    digest = hashlib.sha256(data).hexdigest()
    for out in ("as it is", "out"):
        assert len(list(sp.stream(str(tmp_path / out)).where(f"sha256 == '{digest}'"))) == 1
    with pytest.raises(sp.OutputBusy, match="its change was"):
        quiet(tmp_path / "in", tmp_path / "out", resize=25)


@pytest.mark.parametrize(
    "options", [{"resize": 0}, {"max_pixels": 0}, {"format": "bmp"}, {"quality": 0}, {"orientation": "up"}]
)
def test_wrong_options_are_refused(options):
    with pytest.raises(sp.ConfigError):
        Change(**options)


def test_a_quality_that_no_image_would_get_is_refused():
    with pytest.raises(sp.ConfigError, match="quality=50 is of images that are made anew, and none would be"):
        Change(quality=50)
    assert Change(quality=50, format="webp").quality == 50


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "JPEG2000"])
def test_images_in_formats_that_must_be_asked_for_are_packed_as_they_are_and_changed(tmp_path, kind):
    source = tmp_path / "in"
    source.mkdir()
    name = {"BMP": "bmp", "TIFF": "tiff", "JPEG2000": "jp2"}[kind]
    Image.new("RGB", (40, 20), (200, 10, 10)).save(source / f"a.{name}", kind)
    (source / "a.txt").write_text("red")
    quiet(source, tmp_path / "as", verify=True)
    (sample,) = sp.stream(str(tmp_path / "as"))
    assert (sample[name], sample["txt"]) == ((source / f"a.{name}").read_bytes(), b"red")
    assert len(list(sp.stream(str(tmp_path / "as")).where("width == 40 and height == 20"))) == 1
    quiet(source, tmp_path / "small", resize=10, format="png")
    (sample,) = sp.stream(str(tmp_path / "small")).decode()
    assert sample["png"].shape == (3, 10, 20)
    assert sample["png"].float().mean((1, 2)).round().tolist() == pytest.approx([200, 10, 10], abs=2)
