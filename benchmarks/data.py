"""Shards for the benchmarks: samples of random bytes, and photos; written by webdataset's own writer."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import webdataset as wds
from PIL import Image

import streampipe as sp

EACH = 1000  # samples of bytes in a shard


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


def smaller(images: Path, folder: Path, format: str = "jpg", edge: int = 768) -> Path:
    """The photos of a folder, of so many pixels at most, as JPEG (quality 90), PNG or WebP (quality 90)."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(images.glob("*.jpg")):
        path = folder / f"{file.stem}.{format}"
        if not path.exists():
            image = Image.open(file).convert("RGB")
            image.thumbnail((edge, edge))
            made = io.BytesIO()
            image.save(made, {"jpg": "JPEG"}.get(format, format), quality=90)
            path.write_bytes(made.getvalue())
    return folder


def photos(folder: Path, images: Path, shards: int = 8, each: int = 48, format: str = "jpg") -> list[str]:
    """Shards of the images of a format in a folder, over and over."""
    files = sorted(images.glob(f"*.{format}"))
    kind = "photos" if format == "jpg" else format
    paths = [folder / f"{kind}-{len(files)}-{each}-{number}.tar" for number in range(shards)]
    for number, path in enumerate(paths):
        if path.exists():
            continue
        with wds.TarWriter(str(path) + ".part") as writer:
            for i in range(number * each, (number + 1) * each):
                file = files[i % len(files)]
                writer.write({"__key__": f"{i:06d}", format: file.read_bytes(), "txt": file.stem})
        Path(str(path) + ".part").rename(path)
    return [str(path) for path in paths]


def samples_of(kilobytes: int, number: int):
    """A random field of so many kB, a caption, and img2dataset's json."""
    rng = np.random.default_rng(0)
    for i in range(number):
        facts = {"caption": "a photo of something, " * 4, "width": 512, "height": 384, "url": "https://x/" * 5}
        facts |= {"similarity": 0.31, "aesthetic": 5.5, "punsafe": 0.01, "key": f"{i:09d}", "status": "success"}
        yield {
            "__key__": f"{i:09d}",
            "jpg": rng.bytes(kilobytes * 1000),
            "txt": facts["caption"].encode(),
            "json": json.dumps(facts).encode(),
        }


def shards(folder: Path, name: str, samples) -> list[str]:
    """The samples in shards, as webdataset's writer writes them; once."""
    done = folder / f"{name}.done"
    if not done.exists():
        with wds.ShardWriter(str(folder / f"{name}-%03d.tar"), maxcount=EACH, verbose=0) as writer:
            for sample in samples:
                writer.write(sample)
        done.touch()
    return sorted(map(str, folder.glob(f"{name}-*.tar")))


def indexed(folder: Path, urls: list[str]) -> str:
    """A folder of the shards' indexes with checksums."""
    place = folder / (Path(urls[0]).stem.rpartition("-")[0] + "-index")
    place.mkdir(exist_ok=True)
    sp.index(urls, folder=str(place), progress=False)
    return str(place)
