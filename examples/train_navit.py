"""Train a small vision transformer on images of every size, as NaViT does: packs of patches, no cropping, no padding.

    python examples/train_navit.py                       # draws images; on the CPU, a minute
    python examples/train_navit.py --shards 's3://bucket/{00000..01999}.tar' --budget 16384 --patch 16

It learns which landscape an image shows. Kill it at any time and run it again: it goes on behind the last checkpoint,
with the packs and losses that it would have had.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch
from make_images import LANDS, make_images
from torch import nn
from torch.nn import functional

import streampipe as sp
from streampipe.pack import pack

Pack = dict[str, Any]


class Patches:
    """An image of any size to a sequence of patches, and the row and column of each; what its caption says it shows."""

    def __init__(self, side: int) -> None:
        self.side = side

    def __call__(self, sample: dict) -> dict:
        side, image = self.side, sample["image"]
        rows, columns = image.shape[1] // side, image.shape[2] // side
        cut = image[:, : rows * side, : columns * side].unfold(1, side, side).unfold(2, side, side)
        places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).reshape(-1, 2)
        label = next(i for i, land in enumerate(LANDS) if land in sample["caption"])
        return {"patches": cut.permute(1, 2, 0, 3, 4).reshape(rows * columns, -1), "places": places, "label": label}


def pipeline(given: argparse.Namespace) -> sp.Pipeline:
    """Shards to packs of at most ``budget`` patches. The index knows the sizes, so packs are decided before reading."""
    side = given.patch
    return (
        sp.stream(given.shards, seed=given.seed, shuffle=True, epochs=None)
        .rename(image="jpg;jpeg;png;webp")
        .decode()
        .caption()
        .map(Patches(side))
        .pack(given.budget, f"(height // {side}) * (width // {side})", concat=("patches", "places"))
    )


class NaViT(nn.Module):
    """A transformer over a pack, in which patches attend to those of their own image alone."""

    def __init__(self, side: int, width: int = 48, layers: int = 2, heads: int = 4, most: int = 512) -> None:
        super().__init__()
        self.embed = nn.Linear(3 * side * side, width)
        self.row, self.column = nn.Embedding(most, width), nn.Embedding(most, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.head = nn.Linear(width, len(LANDS))

    def forward(self, pack: Pack) -> torch.Tensor:
        """From a pack to logits, one row for each image."""
        rows, columns = pack["places"].unbind(1)
        x = self.embed(pack["patches"].float() / 127.5 - 1) + self.row(rows) + self.column(columns)
        segments = pack["segment_ids"]
        mask = segments[:, None] == segments  # on a GPU: cu_seqlens and flash_attn_varlen_func, see docs/packing.md
        for block in self.blocks:
            x = block(x, mask)
        lengths = pack["cu_seqlens"].diff()
        pooled = x.new_zeros(len(lengths), x.shape[1]).index_add(0, segments, x)
        return self.head(pooled / lengths[:, None])


class Block(nn.Module):
    """Attention and a feed-forward layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.first(x)).view(len(x), 3, self.heads, -1).permute(1, 2, 0, 3)
        attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.out(attended.transpose(0, 1).reshape(x.shape))
        return x + self.mlp(self.second(x))


def save(path: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, loader: sp.Loader) -> None:
    """Model, optimizer and the loader's state in one file, in its place at once."""
    state = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save({**state, "loader": json.dumps(loader.state_dict())}, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)


def load(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, loader: sp.Loader) -> int:
    """Go on where ``save`` was called; the step to do next."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    loader.load_state_dict(json.loads(state["loader"]))
    return int(state["step"])


def draw_shards(out: Path) -> str:
    """Shards of drawn landscapes of five sizes, made once."""
    make_images(out / "images", 160)
    pack(str(out / "images"), str(out / "shards"), max_samples=40, progress=False)
    return str(out / "shards")


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", help="as sp.stream takes them; without it, images are drawn")
    parser.add_argument("--out", type=Path, default=Path("quickstart-out/navit"))
    parser.add_argument("--budget", type=int, default=2048, help="patches of a pack")
    parser.add_argument("--patch", type=int, default=32, help="pixels of a patch's side")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--checkpoint-every", type=int, default=10)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(given)


def train(given: argparse.Namespace) -> None:
    """Train up to ``steps``, from the checkpoint on if there is one."""
    given.out.mkdir(parents=True, exist_ok=True)
    given.shards = given.shards or draw_shards(given.out)
    torch.manual_seed(given.seed)
    model = NaViT(given.patch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=given.lr)
    loader = pipeline(given).loader(threads=2)
    checkpoint, log = given.out / "checkpoint.pt", given.out / "losses.jsonl"
    step = load(checkpoint, model, optimizer, loader) if checkpoint.exists() else 0
    print(f"{'going on at' if step else 'starting with'} step {step} of {given.steps}\n{loader.explain()}", flush=True)
    known = log.read_text().splitlines()[:step] if log.exists() else []  # those behind the checkpoint come again
    with log.open("w") as losses:
        losses.writelines(f"{line}\n" for line in known)
        for batch in loader if step < given.steps else ():
            logits = model(batch)
            loss = functional.cross_entropy(logits, batch["label"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            right = float((logits.argmax(1) == batch["label"]).float().mean())
            figures = {"images": len(logits), "patches": len(batch["patches"]), "right": right}
            losses.write(json.dumps({"step": step, "loss": loss.item(), **figures}) + "\n")
            losses.flush()
            if step % given.checkpoint_every == 0 or step == given.steps:
                save(checkpoint, step, model, optimizer, loader)
                print(f"step {step}: loss {loss.item():.3f}, {right:.0%} of {len(logits)} images right", flush=True)
            if step == given.steps:
                break


if __name__ == "__main__":
    train(arguments())
