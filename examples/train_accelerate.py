"""Accelerate over a pipeline: its own device, accumulation and checkpoints; the data goes on with the next batch.

python examples/train_accelerate.py                    # draws images, trains a small network on the CPU
python examples/train_accelerate.py --resume
accelerate launch --num_processes 2 --cpu examples/train_accelerate.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.nn.functional import cross_entropy
from train import network, pipeline, shards_of

from streampipe.compat.accelerate import prepare


def main(given: list[str] | None = None) -> list[float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("quickstart-out/train"))
    parser.add_argument("--images", type=int, default=240)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args(given)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    pipe = pipeline(shards_of(options.out / "seen", options.images, 1), seed=0, shuffle=True)
    model = network()
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=3e-3))
    batches = prepare(accelerator, pipe.loader(threads=2))  # not accelerator.prepare: it would divide the samples again
    place = options.out / "accelerate"
    if options.resume and place.exists():
        accelerator.load_state(str(place))
    means = []
    while batches.loader.state_dict()["epoch"] < options.epochs:
        losses = []
        for batch in batches:
            with accelerator.accumulate(model):
                loss = cross_entropy(model(batch["image"].float() / 127.5 - 1), batch["label"])
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
            losses.append(loss.item())
        accelerator.save_state(str(place))
        means.append(sum(losses) / len(losses))
        accelerator.print(f"loss {means[-1]:.3f}")
    return means


if __name__ == "__main__":
    main()
