"""Train a tiny model that edits images: a target, its source, and in some samples a second reference for the colours.

    python examples/train_edit.py --steps 60        # draws its data; on the CPU, in half a minute

Kill it at any time and run it again: it goes on behind the last checkpoint, with the losses that it would have had.
A batch is of one signature: targets of one size, equally many references, the first of one size, the second of another.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np
import torch
from make_images import LANDS, SKIES, landscape
from torch import nn
from torch.nn import functional

import streampipe as sp


def draw(shards: Path, count: int) -> None:
    """Editing pairs: a landscape, the same tinted; every second sample has a patch of the tint as second reference."""

    def samples() -> object:
        for i in range(count):
            rng = np.random.default_rng(i)
            size = [(96, 64), (64, 96), (64, 64)][i % 3]
            source = landscape(rng, list(SKIES)[i % len(SKIES)], list(LANDS)[i % len(LANDS)], *size)
            tint = rng.integers(0, 256, 3) if i % 2 else np.array([255, 0, 0])
            target = (np.asarray(source, float) + tint) / 2
            fields = {"jpg": target.astype(np.uint8), "ref.0.jpg": source, "txt": "tint it"}
            patch = {"ref.1.png": np.full((24, 24, 3), tint, np.uint8)} if i % 2 else {}
            yield {"__key__": f"{i:04d}", **fields, **patch}

    sp.from_iterable(samples).write(f"{shards}/{{:05d}}.tar", max_samples=32, progress=False)


def pipeline(shards: Path, batch: int) -> sp.Pipeline:
    """Batches of a target (batch x 3 x height x width) and a list of references, the source first."""
    buckets = sp.Compound([(64, 64), (64, 96), (96, 64)], ref=[(64, 64), (64, 96), (96, 64)])
    pipe = sp.stream(str(shards), seed=0, shuffle=True, epochs=None).bucket(buckets)
    return pipe.collect("ref").rename(image="jpg").decode(flip=0.5).select("image", "ref").batch(batch)


class Edit(nn.Module):
    """The source through a few convolutions, which the mean of a second reference shifts."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 3, 3, padding=1)
        self.colour, self.none = nn.Linear(3, width), nn.Parameter(torch.zeros(width))

    def forward(self, references: list[torch.Tensor]) -> torch.Tensor:
        """References (0 to 1) to the edited image."""
        shift = self.colour(references[1].mean((2, 3))) if len(references) > 1 else self.none[None]
        return self.last(functional.silu(self.first(references[0]) + shift[:, :, None, None]))


def train(out: Path, steps: int, batch: int, every: int, workers: int) -> list[float]:
    """The loss of each step; a checkpoint after every few."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = Edit()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    loader = pipeline(out / "shards", batch).loader(num_workers=workers)
    place, losses = out / "checkpoint.pt", list[float]()
    if place.exists():
        saved = torch.load(place, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        loader.load_state_dict(json.loads(saved["loader"]))
        losses = saved["losses"]
        print(f"going on behind step {len(losses)}")
    for images in loader:
        if len(losses) >= steps:
            break
        target, references = images["image"].float() / 255, [each.float() / 255 for each in images["ref"]]
        loss = functional.mse_loss(model(references), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        print(f"step {len(losses)}: {len(references)} references, loss {losses[-1]:.5f}", flush=True)
        if len(losses) % every == 0:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "losses": losses}
            torch.save({**state, "loader": json.dumps(loader.state_dict())}, f"{place}.part")
            os.replace(f"{place}.part", place)  # whole, or the one before
    (out / "losses.json").write_text(json.dumps(losses))
    return losses


def main() -> None:
    """Draw the data if it is not there, and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("quickstart-out/edit"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--checkpoint-every", type=int, default=5)
    parser.add_argument("--workers", type=int, default=0)
    given = parser.parse_args()
    draw(given.out / "shards", 96)
    losses = train(given.out, given.steps, given.batch, given.checkpoint_every, given.workers)
    print(f"loss of the first five steps {np.mean(losses[:5]):.4f}, of the last five {np.mean(losses[-5:]):.4f}")


if __name__ == "__main__":
    main()
