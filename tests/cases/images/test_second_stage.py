"""One sample, one flip: images that are cut by themselves, in one stage or in two, and a record of each one's own."""

import numpy as np
import pytest
import torch
from PIL import Image

import streampipe as sp
from tests.data import encoded, photo


def ramp(height, width):
    """Red grows from left to right."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.arange(width) * 255 // (width - 1)
    return encoded(Image.fromarray(pixels), "PNG")


SAMPLES = [{"__key__": f"k{i}", "jpg": ramp(90, 160), "control.png": ramp(51, 64)} for i in range(40)]
FRAMING = {"crop": "random", "flip": 0.5}


def mirrored(image):
    return bool(image[0, 0, 0] > image[0, 0, -1])


def chains():
    pipe = sp.from_iterable(SAMPLES, seed=3)
    yield pipe.decode({"jpg": 48, "control": (40, 32)}, **FRAMING)
    yield pipe.decode(48, fields=("jpg",), **FRAMING).decode((40, 32), fields=("control.png",), **FRAMING)
    yield pipe.decode((40, 32), fields=("control.png",), **FRAMING).decode(48, fields=("jpg",), **FRAMING)
    yield pipe.decode(48, fields=("jpg",), **FRAMING).decode((40, 32))  # the second asks for no flip
    yield pipe.decode().fit(48, fields=("jpg",), **FRAMING).fit((40, 32), fields=("control.png",), **FRAMING)
    yield pipe.decode(48, fields=("jpg",), **FRAMING).decode().fit((40, 32), fields=("control.png",), **FRAMING)


@pytest.mark.parametrize("number", range(6))
def test_the_flip_is_the_samples_and_the_record_each_images_own(number):
    alone = list(sp.from_iterable(SAMPLES, seed=3).decode(48, fields=("jpg",), **FRAMING))
    made = list(list(chains())[number])
    assert {sample["flipped"] for sample in made} == {True, False}
    for one, sample in zip(alone, made, strict=True):
        assert torch.equal(one["jpg"], sample["jpg"])
        assert sample["time_ids"].tolist() == one["time_ids"].tolist() == [90, 160, *one["crop_top_left"], 48, 48]
        assert sample["original_size"] == (90, 160)
        assert mirrored(sample["jpg"]) == mirrored(sample["control.png"]) == sample["flipped"]
        assert sample["control.original_size"] == (51, 64)
        assert sample["control.target_size"] == (40, 32)
        assert 0 <= sample["control.crop_top_left"][1] <= 18
        assert sample["control.png"].shape == (3, 40, 32)


def test_an_image_that_was_cut_is_not_mirrored_twice():
    pipe = sp.from_iterable(SAMPLES, seed=3).decode(64, fields=("jpg",), flip=0.5)
    for once, twice in zip(pipe, pipe.fit(32, fields=("jpg",), flip=0.5), strict=True):
        assert once["flipped"] == twice["flipped"] == mirrored(twice["jpg"])
        assert twice["target_size"] == (32, 32)


def test_sizes_by_field_are_areas_or_none_too():
    size = {"image": 32, "control": sp.Area(48 * 48, multiple=8), "reference": None}
    fields = {"image": ramp(90, 160), "control": ramp(50, 100), "reference": ramp(20, 30), "mask.png": ramp(90, 160)}
    made = list(sp.from_iterable([{"__key__": str(i), **fields} for i in range(12)]).decode(size, flip=0.5))
    assert {sample["flipped"] for sample in made} == {True, False}
    for sample in made:
        assert sample["image"].shape == (3, 32, 32)
        assert sample["mask.png"].shape == (3, 32, 32)  # it belongs to the image
        assert sample["control"].shape == (3, 32, 64)
        assert sample["reference"].shape == (3, 20, 30)
        for name in fields:
            assert mirrored(sample[name]) == sample["flipped"]
        assert "reference.target_size" not in sample


@pytest.mark.parametrize("threads", [None, 2])
def test_sizes_by_field_are_decoded_into_batches(threads):
    pipe = sp.from_iterable(SAMPLES, seed=3).decode({"jpg": 48, "control": (40, 32)}, threads=threads, **FRAMING)
    apart = list(pipe)
    batches = list(pipe.batch(8))
    assert len(batches) == 5
    for i, batch in enumerate(batches):
        assert batch["jpg"].shape == (8, 3, 48, 48)
        assert batch["control.png"].shape == (8, 3, 40, 32)
        for k in range(8):
            assert torch.equal(batch["control.png"][k], apart[8 * i + k]["control.png"])
            assert torch.equal(batch["jpg"][k], apart[8 * i + k]["jpg"])


def test_behind_bucket_the_main_image_has_its_buckets_size_and_others_their_own():
    rows = [{"__key__": str(i), "jpg": photo(i, 90, 60), "control.png": ramp(20, 20)} for i in range(8)]
    pipe = sp.from_iterable(rows).bucket([(32, 48), (48, 32)]).decode({"control": 16})
    for batch in pipe.batch(4):
        assert batch["jpg"].shape == (4, 3, 32, 48)
        assert batch["control.png"].shape == (4, 3, 16, 16)


def test_an_image_of_another_shape_is_told_how_to_have_a_size_of_its_own():
    with pytest.raises(sp.DecodeError, match=r"51 x 64.*90 x 160 \(height x width\).*'control': 512"):
        list(sp.from_iterable(SAMPLES).decode(48))
