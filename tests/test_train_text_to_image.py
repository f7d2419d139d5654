"""The text-to-image trainer on two processes, killed and resumed; and the drop-in for diffusers' data class."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.data import encoded as image_bytes
from tests.data import natural, shard

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}


def train(out, steps, shards):
    """The trainer on two processes, begun."""
    given = ["--out", out, "--shards", shards, "--steps", steps, "--checkpoint-every", 2, "--batch-size", 4]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2]
    command += [EXAMPLES / "train_text_to_image.py", *given]
    return subprocess.Popen(
        list(map(str, command)),
        env=ENVIRONMENT,
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(process):
    text, _ = process.communicate(timeout=200)
    assert process.returncode == 0, text
    return text


def losses(out):
    return [json.loads(line) for line in (out / "losses.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    sizes = ((120, 80), (80, 120), (96, 96))
    for number in range(3):
        samples = [
            (f"{number}{i:02d}", {"jpg": image_bytes(natural(*sizes[i % 3], seed=i)), "txt": f"picture {i}"})
            for i in range(24)
        ]
        (folder / f"{number:05d}.tar").write_bytes(shard(samples))
    return folder


def test_a_killed_training_of_two_processes_goes_on_with_the_same_losses(shards, tmp_path):
    finished(train(tmp_path / "whole", 8, shards))
    whole = losses(tmp_path / "whole")
    assert [each["step"] for each in whole] == list(range(1, 9))
    assert len({tuple(each["size"]) for each in whole}) > 1  # more than one bucket

    broken = train(tmp_path / "broken", 8, shards)
    while not (tmp_path / "broken" / "losses.jsonl").exists() or len(losses(tmp_path / "broken")) < 3:
        assert broken.poll() is None, broken.communicate()[0]
        time.sleep(0.05)
    os.killpg(broken.pid, signal.SIGKILL)
    broken.communicate()

    text = finished(train(tmp_path / "broken", 8, shards))
    resumed = losses(tmp_path / "broken")
    assert "going on at step" in text or len(resumed) == 8
    assert [each["size"] for each in resumed] == [each["size"] for each in whole]
    assert [each["loss"] for each in resumed] == pytest.approx([each["loss"] for each in whole], rel=1e-5)


@pytest.fixture
def data_class(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from sdxl_dataset import Text2ImageDataset

    return Text2ImageDataset


def laion(folder, count):
    """Samples as img2dataset leaves them: every third has a watermark, every fifth is too small."""
    samples = []
    for i in range(count):
        width, height = (100, 60) if i % 5 == 0 else (160, 120)
        facts = {"original_width": 2 * width, "original_height": 2 * height, "pwatermark": 0.9 if i % 3 == 0 else 0.1}
        samples.append(
            (
                f"{i:04d}",
                {"jpg": image_bytes(natural(width, height, i)), "txt": f"picture {i}", "json": json.dumps(facts)},
            )
        )
    folder.mkdir()
    (folder / "00000.tar").write_bytes(shard(samples))
    return [i for i in range(count) if i % 3 and i % 5]


def test_the_drop_in_gives_what_the_script_unpacks(data_class, tmp_path):
    kept = laion(tmp_path / "shards", 60)
    data = data_class(str(tmp_path / "shards"), 32, 4, 4, 2, resolution=64, min_size=200)
    loader = data.train_dataloader
    assert (loader.num_batches, loader.num_samples, len(loader)) == (8, 32, 8)
    seen = []
    for image, text, orig_size, crop_coords in loader:
        assert image.shape == (4, 3, 64, 64)
        assert image.dtype == torch.float32
        assert -1 <= image.min() < 0 < image.max() <= 1
        assert isinstance(text, list)
        heights, widths = orig_size
        assert set(widths.tolist()) == {320}
        assert set(heights.tolist()) == {240}
        tops, lefts = crop_coords
        assert set(tops.tolist()) == {0}  # 160 x 120 covers 64 x 64 as 85 x 64
        assert all(0 <= left <= 22 for left in lefts.tolist())
        seen += [int(each.split()[1]) for each in text]
    assert set(seen) <= set(kept)
    assert len(set(seen)) == 32


def test_the_drop_in_can_report_images_as_uncropped(data_class, tmp_path):
    laion(tmp_path / "shards", 30)
    data = data_class(str(tmp_path / "shards"), 8, 2, 2, 0, resolution=64, min_size=200, use_fix_crop_and_size=True)
    _, _, orig_size, crop_coords = next(iter(data.train_dataloader))
    assert torch.stack(orig_size).unique().tolist() == [64]
    assert torch.stack(crop_coords).unique().tolist() == [0]


def save_sdxl(path):
    """A folder in the layout of Stable Diffusion XL, with two text encoders, all of it tiny."""
    import tiny_models
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    first = tiny_models.clip()
    second = CLIPTextModelWithProjection(CLIPTextConfig(**{**first.config.to_dict(), "projection_dim": 16}))
    unet = UNet2DConditionModel(
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(16, 32),
        layers_per_block=1,
        cross_attention_dim=2 * first.config.hidden_size,
        attention_head_dim=8,
        norm_num_groups=8,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 16,
    )
    parts = {"vae": tiny_models.vae(), "unet": unet, "text_encoder": first, "text_encoder_2": second}
    parts |= {"tokenizer": tiny_models.clip_tokenizer(), "tokenizer_2": tiny_models.clip_tokenizer()}
    for name, part in {**parts, "scheduler": tiny_models.scheduler()}.items():
        part.save_pretrained(path / name)


def test_a_pretrained_sdxl_folder_is_trained_on(shards, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    save_sdxl(tmp_path / "model")
    given = ["--out", tmp_path / "out", "--shards", shards, "--steps", 2, "--batch-size", 2]
    command = [sys.executable, EXAMPLES / "train_text_to_image.py", "--model", tmp_path / "model", *given]
    done = subprocess.run(
        list(map(str, command)), env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(losses(tmp_path / "out")) == 2
