"""The stage that decodes: alone, in one with batch, seeded by key and epoch."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

import streampipe as sp
from streampipe import stages
from streampipe.decoding import decode_image
from tests.data import encoded, natural, photo
from tests.laws import run

IMAGES = [{"__key__": f"{i}", "jpg": photo(i, 90, 70), "txt": b"t"} for i in range(7)]


@pytest.mark.parametrize("threads", [None, 3])
@pytest.mark.parametrize("options", [{}, {"crop": "random"}, {"interpolation": "bilinear"}])
def test_decode_and_batch_in_one_is_decode_then_batch(options, threads):
    base = sp.from_iterable(IMAGES, seed=4)
    fused = list(base.decode(size=32, threads=threads, **options).batch(3))
    apart = list(base.decode(size=32, **options).map(lambda s: s).batch(3))
    assert len(fused) == len(apart) == 3
    for a, b in zip(fused, apart, strict=True):
        assert a.keys() == b.keys()
        assert torch.equal(a["jpg"], b["jpg"])
        assert (a["__key__"], a["txt"]) == (b["__key__"], b["txt"])


@pytest.mark.parametrize("threads", [None, 2])
def test_decode_and_batch_in_one_skips_bad_samples_as_they_do_apart(threads):
    bad = [*IMAGES[:2], {"__key__": "bad", "jpg": IMAGES[0]["jpg"][:500], "txt": b"t"}, *IMAGES[2:]]
    pipe = sp.from_iterable(bad, on_error="skip").decode(size=32, threads=threads).batch(3)
    first, *rest = pipe
    good = next(iter(sp.from_iterable(IMAGES).decode(size=32).batch(2)))
    assert first["__key__"] == ["0", "1", "0"]  # the slot of the bad one is filled from its batch
    assert torch.equal(first["jpg"][:2], good["jpg"])
    assert [batch["__key__"] for batch in rest] == [["2", "3", "4"], ["5", "6"]]
    with pytest.raises(sp.DecodeError, match="sample 'bad', field 'jpg'"):
        list(sp.from_iterable(bad).decode(size=32, threads=threads).batch(3))


def test_random_crops_depend_on_the_key_and_the_epoch_alone():
    pipe = sp.from_iterable(IMAGES, seed=1).decode(size=(64, 32), crop="random")
    first = {s["__key__"]: s["jpg"] for s in run(pipe, sp.Consumer(), 0)}
    for consumer in (sp.Consumer(0, 2), sp.Consumer(1, 2), sp.Consumer(0, 1, 1, 2)):
        for sample in run(pipe, consumer, 0, threads=2):
            assert torch.equal(sample["jpg"], first[sample["__key__"]])
    assert any(not torch.equal(s["jpg"], first[s["__key__"]]) for s in run(pipe, sp.Consumer(), 1))


def test_decode_only_some_fields_and_refuse_unknown_options():
    (sample,) = sp.from_iterable(IMAGES[:1]).decode(fields=("txt",))
    assert sample["txt"] == "t"
    assert sample["jpg"] == IMAGES[0]["jpg"]
    (sample,) = sp.from_iterable(IMAGES[:1]).decode(8, fields=("png;jpg",))
    assert (sample["txt"], sample["jpg"].shape) == (b"t", (3, 8, 8))
    with pytest.raises(sp.ConfigError, match="crop is one of"):
        list(sp.from_iterable(IMAGES).decode(size=8, crop="left"))
    with pytest.raises(sp.ConfigError, match="colour"):
        sp.from_iterable(IMAGES).decode(colour=1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"fields": ("jgp", "pgn")}, "fields= names 'jgp' and 'pgn', and none of the first 100 samples has that"),
        ({"size": {"jpg": 8, "contorl": 8}}, "size= names 'contorl'"),
        ({"size": 8, "interpolation": {"ctl": "area", "maks": "area"}}, "interpolation= names 'maks'"),
        (
            {"fields": ("jpg", "png", "ctl.png"), "size": {"jpg": 8, "ctl": 8}, "interpolation": {"mask": "bilinear"}},
            None,
        ),
    ],
)
def test_a_name_that_no_sample_has_is_said_once(options, said, caplog):
    image = encoded(Image.new("RGB", (8, 8)), "PNG")
    rare = [{"__key__": f"{i}", "jpg": image, **({"ctl.png": image} if i == 98 else {})} for i in range(200)]
    assert len(list(sp.from_iterable(rare).decode(**options).batch(4, collate=list))) == 50
    assert [each.message for each in caplog.records if not said or said not in each.message] == []
    assert len(caplog.records) == (said is not None)


def test_a_main_image_of_a_format_that_was_asked_for_has_rows_of_its_own_size():
    bmp, png = (encoded(natural(200, 100, 1), kind) for kind in ("BMP", "PNG"))
    samples = [{"__key__": str(i), "control.png": png, "bmp": bmp} for i in range(3)]
    base = (
        sp.from_iterable(samples).bucket(sp.Buckets([(64, 128), (128, 64)])).decode({"control": 32}, formats=("bmp",))
    )
    (fused,), (apart,) = base.batch(3), base.map(lambda sample: sample).batch(3)
    assert fused["bmp"].shape == (3, 3, 64, 128)
    assert torch.equal(fused["bmp"], apart["bmp"])
    assert torch.equal(fused["control.png"], apart["control.png"])


def test_pixels_are_never_written_into_memory_of_another_shape():
    memory = torch.zeros((2, 3, 8, 8), dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"out is \(8, 8\), and the image \(16, 16\)"):
        decode_image(IMAGES[0]["jpg"], size=(16, 16), out=memory[0])
    assert not memory.any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"background": "white"}, r"background is \(red, green, blue\)"),
        ({"background": (300, 0, 0)}, r"background is \(red, green, blue\)"),
        ({"background": (1.0, 1.0, 1.0)}, r"background is \(red, green, blue\)"),
        ({"max_pixels": "64M"}, "max_pixels is a whole number, 1 or more"),
        ({"memory": 0}, "memory is a whole number, 1 or more"),
        ({"fields": "jpg"}, "fields is a tuple of names"),
        ({"decoders": ["pt"]}, "decoders are functions from bytes"),
        ({"decoders": {"pt": "load"}}, "decoders are functions from bytes"),
        ({"formats": 3}, r"formats is a tuple of names or codecs, as in formats=\('tiff',\), not 3"),
        ({"upscale": True}, "upscale is 'allow', 'drop' or a factor of 1 or more, not True"),
        ({"margin": True}, "margin is 1 or more, or None, not True"),
        ({"scale": ("half", 1.0)}, "scale is the least and the most"),
        ({"size": {1: 64}}, "size is by the name of one field"),
    ],
)
def test_a_wrong_value_is_one_clear_sentence_before_anything_is_read(options, words):
    with pytest.raises(sp.ConfigError, match=words):
        sp.from_iterable(IMAGES).decode(**{"size": 8, **options})


def test_labels_that_are_arrays_are_not_left_behind_by_a_crop_or_a_flip():
    labels = np.zeros((70, 90), np.int64)
    samples = [{"__key__": "a", "jpg": IMAGES[0]["jpg"], "seg.npy": npy(labels)}]
    pipe = sp.from_iterable(samples)
    for wrong in (pipe.decode(size=(70, 90), flip=1.0), pipe.decode(32), pipe.decode().fit((70, 90), flip=1.0)):
        with pytest.raises(sp.SampleError, match=r"sample 'a', field 'seg.npy': it is of the image's size"):
            list(wrong)
    (sample,) = pipe.decode()
    assert (sample["seg.npy"] == labels).all()
    (sample,) = pipe.decode().map(lambda x: x.astype("int32"), "seg.npy").fit(32)
    assert sample["seg.npy"].shape == (32, 32)
    assert list(pipe.decode(32, fields=("jpg",)))
    assert list(pipe.decode().fit(32, fields=("jpg",)))


def test_what_has_a_value_for_each_pixel_is_not_left_behind_by_fit():
    sample = {"__key__": "a", "image": torch.rand(3, 8, 6), "mask": torch.zeros(1, 8, 6, dtype=torch.uint8)}
    with pytest.raises(sp.StageError, match=r"field 'image': it is of the image's size \(float32, 3 x 8 x 6\)"):
        list(stages.fit(size=(8, 6), flip=1.0)([sample]))
    assert list(stages.fit(size=(8, 6), flip=1.0, fields=("mask",))([sample]))


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()
