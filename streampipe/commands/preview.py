"""``streampipe preview URL... --out sheet.png``: images with their captions, to look at."""

from __future__ import annotations

import argparse
import os
import textwrap
from itertools import islice

from PIL import Image, ImageDraw

from streampipe.commands.arguments import add_index, add_urls, positive
from streampipe.context import Sample
from streampipe.decoding import decode_image, is_image_field, main_image
from streampipe.errors import ConfigError
from streampipe.stream import stream

HELP = "draw a contact sheet of images with their captions"
_KINDS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_STRIP = 44  # pixels below an image, for three lines of caption


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    add_urls(parser)
    add_index(parser)
    parser.add_argument(
        "--out", default="preview.png", metavar="FILE", help="the sheet: .png, .jpg or .webp (preview.png)"
    )
    parser.add_argument("--samples", type=positive, default=24, metavar="N", help="how many (24)")
    parser.add_argument("--edge", type=positive, default=256, metavar="PIXELS", help="of an image, a square (256)")
    parser.add_argument("--columns", type=positive, default=6, metavar="N", help="images side by side (6)")
    parser.add_argument("--shuffle", action="store_true", help="samples from all over, in place of the first ones")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the shuffle (0)")


def run(given: argparse.Namespace) -> int:
    """Draw it."""
    kind = _KINDS.get(os.path.splitext(given.out)[1].lower())
    if kind is None:
        raise ConfigError(f"--out {given.out}: the sheet's name ends in one of {', '.join(_KINDS)}")
    pipe = stream(
        given.urls,
        shuffle=given.shuffle,
        seed=given.seed,
        index=given.index,
        storage_options=given.storage_options,
        limits=given.limits,
    )
    with_images = (sample for sample in pipe.caption(missing="keep") if _images(sample))
    samples = list(islice(with_images, given.samples))
    if not samples:
        raise ConfigError("no sample of these shards has an image; streampipe ls lists what they have")
    image = sheet(samples, given.edge, min(given.columns, len(samples)))
    try:
        image.save(given.out, kind)
    except OSError as error:
        raise ConfigError(f"{given.out} cannot be written ({error}); choose another --out") from error
    print(f"{len(samples)} images: {given.out}")
    return 0


def sheet(samples: list[Sample], edge: int, columns: int) -> Image.Image:
    """The samples in rows, each with its caption, or else its key, below."""
    rows = -(-len(samples) // columns)
    drawn = Image.new("RGB", (columns * edge, rows * (edge + _STRIP)), "white")
    pen = ImageDraw.Draw(drawn)
    for i, sample in enumerate(samples):
        x, y = i % columns * edge, i // columns * (edge + _STRIP)
        data = sample[main_image(_images(sample))]
        drawn.paste(decode_image(data, size=(edge, edge), output="pil"), (x, y))
        text = (sample["caption"] or sample["__key__"]).encode("latin-1", "replace").decode("latin-1")
        lines = textwrap.wrap(text, max(1, edge // 7))[:3]
        pen.multiline_text((x + 4, y + edge + 2), "\n".join(lines), fill="black", spacing=2)
    return drawn


def _images(sample: Sample) -> list[str]:
    encoded = {name: value for name, value in sample.items() if isinstance(value, bytes)}
    return [name for name, value in encoded.items() if is_image_field(name, value)]
