"""Cards: what a page shows of a sample."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

import streampipe as sp
from streampipe import stages
from streampipe.context import Run
from streampipe.preview import cards_of
from streampipe.stages.decoder import FieldDecoder
from streampipe.views.cards import CardMaker
from tests.data import encoded, natural, photo


def card(sample, buckets=None, **options):
    made = stages.decode(**options)
    given = {name: value for name, value in made.options.items() if name != "threads"}
    return CardMaker(FieldDecoder(Run(stage="decode"), **given), buckets, 64)({"__key__": "a", **sample})


def drawn(data):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA"))


def test_the_crop_is_the_one_that_training_sees():
    samples = [{"__key__": f"{i:03d}", "jpg": photo(i, 150 + 13 * i, 120)} for i in range(6)]
    pipe = sp.from_iterable(samples, seed=5).bucket(sp.Buckets([(64, 64), (64, 128)])).decode(crop="random", flip=0.5)
    trained = {sample["__key__"]: sample for sample in pipe}
    shown = {each["key"]: each for each in cards_of(pipe, 10, 0, 64, 0)}
    assert shown.keys() == trained.keys()
    assert len({sample["flipped"] for sample in trained.values()}) == 2
    for key, sample in trained.items():
        height, width = sample["original_size"]
        rows, columns = sample["target_size"]
        zoom = max(rows / height, columns / width)
        top, left = (edge / zoom for edge in sample["crop_top_left"])
        if sample["flipped"]:
            left = width - left - columns / zoom
        wanted = [left / width, top / height, columns / zoom / width, rows / zoom / height]
        assert shown[key]["crop"] == pytest.approx(wanted, abs=0.02)
        assert shown[key].get("flipped", False) == sample["flipped"]
        assert shown[key]["bucket"] == f"{rows} x {columns}"


def test_another_epoch_has_other_crops():
    pipe = sp.from_iterable([{"__key__": "a", "jpg": photo(1, 300, 100)}]).decode(64, crop="random")
    assert next(cards_of(pipe, 1, 0, 64, 0))["crop"] != next(cards_of(pipe, 1, 1, 64, 0))["crop"]


def test_masks_are_clear_where_they_are_nothing_and_controls_are_as_they_are():
    mask = Image.new("L", (160, 120))
    ImageDraw.Draw(mask).rectangle([0, 0, 79, 119], fill=1)  # classes and masks of 0 and 1 are seen too
    edges = encoded(Image.new("RGB", (320, 240), "white"), "PNG")
    other = encoded(natural(50, 200), "PNG")
    found = card({"jpg": photo(), "mask.png": encoded(mask, "PNG"), "seg.png": encoded(mask, "PNG"), "canny.png": edges,
                  "ref.png": other})  # fmt: skip
    layers = {name: (drawn(data), alike) for name, data, alike in found["layers"]}
    assert {name: alike for name, (_, alike) in layers.items()} == {
        "mask.png": True,
        "seg.png": True,
        "canny.png": True,
        "ref.png": False,  # of another shape: it cannot be laid over the image
    }
    for name in ("mask.png", "seg.png"):
        assert layers[name][0][24, 10, 3] == 255
        assert layers[name][0][24, 54, 3] == 0
    assert (layers["canny.png"][0][24, 30] > 250).all()
    assert drawn(found["picture"]).shape == (48, 64, 4)
    assert (found["height"], found["width"]) == (120, 160)


def test_several_images_in_one_field_are_all_seen():
    pipe = sp.from_iterable([{"__key__": "a", "jpg": photo(), "ref.0.jpg": photo(1), "ref.1.jpg": photo(2)}])
    pipe = pipe.collect("ref")
    assert [name for name, _, _ in next(cards_of(pipe, 1, 0, 64, 0))["layers"]] == ["ref.0.image", "ref.1.image"]
    assert sp.show(next(iter(pipe)))._repr_html_().count("<img ") == 3
    assert sp.show(next(iter(pipe.decode(32))))._repr_html_().count("<img ") == 3


def test_what_is_wrong_with_a_sample_is_on_its_card():
    assert "damaged" in card({"jpg": photo()[:900]})["error"]
    assert "picture" in card({"jpg": photo()[:-300]}, damaged="accept")
    assert card({"jpg": photo(1, 300, 60)}, sp.Buckets([(8, 8)], max_ar=2))["left_out"] == "longer than max_ar"
    assert "enlarged" in card({"jpg": photo()}, size=512, upscale="drop")["left_out"]
    assert card({"txt": b"x"})["fields"] == {"txt": 1}


def test_facts_of_the_json_are_there_and_cut_to_a_size():
    values = {"aesthetic": 5.5, "width": 3, "long": "x" * 1000, "list": [1], "key": "other"}
    facts = card({"json": json.dumps(values).encode()})["facts"]
    assert facts == {"aesthetic": 5.5, "json.width": 3, "long": "x" * 300, "json.key": "other"}
