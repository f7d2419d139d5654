"""The stage that decodes: alone, in one with batch, seeded by key and epoch."""

import pytest
import torch

import streampipe as sp
from tests.data import photo
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
    with pytest.raises(sp.ConfigError, match="crop is one of"):
        list(sp.from_iterable(IMAGES).decode(size=8, crop="left"))
    with pytest.raises(sp.ConfigError, match="colour"):
        sp.from_iterable(IMAGES).decode(colour=1)
