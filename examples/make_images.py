"""Draws small landscapes with captions: input for the examples that looks like photos and belongs to nobody."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

SKIES = {"dawn": ((250, 190, 150), (120, 110, 170)), "noon": ((190, 220, 245), (60, 120, 200))}
SKIES |= {"dusk": ((240, 130, 80), (60, 40, 90)), "night": ((40, 50, 90), (5, 8, 25))}
LANDS = {"forest": (40, 90, 45), "desert": (200, 160, 95), "snow": (225, 230, 240), "meadow": (110, 160, 60)}
SIZES = ((640, 480), (480, 640), (768, 512), (512, 512), (800, 450))


def landscape(rng: np.random.Generator, sky: str, land: str, width: int, height: int) -> Image.Image:
    """A sky with a sun or moon, and three ridges in front of each other."""
    y = np.linspace(0, 1, height)[:, None, None]
    low, high = (np.array(colour, float) for colour in SKIES[sky])
    picture = np.broadcast_to(high + (low - high) * y, (height, width, 3)).copy()
    rows, columns = np.mgrid[:height, :width]
    cx, cy, radius = rng.uniform(0.15, 0.85) * width, rng.uniform(0.1, 0.4) * height, 0.05 * height
    glow = np.exp(-(((columns - cx) ** 2 + (rows - cy) ** 2) / (2 * (2.5 * radius) ** 2)))[..., None]
    picture += glow * 90
    picture[(columns - cx) ** 2 + (rows - cy) ** 2 < radius**2] = (255, 250, 225)
    x = np.arange(width) / width
    for ridge in range(3):
        line = 0.5 + 0.15 * ridge
        for octave in range(1, 7):
            line = line + rng.normal(0, 0.09 / octave**1.3) * np.sin(2 * np.pi * (octave * x * 1.7 + rng.uniform()))
        colour = np.array(LANDS[land], float) * (0.55 + 0.22 * ridge) + low * 0.12 * (2 - ridge)
        picture[rows / height > line[None, :]] = colour
    picture += rng.normal(0, 6, picture.shape)
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


def make_images(folder: Path, count: int = 48, seed: int = 0) -> None:
    """Write ``count`` JPEGs of mixed sizes, each with a caption in a .txt file beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        if (folder / f"{number:04d}.txt").exists():  # written last: this one is there already
            continue
        rng = np.random.default_rng([seed, number])
        sky = list(SKIES)[number % len(SKIES)]
        land = list(LANDS)[number // len(SKIES) % len(LANDS)]
        width, height = SIZES[int(rng.integers(len(SIZES)))]
        landscape(rng, sky, land, width, height).save(folder / f"{number:04d}.jpg", quality=88)
        (folder / f"{number:04d}.txt").write_text(f"a {land} landscape at {sky}, painting no. {number}\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    make_images(given.folder, given.count, given.seed)
