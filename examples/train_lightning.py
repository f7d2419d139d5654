"""Lightning over a pipeline: checkpoints hold the place of the data, and a killed run goes on with the next batch.

python examples/train_lightning.py                     # draws images, trains a small network on the CPU
python examples/train_lightning.py --resume            # goes on from the newest checkpoint
torchrun --nproc-per-node 2 examples/train_lightning.py --devices 2
"""

from __future__ import annotations

import argparse
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn.functional import cross_entropy
from train import network, pipeline, shards_of

from streampipe.compat.lightning import LoaderModule


class Model(lightning.LightningModule):
    """The small network of train.py."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def training_step(self, batch: dict, number: int) -> torch.Tensor:
        """The loss of a batch."""
        return cross_entropy(self.network(batch["image"].float() / 127.5 - 1), batch["label"])

    def validation_step(self, batch: dict, number: int) -> None:
        """The share of images that are recognised."""
        found = self.network(batch["image"].float() / 127.5 - 1).argmax(1)
        self.log("accuracy", (found == batch["label"]).float().mean(), batch_size=len(found), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, as in train.py."""
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def main(given: list[str] | None = None) -> lightning.Trainer:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("quickstart-out/train"))
    parser.add_argument("--images", type=int, default=240)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args(given)
    train = pipeline(shards_of(options.out / "seen", options.images, 1), seed=0, shuffle=True)
    test = pipeline(shards_of(options.out / "unseen", 80, 2))
    checkpoints = options.out / "lightning"
    data = LoaderModule(lambda: train.loader(threads=2), lambda: test.loader(threads=2, fixed_epoch=True))
    keep = ModelCheckpoint(checkpoints, every_n_train_steps=10, save_last=True)
    trainer = lightning.Trainer(
        max_epochs=options.epochs, accelerator="cpu", devices=options.devices, callbacks=[keep], logger=False
    )
    place = checkpoints / "last.ckpt"
    trainer.fit(Model(), data, ckpt_path=place if options.resume and place.exists() else None, weights_only=False)
    print(f"accuracy on 80 unseen images: {float(trainer.callback_metrics['accuracy']):.0%}")
    return trainer


if __name__ == "__main__":
    main()
