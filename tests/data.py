"""Small shards and images for tests, made on the spot."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from streampipe.tar import TarWriter


def shard(samples: Sequence[tuple[str, Mapping[str, bytes | str]]]) -> bytes:
    """A shard in memory."""
    file = io.BytesIO()
    writer = TarWriter(file.write)
    for key, fields in samples:
        writer.add(key, fields)
    writer.close()
    return file.getvalue()


def write_shards(folder: Path, counts: Sequence[int]) -> list[str]:
    """Shards 00000.tar, ... with so many samples each; their keys, in order. Fields: txt and cls."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = []
    for number, count in enumerate(counts):
        mine = [f"{number:03d}{i:04d}" for i in range(count)]
        (folder / f"{number:05d}.tar").write_bytes(shard([(key, {"txt": f"text {key}", "cls": key}) for key in mine]))
        keys += mine
    return keys


def natural(width: int, height: int, seed: int = 0) -> Image.Image:
    """An image with the smoothness of a photo: soft noise on several scales, and a few shapes."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3))
    for scale in (4, 8, 16, 32, 64):
        coarse = rng.normal(0, scale / 2, (max(2, height // scale), max(2, width // scale), 3))
        layer = [
            Image.fromarray(coarse[..., c].astype(np.float32)).resize((width, height), Image.BICUBIC) for c in range(3)
        ]
        picture += np.stack([np.asarray(each) for each in layer], -1)
    y, x = np.mgrid[:height, :width]
    picture[(x - width * 0.6) ** 2 + (y - height * 0.4) ** 2 < (min(width, height) / 5) ** 2] += 60
    return Image.fromarray((picture + 128).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    """The bytes of an image file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def photo(seed: int = 0, width: int = 160, height: int = 120, **options: object) -> bytes:
    """A small JPEG."""
    return encoded(natural(width, height, seed), **{"quality": 90, **options})


def write_photos(folder: Path, counts: Sequence[int]) -> list[str]:
    """Shards of small JPEGs with captions."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = []
    for number, count in enumerate(counts):
        mine = [f"{number:03d}{i:04d}" for i in range(count)]
        samples = [(key, {"jpg": photo(int(key), 90 + int(key) % 40, 80), "txt": f"photo {key}"}) for key in mine]
        (folder / f"{number:05d}.tar").write_bytes(shard(samples))
        keys += mine
    return keys
