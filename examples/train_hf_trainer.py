"""The Hugging Face Trainer over a pipeline: each checkpoint holds the place of the data.

python examples/train_hf_trainer.py                    # draws images, trains a small network on the CPU
python examples/train_hf_trainer.py --resume
torchrun --nproc-per-node 2 examples/train_hf_trainer.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from train import network, pipeline, shards_of
from transformers import TrainingArguments

from streampipe.compat.transformers import LoaderTrainer


class Model(torch.nn.Module):
    """The small network of train.py; it gives its loss, as the Trainer wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def forward(self, image: torch.Tensor, label: torch.Tensor, **others: object) -> dict[str, torch.Tensor]:
        """Loss and scores of a batch."""
        scores = self.network(image.float() / 127.5 - 1)
        return {"loss": cross_entropy(scores, label), "logits": scores}


def main(given: list[str] | None = None) -> LoaderTrainer:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("quickstart-out/train"))
    parser.add_argument("--images", type=int, default=240)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args(given)
    arguments = TrainingArguments(  # first: it starts the ranks' process group, which the loader asks
        output_dir=str(options.out / "trainer"),
        num_train_epochs=options.epochs,
        learning_rate=3e-3,
        save_steps=5,
        save_total_limit=2,
        eval_strategy="epoch",
        report_to=[],
        use_cpu=True,
    )
    train = pipeline(shards_of(options.out / "seen", options.images, 1), seed=0, shuffle=True)
    test = pipeline(shards_of(options.out / "unseen", 80, 2)).select("image", "label", metadata=False)
    trainer = LoaderTrainer(
        Model(),
        arguments,
        train_loader=train.select("image", "label", metadata=False).loader(threads=2),
        eval_loader=test.loader(threads=2, fixed_epoch=True),
    )
    trainer.train(resume_from_checkpoint=options.resume or None)
    return trainer


if __name__ == "__main__":
    main()
