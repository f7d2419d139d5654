"""Train a tiny video diffusion transformer on clips and images in one run, on the CPU.

    python examples/train_video.py --out /tmp/video            # draws its own videos
    python examples/train_video.py --shards 's3://bucket/{00000..01999}.tar' --steps 100000

Buckets are height x width x frames: clips of 9 frames, of 5, and images as one, each with a batch size of its own.
Kill it at any time and run it again: it goes on behind the last checkpoint, with the losses that it would have had.
Needs: pip install 'streampipe[video]'
"""

from __future__ import annotations

import argparse
import json
import os
import signal
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

import streampipe as sp

PATCH = 8
SIZES = [(32, 48), (48, 32)]
BATCH = {1: 3, 5: 2, 9: 2}
"""Samples of a batch, by the number of frames."""


def pipeline(shards: str, seed: int) -> sp.Pipeline:
    """Shards to batches; each is of one height, width and number of frames, whatever the number of processes is."""
    return (
        sp.stream(shards, seed=seed, shuffle=True, epochs=None)
        .clips(frames=(5, 9), fps=8, rule="chunk")
        .bucket(SIZES)
        .rename(video="mp4;webm;mov;mkv;jpg;png")
        .decode(flip=0.5)
        .map(noise_seed)
        .select("video", "noise_seed")
        .batch(BATCH)
    )


def noise_seed(sample: dict, rng: np.random.Generator) -> dict:
    """A seed for the clip's noise: of (seed, epoch, key) alone, so that a resumed run adds the same noise."""
    return {**sample, "noise_seed": int(rng.integers(1 << 62))}


class VideoTransformer(nn.Module):
    """Patches of frames as tokens, with rotary positions in time, height and width: any size, any length."""

    def __init__(self, width: int = 48, layers: int = 2) -> None:
        super().__init__()
        self.inward = nn.Linear(3 * PATCH * PATCH, width)
        self.when = nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, width))
        self.where = nn.ModuleList([nn.Embedding(64, width) for _ in range(3)])
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.outward = nn.Linear(width, 3 * PATCH * PATCH)

    def forward(self, video: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """batch x frames x 3 x height x width, and times in [0, 1]; the velocity, of the video's shape."""
        b, f, _, h, w = video.shape
        rows, columns = h // PATCH, w // PATCH
        tokens = video.view(b, f, 3, rows, PATCH, columns, PATCH).permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(1, 3)
        places = torch.cartesian_prod(*map(torch.arange, (f, rows, columns)))
        x = self.inward(tokens) + self.when(time[:, None, None])
        x = x + sum(embed(places[:, i]) for i, embed in enumerate(self.where))
        out = self.outward(self.layers(x)).view(b, f, rows, columns, 3, PATCH, PATCH)
        return out.permute(0, 1, 4, 2, 5, 3, 6).reshape(video.shape)


def loss_of(batch: dict, model: nn.Module) -> torch.Tensor:
    """Flow matching: the velocity from noise to video."""
    video = batch["video"].float() / 127.5 - 1
    noise, times = torch.empty_like(video, memory_format=torch.contiguous_format), torch.empty(len(video))
    for i, seed in enumerate(batch["noise_seed"].tolist()):
        generator = torch.Generator().manual_seed(seed)
        noise[i] = torch.randn(video.shape[1:], generator=generator)
        times[i] = torch.rand((), generator=generator)
    at = times[:, None, None, None, None]
    mixed = ((1 - at) * noise + at * video).contiguous()
    return (model(mixed, times) - (video - noise)).square().mean()


def draw(out: Path) -> str:
    """Shards of short videos of a moving square, some of them upright, and of images; made once."""
    import av

    if (out / "shards" / "manifest.parquet").exists():
        return str(out / "shards")
    folder = out / "videos"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(24):
        rng = np.random.default_rng(number)
        (height, width), colour = SIZES[number % 2], rng.integers(60, 256, 3)
        length = int(rng.integers(5, 9) if number % 3 == 0 else rng.integers(9, 24))
        frames = [picture(colour, height, width, 2 * i) for i in range(length)]
        if number % 4 == 3:
            Image.fromarray(frames[0]).save(folder / f"{number:04d}.png")
            continue
        with av.open(str(folder / f"{number:04d}.mp4"), "w") as container:
            stream = container.add_stream("mpeg4", rate=8)
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            for i, pixels in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = i, Fraction(1, 8)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    sp.pack(str(folder), str(out / "shards"), max_samples=8, progress=False)
    return str(out / "shards")


def picture(colour: np.ndarray, height: int, width: int, at: int) -> np.ndarray:
    """A square on black."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[8:24, at % (width - 16) : at % (width - 16) + 16] = colour
    return pixels


def train(given: argparse.Namespace) -> list[float]:
    """The losses of the steps that were done."""
    out = Path(given.out)
    torch.manual_seed(0)
    model = VideoTransformer()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    loader = pipeline(given.shards or draw(out), given.seed).loader(given.workers)
    place, losses = out / "checkpoint.pt", list[float]()
    if place.exists():
        state = torch.load(place, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        loader.load_state_dict(json.loads(state["loader"]))
        losses = state["losses"]
    for batch in loader:
        if len(losses) >= given.steps:
            break
        loss = loss_of(batch, model)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        shape = "x".join(map(str, batch["video"].shape))
        print(f"step {len(losses)}: loss {losses[-1]:.6f}, {shape}", flush=True)
        if len(losses) == given.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if len(losses) % given.save_every == 0:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "losses": losses}
            torch.save({**state, "loader": json.dumps(loader.state_dict())}, place.with_suffix(".part"))
            os.replace(place.with_suffix(".part"), place)
    return losses


def arguments() -> argparse.ArgumentParser:
    """What can be said on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="video-run", help="checkpoints, and the videos that it draws")
    parser.add_argument("--shards", help="shards of your own")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--save-every", type=int, default=5)
    parser.add_argument("--kill-at", type=int, help="end as if killed, behind this step")
    return parser


if __name__ == "__main__":
    train(arguments().parse_args())
