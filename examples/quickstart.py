"""The main job in one file: a folder of images becomes shards, and the shards stream into a DataLoader.

    python examples/quickstart.py                    # on images that it draws
    python examples/quickstart.py --images FOLDER    # on yours (.jpg/.png/.webp; captions in .txt)

It leaves a contact sheet of the first batch, with captions, and prints what went through.
"""

from __future__ import annotations

import argparse
import textwrap
import time
from pathlib import Path

import torch
from make_images import make_images
from PIL import Image, ImageDraw

import streampipe as sp


def contact_sheet(batch: dict, path: Path, columns: int = 4) -> None:
    """Draw a batch as a grid of images with their captions."""
    images, captions = batch["image"], batch["caption"]
    edge, strip = 256, 44
    rows = -(-len(captions) // columns)
    sheet = Image.new("RGB", (columns * edge, rows * (edge + strip)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        x, y = i % columns * edge, i // columns * (edge + strip)
        sheet.paste(Image.fromarray(image.permute(1, 2, 0).numpy()).resize((edge, edge)), (x, y))
        draw.multiline_text((x + 6, y + edge + 6), textwrap.fill(caption.strip(), 38)[:120], fill="black")
    sheet.save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, help="a folder of images; without it, some are drawn")
    parser.add_argument("--out", type=Path, default=Path("quickstart-out"))
    parser.add_argument("--workers", type=int, default=0, help="worker processes; 0 decodes in threads")
    given = parser.parse_args()
    folder = given.images
    if folder is None:
        folder = given.out / "images"
        make_images(folder)

    print(sp.pack(folder, given.out / "shards", max_samples=16, shuffle=True))

    pipe = (
        sp.stream(given.out / "shards", seed=0, shuffle=True, epochs=4)
        .rename(image="jpg;jpeg;png;webp")
        .decode(size=256)
        .caption(missing="keep")
        .batch(12)
    )
    loader = pipe.loader(num_workers=given.workers, threads=2)

    def train_step(batch: dict) -> torch.Tensor:
        return batch["image"].float().div_(127.5).sub_(1).square().mean()  # stands for a model

    samples, start = 0, time.perf_counter()
    for number, batch in enumerate(loader):
        if number == 0:
            contact_sheet(batch, given.out / "contact-sheet.png")
        train_step(batch)
        samples += len(batch["__key__"])
    seconds = time.perf_counter() - start

    print(loader.report())
    print(f"contact sheet: {given.out / 'contact-sheet.png'}")
    print(f"{samples} samples, {samples / seconds:.0f} images/s")


if __name__ == "__main__":
    main()
