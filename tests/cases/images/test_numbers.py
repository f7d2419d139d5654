"""Numbers and shapes of other tools; pictures that are shown whole; crops of random scale."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import streampipe as sp
from streampipe.decoding import decide
from tests.data import encoded, natural, photo


def diffusers(height, width, resolution):
    """time_ids of train_text_to_image_sdxl.py: torchvision's Resize, then the centre crop's own corner."""
    short, long = min(height, width), max(height, width)
    other = int(resolution * long / short)
    rows, columns = (resolution, other) if height <= width else (other, resolution)
    top, left = (max(0, int(round((edge - resolution) / 2.0))) for edge in (rows, columns))  # noqa: RUF046
    return [height, width, top, left, resolution, resolution]


@settings(max_examples=500)
@given(st.integers(64, 6000), st.integers(64, 6000), st.sampled_from([256, 512, 1024]), st.booleans())
def test_truncated_time_ids_are_those_of_diffusers_script(height, width, resolution, flipped):
    found = decide((height, width), (resolution, resolution), flipped=flipped, rounding="truncate")
    mine = [height, width, *found.crop_top_left, resolution, resolution]
    assert mine == diffusers(height, width, resolution)


def test_rounded_ones_differ_by_a_pixel_for_many_sizes():
    sizes = [(1000, 1000 + n) for n in range(1, 400)]
    differ = [abs(decide(size, (512, 512)).crop_top_left[1] - diffusers(*size, 512)[3]) for size in sizes]
    assert max(differ) == 1
    assert np.mean(differ) > 0.1
    (made,) = sp.from_iterable([{"__key__": "a", "jpg": photo(0, 333, 250)}]).decode(64, rounding="truncate")
    assert made["time_ids"].tolist() == diffusers(250, 333, 64)


def one(data, **options):
    (sample,) = sp.from_iterable([{"__key__": "a", "png": data}], seed=1).decode(**options)
    return sample


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_padded_pictures_are_whole_and_in_the_middle(flip):
    image = natural(90, 60)
    made = one(encoded(image, "PNG"), size=(64, 64), mode="pad", background=(1, 2, 3), flip=flip, alpha="mask")
    pixels = made["png"].permute(1, 2, 0).numpy().astype(int)
    wanted = np.asarray(image.resize((64, 43), Image.BICUBIC)).astype(int)
    wanted = wanted[:, ::-1] if flip else wanted
    top = (64 - 43) // 2
    assert np.abs(pixels[top : top + 43] - wanted).max() <= 2
    assert (pixels[:top] == (1, 2, 3)).all()
    assert (pixels[top + 43 :] == (1, 2, 3)).all()
    assert made["mask"][0, :, 5].tolist() == [0] * top + [255] * 43 + [0] * (64 - top - 43)
    assert (made["crop_top_left"], made["target_size"]) == ((-top, 0), (64, 64))


def test_contained_pictures_have_their_own_shape_and_batches_of_padded_ones_one():
    made = one(encoded(natural(90, 60), "PNG"), size=(64, 64), mode="contain")
    assert made["png"].shape == (3, 43, 64)
    assert made["time_ids"].tolist() == [60, 90, 0, 0, 43, 64]
    rows = [
        {
            "__key__": str(i),
            "jpg": photo(i, 60 + 9 * i, 60),
            "mask.png": encoded(natural(60 + 9 * i, 60).convert("L"), "PNG"),
        }
        for i in range(4)
    ]
    pipe = sp.from_iterable(rows).decode(32, mode="pad", flip=0.5)
    (batch,) = pipe.batch(4)
    assert batch["jpg"].shape == (4, 3, 32, 32)
    for i, sample in enumerate(pipe):
        assert torch.equal(batch["jpg"][i], sample["jpg"])
        fitted = dict(next(iter(sp.from_iterable(rows[i : i + 1]).decode().fit(32, mode="pad", flip=0.5))))
        assert fitted["time_ids"].tolist() == sample["time_ids"].tolist()
    assert (batch["mask.png"][3, :, 0] == 0).all()
    for options in ({"crop": "random"}, {"scale": (0.5, 1.0)}):
        with pytest.raises(sp.ConfigError, match="mode='pad' shows whole pictures"):
            list(sp.from_iterable(rows).decode(32, mode="pad", **options))


def test_crops_of_random_scale_are_seeded_and_recorded():
    width, height = 400, 300
    ramp = np.zeros((height, width, 3), np.uint8)
    ramp[..., 0] = np.arange(width) * 255 // (width - 1)
    rows = [{"__key__": str(i), "png": encoded(Image.fromarray(ramp), "PNG")} for i in range(30)]
    found, others = (list(sp.from_iterable(rows, seed=2).decode(50, crop="random", scale=(0.4, 1.0))) for _ in range(2))
    spans = []
    for sample, again in zip(found, others, strict=True):
        assert torch.equal(sample["png"], again["png"])
        red = sample["png"][0].float().mean(0).numpy()
        spans.append((red[-1] - red[0]) * (width - 1) / 255 / 300)
    assert 0.35 <= min(spans) <= 0.55
    assert 0.85 <= max(spans) <= 1.02
    assert len({sample["crop_top_left"] for sample in found}) > 20
    for bad in ((0, 1), (0.5,), (0.9, 0.2), (0.5, 2), 0.5):
        with pytest.raises(sp.ConfigError, match="scale is the least and the most"):
            list(sp.from_iterable(rows).decode(50, scale=bad))


@pytest.mark.parametrize(
    ("interpolation", "pillow"), [("lanczos", Image.LANCZOS), ("area", Image.BOX), ("bicubic", Image.BICUBIC)]
)
def test_interpolations_are_pillows(interpolation, pillow):
    image = natural(200, 160)
    made = one(encoded(image, "PNG"), size=(80, 80), interpolation=interpolation, margin=None)
    wanted = np.asarray(image.resize((80, 80), pillow, box=(20, 0, 180, 160))).astype(int)
    assert np.abs(made["png"].permute(1, 2, 0).numpy() - wanted).max() <= 1


def test_areas_keep_the_shape():
    for size in ((1500, 3000), (3000, 1500), (7, 5000), (1000, 1000)):
        height, width = sp.Area(512 * 512, multiple=32).of(size)
        assert height % 32 == width % 32 == 0
        if max(size) < 4 * min(size):
            assert abs(height * width - 512 * 512) < 0.1 * 512 * 512
    for bad in ((0, 16), (100, 0), ("x", 1)):
        with pytest.raises(sp.ConfigError, match="an area has"):
            sp.Area(*bad)
