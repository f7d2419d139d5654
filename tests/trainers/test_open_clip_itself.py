"""open_clip's own training program over our data function: whole epochs, and a run that goes on from its checkpoint."""

import json
import subprocess
import sys

import pytest

from tests.data import photo, shard

pytest.importorskip("open_clip_train", reason="pip install open_clip_torch pandas")

PROGRAM = """
import json, sys

import open_clip
import open_clip_train.data
from open_clip_train.main import main
from streampipe.compat import open_clip as ours


class Noting:
    "A loader that notes the texts of its batches."

    def __init__(self, loader):
        self.loader, self.num_batches, self.num_samples = loader, loader.num_batches, loader.num_samples

    def __iter__(self):
        for images, texts in self.loader:
            NOTED.append([images.sum().item(), *texts[:, 2].tolist()])
            yield images, texts


def noting(*args, **options):
    info = ours.get_wds_dataset(*args, **options)
    info.set_epoch, info.dataloader = info.dataloader.set_epoch, Noting(info.dataloader)
    return info


NOTED = []
open_clip.add_model_config(sys.argv[1])
open_clip_train.data.get_wds_dataset = noting
main(sys.argv[3:])
json.dump(NOTED, open(sys.argv[2], "w"))
"""

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
}


def train(folder, name, *options):
    """The batches of a run: the sum of its pixels and the token of each letter."""
    always = "--dataset-type webdataset --model tiny --batch-size 4 --seed 1 --device cpu --epochs 2 --save-frequency 1"
    given = ["--train-data", folder / "{00000..00002}.tar", "--logs", folder / "logs", "--name", name, *always.split()]
    command = [sys.executable, "-c", PROGRAM, folder / "tiny.json", folder / f"{name}.batches", *given, *options]
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads((folder / f"{name}.batches").read_text())


def test_open_clips_program_has_whole_epochs_and_goes_on_from_its_checkpoint_with_the_same_batches(tmp_path):
    samples = [(f"{n:02d}", {"jpg": photo(n, 40, 32), "txt": f"photo {chr(97 + n)}"}) for n in range(24)]
    for number in range(3):
        (tmp_path / f"{number:05d}.tar").write_bytes(shard(samples[8 * number : 8 * number + 8]))
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    whole = train(tmp_path, "whole", "--workers", "0")
    first, second = ([token for batch in epoch for token in batch[1:]] for epoch in (whole[:6], whole[6:]))
    assert len(whole) == 12
    assert sorted(first) == sorted(second)
    assert len(set(first)) == 24
    assert first != second
    resumed = train(tmp_path, "resumed", "--workers", "2", "--resume", tmp_path / "logs/whole/checkpoints/epoch_1.pt")
    assert resumed == whole[6:]
