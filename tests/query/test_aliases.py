"""Every public layout of image-text shards is read without an option, planned and sequential alike."""

import json

import pytest

import streampipe as sp
from streampipe.counters import counters
from streampipe.query.aliases import CAPTION_KEYS, COLUMNS
from tests.data import encoded, natural, photo, shard


def img2dataset(i, **more):
    base = {"url": "https://x/y.jpg", "caption": f"caption {i}", "key": f"{i:09d}", "status": "success"}
    sizes = {"width": 40 + i, "height": 30, "original_width": 400 + i, "original_height": 300}
    return {**base, **sizes, "exif": "{}", "sha256": "0" * 64, **more}


def image(i, kind="jpg"):
    return photo(i, 40 + i, 30) if kind in ("jpg", "jpeg") else encoded(natural(40 + i, 30, i), kind.upper())


# A layout: the members of sample i. The i-th has aesthetic 4 + i, watermark i / 10, nsfw i / 10, similarity i / 10.
LAYOUTS = {
    "img2dataset": lambda i: {"jpg": image(i), "json": img2dataset(i), "txt": f"caption {i}"},
    "img2dataset without re-encoding": lambda i: {
        "webp": image(i, "webp"),
        "json": {**img2dataset(i), "width": None, "height": None, "original_width": None, "original_height": None},
        "txt": f"caption {i}",
    },
    "LAION-2B": lambda i: {
        "jpg": image(i),
        "txt": f"caption {i}",
        "json": img2dataset(
            i, similarity=i / 10, hash=i, punsafe=i / 10, pwatermark=i / 10, aesthetic=4.0 + i, LANGUAGE="en"
        ),
    },
    "LAION aesthetics v2": lambda i: {
        "jpg": image(i),
        "txt": f"caption {i}",
        "json": img2dataset(i, AESTHETIC_SCORE=4.0 + i, punsafe=i / 10, pwatermark=i / 10, similarity=i / 10),
    },
    "LAION-400M": lambda i: {
        "jpg": image(i),
        "txt": f"caption {i}",
        "json": img2dataset(i, NSFW="UNLIKELY" if i < 3 else "NSFW", similarity=i / 10, LICENSE="?"),
    },
    "laion-coco": lambda i: {
        "jpg": image(i),
        "json": img2dataset(i, caption=None, top_caption=f"caption {i}", all_captions=[f"caption {i}", "other"]),
    },
    "COYO-700M": lambda i: {
        "jpg": image(i),
        "txt": f"caption {i}",
        "json": img2dataset(
            i,
            clip_similarity_vitb32=0.9,
            clip_similarity_vitl14=i / 10,
            nsfw_score_opennsfw2=i / 10,
            watermark_score=i / 10,
            aesthetic_score_laion_v2=4.0 + i,
        ),
    },
    "CC12M pixparse": lambda i: {
        "jpg": image(i),
        "txt": f"caption {i}",
        "json": {"width": 40 + i, "height": 30, "key": str(i)},
    },
    "DataComp": lambda i: {
        "jpg": image(i),
        "txt": f"caption {i}",
        "json": {"uid": f"{i:032x}", "clip_b32_similarity_score": 0.9, "clip_l14_similarity_score": i / 10},
    },
    "DataCompDR": lambda i: {
        "jpg": image(i),
        "txt": f"caption {i}",
        "json": {"uid": f"{i:032x}"},
        "syn.json": {"syn_text": [f"synthetic {i}", f"other {i}"]},
        "paug.json": {"param_aug": "[]"},
    },
    "text-to-image-2M": lambda i: {"jpg": image(i), "json": {"prompt": f"caption {i}"}},
    "dalle3-1M": lambda i: {
        ("png" if i % 2 else "jpeg"): image(i, "png" if i % 2 else "jpeg"),
        "json": {
            "short_caption": "short",
            "long_caption": f"caption {i}",
            "width": 40 + i,
            "height": 30,
            "resolution": "x",
        },
    },
    "bucketed shards": lambda i: {
        "jpg": image(i),
        "txt": f"caption {i}",
        "json": {"w": 40 + i, "h": 30, "image_mode": "RGB", "caption_variant": "a"},
    },
    "stability": lambda i: {
        "jpg": image(i),
        "txt": f"caption {i}",
        "json": {"stability_metadata": {"aes_scorelv2": 4.0 + i, "p_watermarkdf": i / 10, "p_nsfwdf": i / 10}},
    },
    "jpg and txt alone": lambda i: {"jpg": image(i), "txt": f"caption {i}"},
}
KNOWN = {  # which scores a layout has
    "LAION-2B": ("aesthetic", "watermark", "nsfw", "similarity"),
    "LAION aesthetics v2": ("aesthetic", "watermark", "nsfw", "similarity"),
    "LAION-400M": ("similarity",),
    "COYO-700M": ("aesthetic", "watermark", "nsfw", "similarity"),
    "DataComp": ("similarity",),
    "stability": ("aesthetic", "watermark", "nsfw"),
}
ORIGINAL = ("img2dataset", "LAION", "COYO", "laion-coco")
SAMPLES = 6


def text(value):
    return value if isinstance(value, (bytes, str)) else json.dumps(value)


@pytest.fixture(scope="module", params=LAYOUTS)
def layout(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("layout")
    for number in range(2):
        keys = range(number * 3, number * 3 + 3)
        rows = [(f"{i:09d}", {name: text(value) for name, value in LAYOUTS[request.param](i).items()}) for i in keys]
        (folder / f"{number:05d}.tar").write_bytes(shard(rows))
    return request.param, str(folder)


def keys(folder, condition, samples=SAMPLES, **options):
    """The kept samples' numbers, which must be the same in both tiers."""
    found = []
    for tier in ("planned", "sequential"):
        try:
            pipe = sp.stream(folder, tier=tier).where(condition, **options)
            found.append([int(sample["__key__"]) for sample in pipe])
        except sp.StageError as error:
            assert f"dropped every one of {samples} samples" in str(error)
            found.append([])
    assert found[0] == found[1]
    return found[0]


def test_captions_and_images_are_found(layout):
    _, folder = layout
    for tier in ("planned", "sequential"):
        pipe = sp.stream(folder, tier=tier).decode(size=16).caption().rename(image="jpg;jpeg;png;webp")
        rows = [(each["caption"], each["caption_dropped"], tuple(each["image"].shape)) for each in pipe]
        assert rows == [(f"caption {i}", False, (3, 16, 16)) for i in range(SAMPLES)]


def test_sizes_are_found(layout):
    name, folder = layout
    assert keys(folder, "width >= 42 and height == 30") == [2, 3, 4, 5]
    known = name.startswith(ORIGINAL) and "without" not in name
    assert keys(folder, "original_width >= 402" if known else "original_width >= 42") == [2, 3, 4, 5]
    assert keys(folder, "original_height == 300" if known else "original_height == 30") == list(range(SAMPLES))


@pytest.mark.parametrize("score", ["aesthetic", "watermark", "nsfw", "similarity"])
def test_scores_are_found_where_there_are_any(layout, score):
    name, folder = layout
    limit = 6 if score == "aesthetic" else 0.2
    if score in KNOWN.get(name, ()):
        assert keys(folder, f"{score} >= {limit}") == [2, 3, 4, 5]
        assert keys(folder, f"{score} >= {limit}", missing="error") == [2, 3, 4, 5]
    elif (name, score) != ("LAION-400M", "nsfw"):
        assert keys(folder, f"{score} >= {limit}") == []
        assert keys(folder, f"{score} >= {limit}", missing="keep") == list(range(SAMPLES))


@pytest.mark.parametrize("layout", ["LAION-400M"], indirect=True)
def test_texts_stay_texts(layout):
    assert keys(layout[1], "nsfw == 'UNLIKELY'") == [0, 1, 2]
    assert keys(layout[1], "nsfw in ['NSFW']") == [3, 4, 5]
    with pytest.raises(sp.ConfigError, match="a text and a number have no order"):
        keys(layout[1], "nsfw < 0.5")


@pytest.mark.parametrize("layout", ["LAION-2B"], indirect=True)
def test_languages_and_captions_are_names_too(layout):
    assert keys(layout[1], "language == 'en'") == list(range(SAMPLES))
    assert keys(layout[1], "caption == 'caption 3'") == [3]


@pytest.mark.parametrize("layout", ["DataCompDR"], indirect=True)
def test_members_of_several_dots_are_found_by_their_whole_name(layout):
    pipe = sp.stream(layout[1]).caption(("syn.json.syn_text", "txt"), weights=(1, 0))
    assert all(
        each["caption"] in (f"synthetic {int(each['__key__'])}", f"other {int(each['__key__'])}") for each in pipe
    )
    pipe = sp.stream(layout[1]).decode().caption("syn.json.syn_text.0")
    assert [each["caption"] for each in pipe] == [f"synthetic {i}" for i in range(SAMPLES)]


def write(folder, rows):
    (folder / "0.tar").write_bytes(shard([(f"{i}", {"json": json.dumps(row)}) for i, row in enumerate(rows)]))
    return str(folder)


def test_a_column_of_the_very_name_wins_where_it_has_a_value(tmp_path):
    rows = [
        {"aesthetic": 3, "AESTHETIC_SCORE": 9},
        {"aesthetic": None, "AESTHETIC_SCORE": 9},
        {"AESTHETIC_SCORE": 3, "aesthetic_score": 9.5},
        {"aesthetic_score": 9.5},
        {"aesthetic": float("nan"), "stability_metadata": {"aes_scorelv2": 9}},
        {"other": 9},
    ]
    assert keys(write(tmp_path, rows), "aesthetic > 5") == [1, 3, 4]


def test_what_was_taken_for_what_is_told(tmp_path):
    folder = write(tmp_path, [{"AESTHETIC_SCORE": 3}, {"aesthetic_score": 4}])
    pipe = sp.stream(folder).where("aesthetic > 3 and n is None")
    assert "names        aesthetic is AESTHETIC_SCORE else aesthetic_score\n" in pipe.explain()
    text = sp.stream(folder, tier="sequential").where("aesthetic > 3").explain()
    assert "aesthetic is aesthetic else AESTHETIC_SCORE else aesthetic_score else" in text
    assert "names" not in sp.stream(folder).where("n is None").explain()
    for tier in (None, "sequential"):
        with pytest.raises(
            sp.StageError,
            match=r"\(watermark < 1 is unknown for 2\); check names and limits: watermark is none of watermark, "
            r"pwatermark, .*; there are AESTHETIC_SCORE, aesthetic_score, height, key, width",
        ):
            list(sp.stream(folder, tier=tier).where("watermark < 1"))


def counts(stage):
    """What a stage left out and why."""
    found = {what: n for (name, what), n in counters.snapshot().items() if name == stage and "beside" not in what}
    return {what: n for what, n in found.items() if not what.startswith("samples ")}


@pytest.mark.parametrize("tier", [None, "sequential"])
def test_what_each_part_of_a_condition_drops_is_counted(tmp_path, tier):
    rows = [{"n": i, "aesthetic": None if i % 5 == 4 else i % 5, "m": i} for i in range(40)]
    folder = write(tmp_path, rows)
    counters.take()
    pipe = sp.stream(folder, tier=tier).where("n < 30 and (aesthetic >= 2 and m >= 5)").where("n != 8", "keep")
    kept = [int(each["__key__"]) for each in pipe]
    good = [i for i in range(30) if i % 5 in (2, 3) and i >= 5]
    assert kept == [i for i in good if i != 8]
    assert counts("where") == {
        "dropped": 40 - len(good),
        "dropped because n < 30 is false": 10,
        "dropped because aesthetic >= 2 is false": 12,
        "dropped because m >= 5 is false": 3,
        "dropped because aesthetic >= 2 is unknown": 5,
    }
    assert counts("where#2") == {"dropped": 1, "dropped because n != 8 is false": 1}
    assert "10 dropped because n < 30 is false" in pipe.report()
    counters.take()
    list(sp.stream(folder, tier=tier).where("aesthetic >= 0", missing="keep"))
    assert counts("where") == {"kept without a value": 8}


def test_tables_name_themselves_first():
    assert all(names[0] == name for name, names in COLUMNS.items() if name != "caption")
    assert COLUMNS["caption"][0] == "caption"
    assert CAPTION_KEYS[:3] == ("txt", "caption", "text")


def one_shard(folder, samples):
    (folder / "00000.tar").write_bytes(
        shard([(f"{i:09d}", {name: text(value) for name, value in each.items()}) for i, each in enumerate(samples)])
    )
    return str(folder)


def test_captions_under_names_of_their_own_are_asked_for_and_named(tmp_path):
    # As in SPRIGHT: the json is captions and nothing else.
    captions = {"general_caption": "a cat", "spatial_caption": "a cat left of a dog"}
    folder = one_shard(tmp_path, [{"jpg": image(i), "json": captions} for i in range(3)])
    with pytest.raises(sp.StageError, match=r"it has jpg, json, json.general_caption, json.spatial_caption\); name"):
        list(sp.stream(folder).caption())
    pipe = sp.stream(folder).decode().caption(("spatial_caption", "general_caption"), weights=(1, 1))
    assert {each["caption"] for each in pipe} <= set(captions.values())


def test_images_without_captions_can_have_empty_ones(tmp_path):
    # As in deepghs' indexed tars: images alone; captions are elsewhere, by key.
    folder = one_shard(tmp_path, [{"webp": image(i, "webp")} for i in range(3)])
    assert [each["caption"] for each in sp.stream(folder).caption(missing="keep")] == [""] * 3
    (tmp_path / "captions.jsonl").write_text(
        "\n".join(json.dumps({"key": f"{i:09d}", "tags": ["a", "b"]}) for i in range(3))
    )
    pipe = sp.stream(folder).join(tmp_path / "captions.jsonl").caption("tags")
    assert all(each["caption"] in ("a", "b") for each in pipe)


def test_several_images_of_one_caption_keep_their_whole_names(tmp_path):
    # As in synthetic sets with the candidates of one prompt: 0.png, 1.png, ... and one text.
    members = {"0.png": image(1, "png"), "1.png": image(2, "png"), "txt": "a cat", "clip_scores.txt": "0.1 0.2"}
    folder = one_shard(tmp_path, [members] * 3)
    for each in sp.stream(folder).caption().decode(size=8):
        assert (each["caption"], each["clip_scores.txt"]) == ("a cat", "0.1 0.2")
        assert each["0.png"].shape == each["1.png"].shape == (3, 8, 8)
    assert keys(folder, "width == 41") == [0, 1, 2]
