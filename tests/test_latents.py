"""The latents recipe with tiny models: what is stored is what the models say, and training draws from it."""

import importlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch

import streampipe as sp
from tests.data import write_photos

EXAMPLES = Path(__file__).parent.parent / "examples"


def example(name):
    """A module of ``examples/``, imported when a test asks: diffusers in a process makes each fork of it dearer."""
    return importlib.import_module(name)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Networks this small are slower on several threads, and much slower on a busy machine."""
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    write_photos(folder, [9, 5])
    return str(folder)


def given(folder, out, *more):
    return example("encode_latents").arguments(
        [folder, str(out), "--size", "32", "--max-samples", "6", "--threads", "0", *more]
    )


def encode(folder, out, *more):
    example("encode_latents").main(given(folder, out, *more))
    return files(out)


def files(out):
    return {name: (Path(out) / name).read_bytes() for name in sorted(os.listdir(out))}


@pytest.fixture(scope="module")
def latents(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("latents")
    encode(folder, out, "--t5", "--flip", "0.5")
    return str(out)


def test_what_is_stored_is_what_the_models_say_of_each_sample_alone(folder, latents):
    vae, clip, words = (
        example("tiny_models").vae(),
        example("tiny_models").clip(),
        example("tiny_models").clip_tokenizer(),
    )
    t5, t5_words = example("tiny_models").t5(), example("tiny_models").t5_tokenizer()
    stored = {sample["__key__"]: sample for sample in sp.stream(latents).decode()}
    flips = 0
    source = sp.stream(folder).rename(image="jpg", text="txt").select("image", "text").decode(32, flip=0.5)
    for sample in source:
        found = stored.pop(sample["__key__"])
        with torch.no_grad():
            posterior = vae.encode(sample["image"][None].float() / 127.5 - 1).latent_dist
            ids = words([sample["text"]], padding="max_length", max_length=77, return_tensors="pt").input_ids
            text = clip(ids)
            ids = t5_words([sample["text"]], padding="max_length", max_length=64, return_tensors="pt").input_ids
            long = t5(ids).last_hidden_state
        for name, value in (
            ("latents.npy", torch.stack([posterior.mean[0], posterior.std[0]])),
            ("text_embeds.npy", text.last_hidden_state[0]),
            ("pooled.npy", text.pooler_output[0]),
            ("t5_embeds.npy", long[0]),
        ):
            assert found[name].dtype == np.float16
            np.testing.assert_allclose(found[name], value.numpy(), atol=4e-3, rtol=2e-3, err_msg=name)
        assert found["txt"] == sample["text"]
        for name in ("original_size", "crop_top_left", "target_size"):
            assert tuple(found["json"][name]) == tuple(sample[name])
        assert found["json"]["flipped"] == sample["flipped"]
        flips += sample["flipped"]
    assert not stored
    assert 0 < flips < 14  # the seed says so


def test_lost_shards_are_made_again_byte_for_byte_and_other_models_are_another_job(folder, tmp_path):
    whole = encode(folder, tmp_path / "out", "--no-text")
    (tmp_path / "out/00001.tar").unlink()
    assert encode(folder, tmp_path / "out", "--no-text") == whole
    assert "text_embeds" not in str(whole["00000.tar"])
    with pytest.raises(sp.OutputBusy, match="its pipeline was"):
        encode(folder, tmp_path / "out", "--no-text", "--dtype", "bfloat16")
    example("tiny_models").vae().save_pretrained(tmp_path / "vae")
    assert encode(folder, tmp_path / "pretrained", "--no-text", "--vae", str(tmp_path / "vae")).keys() == whole.keys()


def test_latents_of_buckets_are_trained_on_in_the_same_buckets(folder, tmp_path):
    buckets = [(32, 32), (32, 48), (64, 32)]  # (height, width)
    options = given(folder, tmp_path)
    options.buckets = buckets
    example("encode_latents").main(options)
    shapes = {s["__key__"]: s["latents.npy"].shape for s in sp.stream(str(tmp_path)).decode()}
    assert len(shapes) == 14
    assert set(shapes.values()) == {(2, 4, 4, 4), (2, 4, 4, 6)}  # portraits there are none
    loader = example("train_from_latents").pipeline(str(tmp_path), 2, buckets, epochs=2).loader()
    batches = list(loader)
    assert sum(len(batch["latents"]) for batch in batches) >= 24
    assert {tuple(batch["latents"].shape[1:]) for batch in batches} == {(4, 4, 4), (4, 4, 6)}


def test_the_specification_can_be_asked_for_without_reading_latents(latents):
    sample = next(iter(sp.stream(latents).decode()))
    spec = sample["json"]["spec"]
    assert len(list(sp.stream(latents).where(f"spec == '{spec}'"))) == 14
    with pytest.raises(sp.StageError, match="dropped every one"):
        next(iter(sp.stream(latents).where("spec == 'other'")))


def draws(latents, epoch, **options):
    loader = example("train_from_latents").pipeline(latents, batch=4).loader(**options)
    loader.set_epoch(epoch)
    pairs = [pair for batch in loader for pair in zip(batch["text"][:, :, 0].tolist(), batch["latents"], strict=True)]
    return {tuple(row): z for row, z in pairs}


def test_latents_are_drawn_anew_in_every_epoch_and_alike_on_any_workers(latents):
    first, again, other = draws(latents, 0), draws(latents, 0, num_workers=2), draws(latents, 1)
    assert first.keys() == again.keys() == other.keys()
    assert len(first) == 14
    for row, z in first.items():
        assert torch.equal(z, again[row])
        assert not torch.equal(z, other[row])


def test_a_draw_has_the_mean_and_deviation_that_were_stored():
    mean, std = np.full((2, 8, 8), 3.0, np.float16), np.full((2, 8, 8), 0.5, np.float16)
    sizes = dict.fromkeys(("original_size", "crop_top_left", "target_size"), (1, 2))
    sample = {
        "latents.npy": np.stack([mean, std]),
        "text_embeds.npy": mean,
        "pooled.npy": mean,
        "json": {"scaling_factor": 2.0, "shift_factor": 1.0, **sizes},
    }
    z = torch.stack(
        [example("train_from_latents").draw(sample, np.random.default_rng(i))["latents"] for i in range(100)]
    )
    assert abs(z.mean().item() - 4) < 0.02
    assert abs(z.std().item() - 1) < 0.02


def test_training_from_the_shards_learns(latents, capsys):
    losses = example("train_from_latents").main([latents, "--epochs", "4"])
    assert losses[-1] < losses[0]
    assert "epoch 3: loss" in capsys.readouterr().out


def test_overflow_is_an_error_not_a_shard_of_nothing(folder, tmp_path):
    class Broken(torch.nn.Module):
        def encode(self, x):
            return type("Out", (), {"latent_dist": type("D", (), {"mean": x * 1e9, "std": x})})

    with pytest.raises(ValueError, match="overflows in this dtype"):
        example("encode_latents").encode_images(Broken(), torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
