"""Megatron-Energon: the same tars, prepared by its tool; a cooker makes crude samples into images in its workers.

Read as its validation sets are: in order, each sample once.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from peers import once

PHOTOS = ("Pillow", "our decode")
SAMPLES = ("tars",)


def photos(data, decode, way):
    from megatron.energon import Cooker, DefaultTaskEncoder, Sample, basic_sample_keys, get_loader, stateless
    from torch import Tensor

    @dataclass
    class Image(Sample):
        image: Tensor

    @stateless
    def cook(sample):
        return Image(**basic_sample_keys(sample), image=decode(sample[data.field]))

    class Encoder(DefaultTaskEncoder):
        decoder = None
        cookers = (Cooker(cook),)

        def encode_batch(self, batch):
            return batch.image

    return iter(get_loader(_dataset(data, data.batch, Encoder()), watchdog_timeout_seconds=None))


def samples(data, way):
    from megatron.energon import Cooker, DefaultTaskEncoder, get_loader, stateless

    @stateless
    def cook(sample):
        return sample

    class Encoder(DefaultTaskEncoder):
        decoder = None
        cookers = (Cooker(cook),)

    return sum(1 for _ in get_loader(_dataset(data, None, Encoder()), watchdog_timeout_seconds=None))


def _dataset(data, batch, encoder):
    from megatron.energon import WorkerConfig, get_val_dataset

    def make(folder: Path) -> None:
        for url in data.urls:
            (folder / Path(url).name).symlink_to(url)
        options = ["--non-interactive", "--split-ratio", "1,0,0", "--sample-type", "CrudeWebdataset"]
        tool = str(Path(sys.executable).parent / "energon")
        subprocess.run([tool, "prepare", *options, str(folder)], check=True, stdout=subprocess.DEVNULL)

    workers = data.cores if data.cores > 1 else 0
    return get_val_dataset(
        str(once(data.folder / "energon", make)),
        split_part="train",
        worker_config=WorkerConfig(rank=0, world_size=1, num_workers=workers),
        batch_size=batch,
        batch_drop_last=True,
        task_encoder=encoder,
    )
