"""Resize, crop, flip and SDXL's numbers: fused with decoding, alone, and as diffusers' script does it, by Pillow.

    python benchmarks/geometry.py --images FOLDER_OF_PHOTOS [--size 512] [--repeat 5]

One process, one thread; the contenders take turns. Prints CPU milliseconds an image (medians), and ratios to Pillow.
"""

from __future__ import annotations

import argparse
import io
import random
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

import streampipe as sp


def pillow(samples, size):
    """EXIF, resize so that the shorter side fits, random crop, flip, time ids."""
    for sample in samples:
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(sample["jpg"])).convert("RGB"))
        original = image.height, image.width
        zoom = size / min(original)
        image = image.resize((round(image.width * zoom), round(image.height * zoom)), Image.Resampling.BICUBIC)
        if random.random() < 0.5:
            image = ImageOps.mirror(image)
        top, left = random.randint(0, image.height - size), random.randint(0, image.width - size)
        pixels = torch.from_numpy(np.array(image.crop((left, top, left + size, top + size)))).permute(2, 0, 1)
        yield {"jpg": pixels, "time_ids": torch.tensor([*original, top, left, size, size])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="a folder of JPEG photos")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeat", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    samples = [{"__key__": path.stem, "jpg": path.read_bytes()} for path in sorted(given.images.glob("*.jpg"))]
    pipe, size = sp.from_iterable(samples), given.size
    contenders = {
        "Pillow, as in diffusers' script": lambda: pillow(samples, size),
        "decode(size)": lambda: pipe.decode(size=size),
        "decode(size, crop='random', flip=0.5)": lambda: pipe.decode(size=size, crop="random", flip=0.5),
        "the same, batches of 16": lambda: pipe.decode(size=size, crop="random", flip=0.5).batch(16),
        "decode() and fit(size, crop='random', flip=0.5)": lambda: pipe.decode().fit(size, crop="random", flip=0.5),
        "decode()": lambda: pipe.decode(),
    }
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for round_ in range(given.repeat + 1):
        for name, make in contenders.items():
            start = time.process_time()
            for _ in make():
                pass
            if round_:
                taken[name].append((time.process_time() - start) / len(samples) * 1000)
    first = next(iter(taken.values()))
    for name, found in taken.items():
        ratio = statistics.median(a / b for a, b in zip(first, found, strict=True))
        print(f"{name:<50} {statistics.median(found):6.2f} ms an image, {ratio:.2f} times Pillow's speed")


if __name__ == "__main__":
    main()
