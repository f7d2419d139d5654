"""diffusers' text-to-image scripts over a loader: the lines of docs/drop-ins.md, in the loop that the scripts have."""

import math
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import streampipe as sp
from tests.data import photo, shard
from tests.trainers.ranks import run_ranks

pytest.importorskip("accelerate")
DOCUMENT = Path(__file__).parents[2] / "docs" / "drop-ins.md"
EPOCHS, ACCUMULATE = 2, 2


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    found = tmp_path_factory.mktemp("photos")
    for number in range(3):
        keys = range(8 * number, 8 * number + 8)
        samples = [(f"{n:02d}", {"jpg": photo(n, 24 + n, 20), "txt": f"photo {n}"}) for n in keys]
        (found / f"{number:05d}.tar").write_bytes(shard(samples))
    return found


def tokenize_sample(sample):
    return {**sample, "input_ids": torch.tensor([int(sample["txt"].split()[-1])])}


def made(accelerator, shards):
    """What the lines of the document make."""
    (code,) = re.findall(r"```python\n(from streampipe.compat.accelerate.*?)```", DOCUMENT.read_text(), re.DOTALL)
    args = SimpleNamespace(seed=1, resolution=16, train_batch_size=2, dataloader_num_workers=0)
    there = {"sp": sp, "args": args, "accelerator": accelerator, "tokenize_sample": tokenize_sample}
    exec(code.replace('"shards/"', repr(str(shards))), there)
    return there["train_dataloader"]


def time_ids(original_size, crops_coords_top_left):
    """As in the script, whose target size is the resolution."""
    return list(original_size + crops_coords_top_left + (16, 16))


def train(shards, place, stop, resume):
    """The script's loop: the images of each batch, by their token, from where the checkpoint stands."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(True)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=ACCUMULATE)
    unet = torch.nn.Linear(6, 1)
    unet, optimizer = accelerator.prepare(unet, torch.optim.SGD(unet.parameters(), 1e-6))
    train_dataloader = made(accelerator, shards)
    updates_per_epoch = math.ceil(len(train_dataloader) / ACCUMULATE)
    global_step = first_epoch = 0
    if resume:
        accelerator.load_state(place)
        global_step = resume
        first_epoch = global_step // updates_per_epoch
    seen = []
    for _ in range(first_epoch, EPOCHS):
        for batch in train_dataloader:
            with accelerator.accumulate(unet):
                assert batch["pixel_values"].dtype == torch.float32
                assert batch["pixel_values"].shape == (2, 3, 16, 16)
                assert batch["pixel_values"].abs().max() <= 1
                sizes = zip(batch["original_sizes"], batch["crop_top_lefts"], strict=True)
                ids = torch.tensor([time_ids(*each) for each in sizes])
                assert torch.equal(ids, batch["time_ids"])
                accelerator.backward(unet(ids.float()).mean())
                optimizer.step()
                optimizer.zero_grad()
            seen.append(batch["input_ids"][:, 0].tolist())
            if accelerator.sync_gradients:
                global_step += 1
                if global_step == stop:
                    accelerator.save_state(place)
                    return seen
    assert global_step == EPOCHS * updates_per_epoch
    return seen


def test_two_ranks_share_each_epoch_and_a_checkpoint_in_mid_epoch_goes_on_with_the_next_batch(shards, tmp_path):
    place = str(tmp_path / "checkpoint")
    whole = run_ranks(train, tmp_path, shards, place, 0, 0)
    for epoch in (slice(6), slice(6, 12)):
        assert sorted(each for rank in whole for batch in rank[epoch] for each in batch) == list(range(24))
    before = run_ranks(train, tmp_path, shards, place, 2, 0)
    after = run_ranks(train, tmp_path, shards, place, 0, 2)
    assert [b + a for b, a in zip(before, after, strict=True)] == whole


def test_a_checkpoint_of_an_epochs_end_goes_on_with_the_next_epoch(shards, tmp_path):
    place = str(tmp_path / "checkpoint")
    whole = train(shards, place, 0, 0)
    assert train(shards, place, 6, 0) + train(shards, place, 0, 6) == whole
