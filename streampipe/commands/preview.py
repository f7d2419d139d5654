"""``streampipe preview URL...``: samples to look at, as a page or as a contact sheet."""

from __future__ import annotations

import argparse
import os
import textwrap
from itertools import islice

from PIL import Image, ImageDraw

from streampipe.commands.say import say_json
from streampipe.context import Sample
from streampipe.decoding import decide, decode_image, delivered, is_image_field, main_image
from streampipe.decoding.movie import is_video_field, main_video, videos_in
from streampipe.decoding.video import still
from streampipe.errors import ConfigError
from streampipe.pipeline import Pipeline
from streampipe.preview import preview
from streampipe.stream import stream

_PAGES = (".html", ".htm")
_SHEETS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_OF_PAGES = ("bucket", "size", "crop", "flip", "epoch", "threads")
_OF_SHEETS = ("columns",)
_STRIP = 44  # pixels below an image, for three lines of caption


def run(given: argparse.Namespace) -> int:
    """Write it."""
    ending = os.path.splitext(given.out)[1].lower()
    if ending not in (*_PAGES, *_SHEETS):
        raise ConfigError(f"--out {given.out}: the name ends in .html for a page, or in one of {', '.join(_SHEETS)}")
    kind, others = ("page", _OF_SHEETS) if ending in _PAGES else ("sheet", _OF_PAGES)
    strange = [name for name in others if getattr(given, name) is not None]
    if strange:
        raise ConfigError(f"--{strange[0]} means nothing for a {kind}, which {given.out} is; leave it out")
    pipe = stream(
        given.urls,
        shuffle=given.shuffle,
        seed=given.seed,
        index=given.index,
        storage_options=given.storage_options,
        limits=given.limits,
    )
    pipe = pipe if given.where is None else pipe.where(given.where)
    number = _page(pipe, given) if kind == "page" else _sheet(pipe, given, _SHEETS[ending])
    if given.json:
        say_json({"out": given.out, "samples": number})
    else:
        print(f"{number} samples: {given.out}")
    return 0


def _page(pipe: Pipeline, given: argparse.Namespace) -> int:
    if given.bucket is not None and given.size is not None:
        raise ConfigError("a page shows --bucket or --size, not both")
    if given.bucket is None and given.size is None and (given.crop or given.flip):
        raise ConfigError("--crop and --flip need the size that images are brought to: --bucket NAME or --size PIXELS")
    pipe = pipe if given.bucket is None else pipe.bucket(given.bucket)
    pipe = pipe.decode(given.size, crop=given.crop or "center", flip=given.flip or 0.0)
    return preview(
        pipe,
        given.out,
        samples=given.samples or 200,
        epoch=given.epoch or 0,
        edge=given.edge or 192,
        threads=2 if given.threads is None else given.threads,
    )


def _sheet(pipe: Pipeline, given: argparse.Namespace, kind: str) -> int:
    with_images = (sample for sample in pipe.caption(missing="keep") if _images(sample))
    samples = list(islice(with_images, given.samples or 24))
    if not samples:
        raise ConfigError("no sample of these shards has an image or a video; streampipe ls lists what they have")
    image = sheet(samples, given.edge or 256, min(given.columns or 6, len(samples)))
    try:
        image.save(given.out, kind)
    except OSError as error:
        raise ConfigError(f"{given.out} cannot be written ({error}); choose another --out") from error
    return len(samples)


def sheet(samples: list[Sample], edge: int, columns: int) -> Image.Image:
    """The samples in rows, each with its caption, or else its key, below."""
    rows = -(-len(samples) // columns)
    drawn = Image.new("RGB", (columns * edge, rows * (edge + _STRIP)), "white")
    pen = ImageDraw.Draw(drawn)
    for i, sample in enumerate(samples):
        x, y = i % columns * edge, i // columns * (edge + _STRIP)
        drawn.paste(_picture(sample, edge), (x, y))
        text = (sample["caption"] or sample["__key__"]).encode("latin-1", "replace").decode("latin-1")
        lines = textwrap.wrap(text, max(1, edge // 7))[:3]
        pen.multiline_text((x + 4, y + edge + 2), "\n".join(lines), fill="black", spacing=2)
    return drawn


def _picture(sample: Sample, edge: int) -> Image.Image:
    """The main image of a sample, or the frame in the middle of its main video, as a square."""
    videos = videos_in(sample, gifs=False)
    if videos:
        frame = still(sample[main_video(videos)], lambda size: decide(size, (edge, edge)))
        found: Image.Image = delivered(frame, "pil")
        return found
    image: Image.Image = decode_image(sample[main_image(_images(sample))], size=(edge, edge), output="pil")
    return image


def _images(sample: Sample) -> list[str]:
    encoded = {name: value for name, value in sample.items() if isinstance(value, bytes)}
    return [name for name, value in encoded.items() if is_image_field(name, value) or is_video_field(name, value)]
