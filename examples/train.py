"""A training loop that really learns something from streamed shards: the time of day in a drawn landscape.

    python examples/train.py                 # draws images, packs them, trains a small network on the CPU
    python examples/train.py --workers 2     # worker processes in place of threads

It prints the accuracy on shards that were not trained on, and the share of each step spent waiting for data.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from make_images import SKIES, make_images
from torch import nn

import streampipe as sp
from streampipe.pack import pack

CLASSES = list(SKIES)


def label(sample: dict) -> dict:
    """The class in the caption: ``a forest landscape at dawn, ...``."""
    word = sample["text"].split(" at ")[1].split(",")[0]
    return {**sample, "label": torch.tensor(CLASSES.index(word))}


def network() -> nn.Module:
    """Three convolutions and a linear layer."""
    layers: list[nn.Module] = []
    for inside, outside in ((3, 16), (16, 32), (32, 32)):
        layers += [nn.Conv2d(inside, outside, 3, stride=2, padding=1), nn.BatchNorm2d(outside), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, len(CLASSES)))


def pipeline(shards: Path, **options: object) -> sp.Pipeline:
    """Shards to batches of images and labels."""
    return sp.stream(shards, **options).rename(image="jpg", text="txt").decode(size=64).map(label).batch(16)


def shards_of(folder: Path, count: int, seed: int) -> Path:
    """Draw images and pack them, once."""
    if not (folder / "shards" / "pack.json").exists():
        make_images(folder / "images", count, seed)
        print(pack(str(folder / "images"), str(folder / "shards"), max_samples=40, shuffle=True))
    return folder / "shards"


def main() -> float:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("quickstart-out/train"))
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--workers", type=int, default=0)
    given = parser.parse_args()
    torch.manual_seed(0)
    train = pipeline(shards_of(given.out / "seen", 240, 1), seed=0, shuffle=True)
    test = pipeline(shards_of(given.out / "unseen", 80, 2))
    loader = train.loader(num_workers=given.workers, threads=2)
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

    @sp.timed(step=True)
    def train_step(batch: dict) -> float:
        images = batch["image"].float() / 127.5 - 1
        loss = nn.functional.cross_entropy(model(images), batch["label"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    for epoch in range(given.epochs):  # every pass over the loader is a new epoch, in a new order
        model.train()
        losses = [train_step(batch) for batch in loader]
        print(f"epoch {epoch}: loss {sum(losses) / len(losses):.3f}")

    model.eval()
    right = total = 0
    with torch.inference_mode():
        for batch in test.loader(threads=2):
            found = model(batch["image"].float() / 127.5 - 1).argmax(1)
            right += int((found == batch["label"]).sum())
            total += len(found)
    print(train.report())
    print(f"accuracy on {total} unseen images: {right / total:.0%} (guessing: {1 / len(CLASSES):.0%})")
    return right / total


if __name__ == "__main__":
    main()
