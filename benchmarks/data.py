"""Shards for the benchmarks: LAION-like samples of random bytes, and photos; written by webdataset's own writer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import webdataset as wds


def laion_like(folder: Path, samples: int = 10_000) -> list[str]:
    """Samples of jpg (15 to 45 kB), txt and json, with the headers that webdataset's writer gives by default."""
    path = folder / f"laion-{samples}.tar"
    if not path.exists():
        rng = np.random.default_rng(0)
        with wds.TarWriter(str(path) + ".part") as writer:
            for i in range(samples):
                fields = {"caption": "a photo of something, " * 4, "width": 512, "height": 384, "url": "https://x/" * 5}
                fields |= {
                    "similarity": 0.31,
                    "aesthetic": 5.5,
                    "punsafe": 0.01,
                    "key": f"{i:09d}",
                    "status": "success",
                }
                jpg = rng.bytes(int(rng.integers(15_000, 45_000)))
                writer.write({"__key__": f"{i:09d}", "jpg": jpg, "txt": fields["caption"], "json": json.dumps(fields)})
        Path(str(path) + ".part").rename(path)
    return [str(path)]


def photos(folder: Path, images: Path, shards: int = 8, each: int = 48) -> list[str]:
    """Shards of the JPEGs in a folder, over and over."""
    files = sorted(images.glob("*.jpg"))
    paths = [folder / f"photos-{len(files)}-{each}-{number}.tar" for number in range(shards)]
    for number, path in enumerate(paths):
        if path.exists():
            continue
        with wds.TarWriter(str(path) + ".part") as writer:
            for i in range(number * each, (number + 1) * each):
                file = files[i % len(files)]
                writer.write({"__key__": f"{i:06d}", "jpg": file.read_bytes(), "txt": file.stem})
        Path(str(path) + ".part").rename(path)
    return [str(path) for path in paths]
