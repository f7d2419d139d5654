"""The arguments of ``streampipe pack FROM OUT``."""

from __future__ import annotations

import argparse
from typing import Any

from streampipe.usage.arguments import add_engine, add_limits, options, positive, size, whole
from streampipe.usage.words import BUCKETS, FORMATS, LAYOUTS

HELP = "write a folder of images with what lies beside them, other shards, or tables with images in them, as shards"
EXAMPLES = """
  streampipe pack photos/ shards/ --dry-run                    # what is there, and what would be written
  streampipe pack photos/ shards/ --shuffle --max-bytes 500M
  streampipe pack 10_dogs/ s3://bucket/dogs --resize 1024 --format webp --srgb --beside mask=masks/
  streampipe pack 's3://bucket/{0000..0999}.tar' out/ --where 'width >= 512 and aesthetic > 5' --bucket sdxl
  streampipe pack 'hf://datasets/org/name/data/*.parquet' out/ --shuffle
  streampipe pack photos/ /shared/shards --engine ray --address auto
"""
_SKIP = "skip: list what cannot be packed in skipped.jsonl, exit status 3"


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument(
        "given",
        nargs="+",
        help="a folder of images, also in a zip; or shards, Parquet or Arrow files, by name, range or glob",
    )
    parser.add_argument("out", help="where the shards go; made if it does not exist")
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be done and what is wrong; write nothing"
    )
    parser.add_argument("--on-error", choices=("raise", "skip"), default="raise", help=_SKIP)
    parser.add_argument("--workers", type=whole, metavar="N", help="processes (as many as processors, up to 8)")
    add_engine(parser)
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bar, no summary")
    _add_folder(parser.add_argument_group("a folder of images"))
    _add_shards(parser.add_argument_group("which samples, and in which shards"))
    _add_change(parser.add_argument_group("what is done to images (nothing, if nothing is said)"))
    reading = parser.add_argument_group("how it is read")
    reading.add_argument(
        "--unpickle", action="store_true", help="make .pth, .pt, .pkl and .pyd fields into safe formats"
    )
    reading.add_argument("--read-as", metavar="KIND", help="folder, tar, parquet, ... where names do not say it")
    reading.add_argument("--storage-options", type=options, default={}, metavar="JSON", help="for fsspec")
    add_limits(parser)


def _add_folder(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--layout", choices=LAYOUTS, default="auto", help="of the folder (auto)")
    group.add_argument("--metadata", metavar="FILE", help="a table of the images: csv, jsonl, parquet, json")
    group.add_argument("--file-column", metavar="NAME", help="the table's column that names the image")
    group.add_argument("--caption-column", metavar="NAME", help="the table's column that becomes the caption")
    group.add_argument("--caption", metavar="TEXT", help="for images that have none, as in 'a photo of a {name}'")
    group.add_argument(
        "--beside",
        type=_beside,
        action=_Parts,
        default=[],
        metavar="PART=FOLDER",
        help="a folder with a part of each image, under the same name, as in mask=masks/ or control=edges/",
    )
    group.add_argument("--follow-symlinks", metavar="ROOT", help="links may lead into ROOT, not only into the folder")


def _add_shards(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--max-samples", type=positive, default=10_000, metavar="N", help="a shard's samples (10000)")
    group.add_argument("--max-bytes", type=size, default=10**9, metavar="B", help="a shard's bytes, as in 500M (1G)")
    group.add_argument("--shuffle", action="store_true", help="shuffle the samples over all shards")
    group.add_argument("--seed", type=int, metavar="S", help="of the shuffle (0)")
    group.add_argument("--where", metavar="CONDITION", help="pack samples of which this is true, as in 'width >= 512'")
    group.add_argument("--bucket", choices=BUCKETS, help="each shard has images of one of these aspect ratios")
    same = group.add_mutually_exclusive_group()
    same.add_argument("--deduplicate", action="store_true", help="pack images that are equal, byte for byte, once")
    same.add_argument(
        "--deduplicate-alike",
        dest="deduplicate",
        action="store_const",
        const="alike",
        help="and those that look the same, too (perceptual hash); what is left out is in repeated.jsonl",
    )
    group.add_argument(
        "--case-sensitive-keys", action="store_true", help="keys may differ in upper and lower case alone"
    )


def _add_change(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--resize", type=positive, metavar="PIXELS", help="of the shorter edge, at most")
    group.add_argument("--max-pixels", type=size, metavar="N", help="of an image, at most, as in 1M")
    group.add_argument("--format", choices=FORMATS, help="what images of other formats become")
    group.add_argument("--quality", type=positive, default=92, metavar="Q", help="of JPEG and WebP, 1 to 100 (92)")
    group.add_argument(
        "--orientation",
        choices=("auto", "bake", "keep"),
        default="auto",
        help="images that EXIF turns: bake turns all, keep none, auto those that are changed anyway",
    )
    group.add_argument("--srgb", action="store_true", help="bring images with another colour profile to sRGB")
    group.add_argument("--no-sha256", action="store_true", help="no sha256 of shards and images: half of the time")
    group.add_argument("--verify", action="store_true", help="decode every image; one that is damaged is not packed")


class _Parts(argparse._AppendAction):
    """A folder of each part."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        part, folder = values
        other = next((folder for name, folder in getattr(namespace, self.dest) if name == part), None)
        if other is not None:
            parser.error(f"argument {option}: {part} is in {other} and in {folder}; put it into one folder")
        super().__call__(parser, namespace, values, option)


def _beside(text: str) -> tuple[str, str]:
    part, equals, folder = text.partition("=")
    if not (equals and folder and part.isidentifier() and part == part.lower()):
        raise argparse.ArgumentTypeError(f"{text!r} is no part and folder, as in mask=masks/")
    return part, folder
