"""What ``decode`` and ``fit`` do to images, and what they write down about it."""

import gzip
import io
import json
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

import streampipe as sp
from streampipe import stages
from streampipe.context import Run
from streampipe.counters import counters
from tests.data import encoded, natural, photo, shard
from tests.laws import check_lazy, check_picklable, engine_of

RECORD = ("original_size", "crop_top_left", "target_size", "flipped", "time_ids")


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def stored(shown, orientation):
    """The image that must be stored under an orientation so that ``shown`` is shown."""
    turns = {2: [0], 3: [3], 4: [1], 5: [5], 6: [2], 7: [6], 8: [4]}.get(orientation, [])
    for turn in turns:
        shown = shown.transpose(Image.Transpose(turn))
    return shown


def ramp(width, height):
    """An image whose red is its column and whose green is its row, in shares of 255."""
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    return Image.fromarray(np.stack([x * 255, y * 255, 0 * x], -1).round().astype(np.uint8))


def one(sample, stage="decode", seed=0, **options):
    (made,) = getattr(sp.from_iterable([{"__key__": "k", **sample}], seed=seed), stage)(**options)
    return made


def record(sample):
    return {name: sample[name].tolist() if name == "time_ids" else sample[name] for name in RECORD}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_helper_stores_what_pillow_shows(orientation):
    image = stored(ramp(30, 20), orientation)
    data = encoded(image, "PNG", exif=exif(orientation))
    assert np.array_equal(ImageOps.exif_transpose(Image.open(io.BytesIO(data))), ramp(30, 20))


@settings(max_examples=120, deadline=None)
@given(
    st.tuples(st.integers(16, 250), st.integers(16, 250)),
    st.tuples(st.integers(8, 160), st.integers(8, 160)),
    st.integers(1, 8),
    st.sampled_from(["PNG", "JPEG"]),
    st.sampled_from(["bicubic", "bilinear", "nearest"]),
    st.sampled_from(["center", "random"]),
    st.integers(0, 10**6),
)
def test_the_record_says_which_pixel_of_the_original_each_pixel_shows(
    size, target, orientation, kind, interpolation, crop, seed
):
    (h, w), (th, tw) = size, target
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    data = encoded(stored(ramp(w, h), orientation), kind, exif=exif(orientation), **options)
    made = one({"jpg": data}, seed=seed, size=target, crop=crop, flip=0.5, interpolation=interpolation)
    assert made["original_size"] == size
    assert made["target_size"] == target
    assert made["time_ids"].tolist() == [*size, *made["crop_top_left"], *target]

    zoom = max(th / h, tw / w)  # all that follows is known from the record alone
    top, left = made["crop_top_left"]
    columns = left + np.arange(tw) + 0.5
    if made["flipped"]:
        columns = max(tw, round(w * zoom)) - columns
    rows = (top + np.arange(th) + 0.5) / zoom
    columns = columns / zoom

    red, green = made["jpg"][:2].float().numpy()
    found_x, found_y = red.mean(0) * w / 255, green.mean(1) * h / 255
    one_pixel = max(1.0, 1.0 / zoom)  # of the original, or of the result where that is coarser
    levels = (3 if kind == "JPEG" else 1) / 255
    assert np.abs(found_x - columns).max() <= one_pixel + levels * w
    assert np.abs(found_y - rows).max() <= one_pixel + levels * h


def test_the_mirrored_crop_is_counted_from_the_other_side():
    data = photo(1, 301, 200)
    plain, mirrored = (one({"jpg": data}, size=100, flip=flip, crop=lambda room, sample: (0, 10)) for flip in (0, 1))
    assert plain["crop_top_left"] == (0, 10)
    assert mirrored["crop_top_left"] == (0, round(301 / 2) - 100 - 10)
    assert (plain["flipped"], mirrored["flipped"]) == (False, True)
    assert torch.equal(mirrored["jpg"], plain["jpg"].flip(2))


@pytest.mark.parametrize("target", [(64, 64), (96, 48)])
@pytest.mark.parametrize("seed", range(3))
def test_the_same_as_diffusers_training_script_done_by_pillow(target, seed):
    """Resize the shorter side, crop, flip; the crop's corner in the flipped picture (train_text_to_image_sdxl.py)."""
    for i, (w, h) in enumerate([(400, 301), (257, 500), (640, 96), (333, 333)]):
        image = natural(w, h, seed)
        made = one({"png": encoded(image, "PNG")}, seed=seed + i, size=target, crop="random", flip=0.5)
        top, left = made["crop_top_left"]
        zoom = max(target[0] / h, target[1] / w)
        resized = image.resize((max(target[1], round(w * zoom)), max(target[0], round(h * zoom))), Image.BICUBIC)
        if made["flipped"]:
            resized = ImageOps.mirror(resized)
        wanted = np.asarray(resized.crop((left, top, left + target[1], top + target[0]))).astype(float)
        error = ((made["png"].permute(1, 2, 0).numpy() - wanted) ** 2).mean()
        off = np.asarray(resized.crop((left + 2, top + 2, left + 2 + target[1], top + 2 + target[0]))).astype(float)
        assert error <= 20
        assert error < ((off - wanted) ** 2).mean() / 3  # two pixels beside it would be seen
        assert made["time_ids"].tolist() == [h, w, top, left, *target]


def test_the_centre_is_where_diffusers_takes_it():
    for w, h in [(400, 301), (257, 500), (1600, 1000), (3000, 2000)]:
        made = one({"png": encoded(Image.new("RGB", (w, h)), "PNG")}, size=100)
        scale = 100 / min(w, h)
        wanted = round((h * scale - 100) / 2), round((w * scale - 100) / 2)
        assert np.abs(np.subtract(made["crop_top_left"], wanted)).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_control_images_stay_on_their_pixels(orientation, kind):
    shown = natural(601, 403, 5)
    control = encoded(shown, "PNG")
    options = {"quality": 95} if kind == "JPEG" else {}
    image = encoded(stored(shown, orientation), kind, exif=exif(orientation), **options)
    for seed in range(4):
        made = one({"image": image, "control": control}, seed=seed, size=(96, 64), crop="random", flip=0.5)
        a, b = made["image"].float(), made["control"].float()
        beside = min(((a[:, :, 1:] - b[:, :, :-1]) ** 2).mean(), ((a[:, :, :-1] - b[:, :, 1:]) ** 2).mean())
        error = ((a - b) ** 2).mean()
        assert error <= (0.25 if kind == "PNG" else 5)
        assert error < beside / 4


def test_masks_and_controls_of_another_resolution_are_cut_at_the_same_place():
    shown = ramp(240, 160)
    half = shown.resize((120, 80), Image.BOX)
    labels = np.zeros((160, 240), np.uint8)
    labels[:, 120:] = 200
    for seed in range(6):
        fields = {
            "cond.png": encoded(half, "PNG"),
            "jpg": encoded(shown, "PNG"),
            "mask.png": encoded(Image.fromarray(labels), "PNG"),
        }
        made = one(fields, seed=seed, size=(64, 80), crop="random", flip=0.5)
        assert made["original_size"] == (160, 240)
        assert (made["jpg"].float() - made["cond.png"].float()).abs().mean() <= 1.0
        mask = made["mask.png"]
        assert set(mask.unique().tolist()) <= {0, 200}
        assert ((mask[0] > 100) == (made["jpg"][0] > 127)).float().mean() >= 0.98


def test_each_field_has_its_own_interpolation():
    labels = Image.fromarray((np.indices((50, 50)).sum(0) % 2 * 255).astype(np.uint8))
    fields = {"jpg": encoded(labels.convert("RGB"), "PNG"), "mask.png": encoded(labels, "PNG")}
    fields |= {"seg.png": fields["mask.png"], "depth.png": fields["mask.png"]}
    made = one(fields, size=20, interpolation={"seg": "bilinear", "depth.png": "nearest"})
    two = {name for name in fields if len(made[name].unique()) == 2}
    assert two == {"mask.png", "depth.png"}
    with pytest.raises(
        sp.ConfigError, match="interpolation is one of 'bicubic', .*, 'nearest', not 'cubic'; did you mean"
    ):
        one(fields, size=20, interpolation={"seg": "cubic"})


def test_no_label_of_a_mask_is_a_mean_of_its_neighbours_also_in_a_jpeg():
    labels = np.kron(np.indices((128, 128)).sum(0) % 2, np.ones((4, 4))).astype(np.uint8) * 255
    mask = encoded(Image.fromarray(labels), "JPEG", quality=100)
    made = one({"jpg": photo(0, 512, 512), "mask.jpg": mask}, size=100)
    assert ((made["mask.jpg"] < 10) | (made["mask.jpg"] > 245)).all()


def test_pictures_of_another_shape_cannot_be_cut_as_one():
    fields = {"image": photo(0, 100, 100), "control": photo(0, 100, 70)}
    with pytest.raises(sp.DecodeError, match=r"field 'control': it is 70 x 100, another shape than the 100 x 100"):
        one(fields, size=32)
    pipe = sp.from_iterable([{"__key__": "k", **fields}]).decode(size=32, fields=("control",)).decode(size=32)
    (made,) = pipe
    assert made["control"].shape == made["image"].shape == (3, 32, 32)
    assert made["original_size"] == (100, 100)


IMAGES = {
    "jpg": photo(3, 301, 203),
    "png": encoded(natural(333, 222), "PNG"),
    "large": photo(4, 1211, 803),
    **{f"turned {n}": encoded(stored(natural(603, 403), n), quality=95, exif=exif(n)) for n in range(2, 9)},
}


@pytest.mark.parametrize("output", ["tensor", "numpy", "pil"])
@pytest.mark.parametrize("name", IMAGES)
def test_decode_then_fit_is_decode_to_the_size(name, output):
    options = {"size": (96, 64), "crop": "random", "flip": 0.5}
    for seed in range(3):
        pipe = sp.from_iterable([{"__key__": "k", "jpg": IMAGES[name]}], seed=seed)
        (fused,) = pipe.decode(output=output, **options)
        (alone,) = pipe.decode(output=output).fit(**options)
        assert record(fused) == record(alone)
        assert type(fused["jpg"]) is type(alone["jpg"])
        difference = np.asarray(fused["jpg"]).astype(float) - np.asarray(alone["jpg"])
        assert 10 * np.log10(255**2 / max(1e-9, (difference**2).mean())) >= 40
        (fused,) = pipe.decode(output=output, margin=None, **options)
        (alone,) = pipe.decode(output=output).fit(margin=None, **options)
        assert record(fused) == record(alone)
        assert np.abs(np.asarray(fused["jpg"]).astype(int) - np.asarray(alone["jpg"])).max() <= 3


def test_fit_keeps_what_an_image_is():
    arrays = {"grey": np.zeros((40, 60), np.uint8), "column": np.zeros((40, 60, 1), np.uint8)}
    fields = {"image": torch.zeros((3, 40, 60), dtype=torch.uint8), "alpha": Image.new("L", (60, 40)), "n": 3, **arrays}
    made = one(fields, "fit", size=(20, 10))
    assert made["image"].shape == (3, 20, 10)
    assert made["alpha"].size == (10, 20)
    assert made["alpha"].mode == "L"
    assert made["grey"].shape == (20, 10)
    assert made["column"].shape == (20, 10, 1)
    assert made["n"] == 3


def test_fit_gives_the_same_pixels_whatever_an_images_memory_looks_like():
    pixels = np.asarray(natural(90, 60))
    wanted = one({"image": pixels}, "fit", size=32)["image"]
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    for each in (tensor, tensor.contiguous(), tensor[:1].contiguous(), tensor[:1], torch.cat([tensor] * 2)[3:]):
        found = one({"image": each}, "fit", size=32)["image"]
        assert (found.permute(1, 2, 0).numpy() == wanted[..., : len(each)]).all()
    found = one({"image": pixels[::-1]}, "fit", size=32)["image"]
    assert np.abs(found[::-1].astype(int) - wanted).max() <= 1


def test_fit_says_what_is_missing():
    image = torch.zeros((3, 8, 8), dtype=torch.uint8)
    for fields, options, words in (
        ({"image": image}, {}, r"stage 'fit', sample 'k': there is no size; give fit\(size=...\)"),
        ({"txt": "a"}, {"size": 4}, "no decoded image"),
        ({"image": image.float()}, {"size": 4, "fields": ("image",)}, "'image' is no decoded image"),
        ({"image": image, "b": image[:, :4]}, {"size": 4}, "field 'b': it is 4 x 8, another shape"),
    ):
        with pytest.raises(sp.StageError, match=words):
            one(fields, "fit", **options)


@pytest.mark.parametrize("stage", [stages.fit(size=8, crop="random"), stages.decode(size=8, flip=0.5)])
def test_the_stages_obey_the_laws(stage):
    value = photo() if stage.name == "decode" else torch.zeros((3, 20, 30), dtype=torch.uint8)
    samples = [{"__key__": str(i), "jpg": value} for i in range(6)]
    check_picklable(stage, samples)
    check_lazy(stage, samples, ahead=1)


@pytest.mark.parametrize(
    "options", [{"crop": "middle"}, {"flip": 2}, {"upscale": 0.5}, {"upscale": "no"}, {"margin": 0}]
)
def test_wrong_options_are_refused(options):
    with pytest.raises(sp.ConfigError, match=next(iter(options))):
        one({"jpg": photo()}, **{"size": 8, **options})


def test_options_about_a_size_need_one():
    for options in ({"crop": "random"}, {"flip": 0.5}, {"upscale": "drop"}):
        with pytest.raises(sp.ConfigError, match=r"need a size to reach; give decode\(size=...\)"):
            one({"jpg": photo()}, **options)
    assert not set(RECORD) & set(one({"jpg": photo()}))


# crop functions


def on_the_face(room, sample):
    y, x = sample["json"]["face"]
    return y * room.resized[0] - room.target[0] / 2, x * room.resized[1] - room.target[1] / 2


def anywhere(room, sample, rng):
    return rng.integers(0, 1000), rng.integers(0, 1000)


def test_a_crop_function_sees_the_sample_and_places_the_crop():
    for face, crop in (((0.5, 0.5), (0, 25)), ((0.5, 0.9), (0, 50)), ((0.1, 0.0), (0, 0)), ((0.5, 0.4), (0, 10))):
        fields = {"jpg": encoded(ramp(300, 200), "PNG"), "json": json.dumps({"face": face}).encode()}
        made = one(fields, size=100, crop=on_the_face, margin=None)
        assert made["crop_top_left"] == crop
        (alone,) = (
            sp.from_iterable([{"__key__": "k", **fields}])
            .decode(margin=None)
            .fit(size=100, crop=on_the_face, margin=None)
        )
        assert record(alone) == record(made)


def test_a_crop_functions_generator_is_seeded_and_it_can_be_pickled():
    samples = [{"__key__": str(i), "jpg": photo(i, 200, 90)} for i in range(8)]
    stage = pickle.loads(pickle.dumps(stages.decode(size=64, crop=anywhere)))
    first = [s["crop_top_left"] for s in stage(samples, Run(seed=1, stage="decode"))]
    assert first == [s["crop_top_left"] for s in stage(samples[::-1], Run(seed=1, stage="decode"))][::-1]
    assert first != [s["crop_top_left"] for s in stage(samples, Run(seed=2, stage="decode"))]


@pytest.mark.parametrize("bad", [lambda room, sample: 1 / 0, lambda room, sample: None, lambda room, sample: (1, 2, 3)])
def test_a_crop_function_that_fails_is_named(bad):
    with pytest.raises(sp.StageError, match="stage 'decode', sample 'k': the crop function failed"):
        one({"jpg": photo()}, size=64, crop=bad)


# seeds, workers, tiers


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for number in range(2):
        samples = [
            (f"{number}{i}", {"jpg": photo(7 * number + i, 60 + 9 * i, 60), "json": json.dumps({"n": i})})
            for i in range(8)
        ]
        (folder / f"{number:05d}.tar").write_bytes(shard(samples))
    return folder


def numbers(batches):
    return {
        key: (tuple(ids), image.sum().item(), flipped)
        for b in batches
        for key, ids, image, flipped in zip(
            b["__key__"], b["time_ids"].tolist(), b["jpg"], b["flipped"].tolist(), strict=True
        )
    }


@pytest.mark.parametrize("tier", ["planned", "sequential"])
def test_crops_and_flips_do_not_depend_on_workers_ranks_or_threads(photos, tier):
    def pipe():
        return sp.stream(str(photos), seed=2, tier=tier).decode(size=(32, 48), crop="random", flip=0.5).batch(4)

    wanted = numbers(pipe())
    assert {flipped for _, _, flipped in wanted.values()} == {True, False}
    assert len({ids for ids, _, _ in wanted.values()}) > 8
    for options in ({"num_workers": 2}, {"threads": 3}, {"rank": 0, "world_size": 2}):
        if tier == "sequential" and "rank" in options:
            continue
        found = numbers(pipe().loader(**options))
        assert found.items() <= wanted.items()
        assert len(found) == (8 if "rank" in options else 16)


@pytest.mark.parametrize("tier", ["planned", "sequential"])
def test_crops_and_flips_are_the_same_after_a_resume(photos, tier):
    pipe = sp.stream(str(photos), seed=2, shuffle=5, tier=tier).decode(size=32, crop="random", flip=0.5).batch(4)
    loader = pipe.loader()
    batches = iter(loader)
    next(batches)
    state = loader.state_dict()
    rest = numbers(batches)
    again = pipe.loader()
    again.load_state_dict(state)
    assert numbers(again) == rest
    assert len(rest) == 12


def test_time_ids_are_one_tensor_a_batch(photos):
    batch = next(iter(sp.stream(str(photos)).decode(size=32).batch(4)))
    assert batch["time_ids"].dtype == torch.int64
    assert batch["time_ids"].shape == (4, 6)
    assert batch["original_size"] == [(60, 60), (60, 69), (60, 78), (60, 87)]
    assert batch["target_size"] == [(32, 32)] * 4


# too small


def test_small_images_are_dropped_and_counted(photos):
    before = counters.get("decode", "dropped, too small")
    pipe = sp.stream(str(photos), tier="sequential")
    assert len(list(pipe.decode(size=(60, 80), upscale="drop"))) == 10
    assert counters.get("decode", "dropped, too small") == before + 6
    assert len(list(pipe.decode(size=(60, 80), upscale=1.2))) == 14
    assert len(list(pipe.decode(size=(60, 80)))) == 16
    assert len(list(pipe.decode().fit(size=(60, 80), upscale="drop"))) == 10
    assert "dropped, too small" in pipe.report()


def test_the_slots_of_small_images_in_a_planned_batch_are_filled(photos):
    pipe = sp.stream(str(photos)).decode(size=(60, 80), upscale="drop").batch(8)
    batches = list(pipe)
    assert [len(b["__key__"]) for b in batches] == [8, 8]
    assert [len(set(b["__key__"])) for b in batches] == [5, 5]
    assert all(size[1] >= 80 for b in batches for size in b["original_size"])
    assert engine_of(pipe).division.batch == 8
    assert len(list(sp.stream(str(photos)).decode(size=(60, 80), upscale="drop"))) == 10


def test_dropping_everything_is_an_error(photos):
    with pytest.raises(sp.StageError, match="dropped every one of 16 samples.*upscale"):
        list(sp.stream(str(photos), tier="sequential").decode(size=500, upscale="drop"))
    with pytest.raises(sp.TooManyErrors, match="batch 0"):
        list(sp.stream(str(photos)).decode(size=500, upscale="drop").batch(4))


# sizes of their own, as bucket gives them


def sized(n, sizes):
    return [
        {"__key__": str(i), "__size__": sizes[i // n % len(sizes)], "jpg": photo(i, 90, 70)}
        for i in range(2 * n * len(sizes))
    ]


@pytest.mark.parametrize("threads", [None, 3])
def test_batches_have_the_samples_own_sizes_in_memory_of_their_own(threads):
    sizes = [(32, 48), (48, 32), (40, 40)]
    samples = sized(4, sizes)
    batches = list(sp.from_iterable(samples).decode(crop="random", flip=0.5, threads=threads).batch(4))
    assert [tuple(b["jpg"].shape) for b in batches] == [(4, 3, *size) for size in sizes * 2]
    apart = list(sp.from_iterable(samples).decode(crop="random", flip=0.5).map(lambda s: s))
    for i, sample in enumerate(apart):
        assert torch.equal(batches[i // 4]["jpg"][i % 4], sample["jpg"])
        assert torch.equal(batches[i // 4]["time_ids"][i % 4], sample["time_ids"])
    assert batches[0]["jpg"].is_contiguous(memory_format=torch.channels_last)


def test_a_batch_never_mixes_sizes():
    pipe = sp.from_iterable(sized(3, [(32, 48), (48, 32)])).decode()
    assert [len(b["__key__"]) for b in pipe.batch(3)] == [3] * 4
    with pytest.raises(sp.StageError, match="'jpg' cannot be stacked"):
        list(pipe.batch(2))


@pytest.mark.parametrize("tier", ["planned", "sequential"])
def test_buckets_are_decoded_into_batches_with_the_numbers_of_single_images(photos, tier):
    def pipe():
        return sp.stream(str(photos), tier=tier, seed=3).bucket([(32, 48), (32, 64)]).decode(crop="random", flip=0.5)

    apart = {sample["__key__"]: sample for sample in pipe()}
    seen = set()
    for batch in pipe().batch(4):
        assert len({tuple(batch["jpg"].shape[2:]), *batch["target_size"], *batch["__size__"]}) == 1
        for i, key in enumerate(batch["__key__"]):
            assert torch.equal(batch["jpg"][i], apart[key]["jpg"])
            assert torch.equal(batch["time_ids"][i], apart[key]["time_ids"])
            seen.add(key)
    assert len(seen) >= 8


# original sizes


def described(_width, _height, **facts):
    return {"jpg": photo(0, _width, _height), "json": json.dumps(facts).encode()}


@pytest.mark.parametrize(
    ("facts", "original"),
    [
        ({"original_width": 4000, "original_height": 3000}, (3000, 4000)),
        ({"WIDTH": 4000, "HEIGHT": 3000}, (3000, 4000)),
        ({"original_width": None, "original_height": None}, (90, 120)),  # img2dataset without re-encoding
        ({}, (90, 120)),
    ],
)
def test_the_original_size_can_come_from_the_json(facts, original):
    fields = described(120, 90, **facts)
    made = one(fields, size=32, original_size="json")
    assert made["original_size"] == original
    assert made["time_ids"].tolist() == [*original, *made["crop_top_left"], 32, 32]
    assert one(fields, size=32)["original_size"] == (90, 120)
    (alone,) = sp.from_iterable([{"__key__": "k", **fields}]).decode().fit(size=32, original_size="json")
    assert record(alone) == record(made)


def test_the_original_size_of_a_turned_image_is_turned_with_it():
    data = encoded(stored(natural(90, 120), 6), exif=exif(6))
    facts = json.dumps({"original_width": 4000, "original_height": 3000}).encode()
    made = one({"jpg": data, "json": facts}, size=32, original_size="json")
    assert made["original_size"] == (4000, 3000)


def test_a_json_that_states_another_size_is_counted():
    before = counters.get("decode", "json size differs")
    for facts in ({"width": 120, "height": 90}, {"width": 90, "height": 120}, {"w": 120, "h": 90}, {"width": "x"}, {}):
        one(described(120, 90, **facts), size=32)
    assert counters.get("decode", "json size differs") == before
    assert one(described(120, 90, width=384, height=288), size=32)["original_size"] == (90, 120)
    one(described(120, 90, width=384, height=288))
    assert counters.get("decode", "json size differs") == before + 2


# kinds of images


def test_the_alpha_channel_can_be_a_mask():
    rgba = np.zeros((60, 90, 4), np.uint8)
    rgba[..., 0] = 200
    rgba[:, 45:, 3] = 255
    made = one({"png": encoded(Image.fromarray(rgba), "PNG")}, size=(30, 40), alpha="mask", flip=1)
    assert made["mask"].shape == (1, 30, 40)
    assert made["mask"].dtype == torch.uint8
    assert made["mask"][0, 0].tolist() == [255] * 20 + [0] * 20
    assert made["png"][:, 0, 35].tolist() == [255, 255, 255]
    assert one({"jpg": photo()}, size=32, alpha="mask")["mask"].unique().tolist() == [255]
    assert one({"png": encoded(Image.fromarray(rgba), "PNG")}, alpha="mask", output="pil")["mask"].size == (90, 60)
    with pytest.raises(sp.DecodeError, match="has a field 'mask' already"):
        one(dict.fromkeys(("png", "mask"), encoded(Image.fromarray(rgba), "PNG")), size=32, alpha="mask")
    with pytest.raises(sp.ConfigError, match="alpha is one of"):
        one({"jpg": photo()}, alpha="yes")


def test_masks_of_alpha_are_batched():
    samples = [{"__key__": str(i), "jpg": photo(i)} for i in range(3)]
    (batch,) = sp.from_iterable(samples).decode(size=16, alpha="mask").batch(3)
    assert batch["mask"].shape == (3, 1, 16, 16)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animations_are_counted(kind):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    options = {"lossless": True} if kind == "WEBP" else {}
    before = counters.get("decode", "animations, first frame taken")
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert one({"gif": data}, size=8)["gif"][:, 4, 4].tolist() == [255, 0, 0]
    one({"gif": encoded(frames[0], kind)}, size=8)
    assert counters.get("decode", "animations, first frame taken") == before + 1


def test_a_header_of_two_hundred_megapixels_is_refused():
    data = bytearray(photo())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = (10_000).to_bytes(2, "big") + (20_000).to_bytes(2, "big")
    with pytest.raises(sp.DecodeError, match=r"sample 'k', field 'jpg': .*10000 x 20000 pixels.*raise max_pixels"):
        one({"jpg": bytes(data)}, size=32)


def test_an_image_that_ends_in_the_middle_is_an_error_not_a_grey_half():
    for kind in ("JPEG", "PNG", "WEBP"):
        data = encoded(natural(300, 200), kind)
        with pytest.raises(sp.DecodeError, match="sample 'k', field 'jpg'"):
            one({"jpg": data[: len(data) // 2]}, size=(64, 64))


def test_zipped_images_are_images():
    made = one({"jpg": photo(), "mask.png.gz": gzip.compress(encoded(natural(160, 120), "PNG"))}, size=32)
    assert made["mask.png.gz"].shape == (3, 32, 32)


@pytest.mark.parametrize("tier", ["planned", "sequential"])
@pytest.mark.parametrize("damage", [b"", b"<html>not found</html>"])
def test_what_is_no_image_under_a_name_for_images_is_a_bad_sample(tmp_path, tier, damage):
    """Behind ``rename`` no extension says that it should be one."""
    samples = [("a", {"jpg": photo(1)}), ("b", {"jpg": damage}), ("c", {"jpg": photo(2)})]
    (tmp_path / "0.tar").write_bytes(shard(samples))
    with pytest.raises(sp.DecodeError, match="sample 'b'.*field 'image'.*no image"):
        list(sp.stream(tmp_path / "0.tar", tier=tier).rename(image="jpg").decode(32).batch(3))
    (batch,) = sp.stream(tmp_path / "0.tar", tier=tier, on_error="skip").rename(image="jpg").decode(32).batch(3)
    assert "b" not in batch["__key__"]
    assert batch["image"].shape[1:] == (3, 32, 32)


def test_memory_that_no_image_was_written_to_is_never_given_out(tmp_path):
    samples = [("a", {"jpg": photo(1), "picture": photo(1)}), ("b", {"jpg": photo(2), "picture": b"no image"})]
    (tmp_path / "0.tar").write_bytes(shard(samples))
    with pytest.raises(sp.StageError, match="'picture' cannot be stacked.*bytes in 'b'"):
        list(sp.stream(tmp_path / "0.tar").decode(32).batch(2))
