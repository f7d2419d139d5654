"""``streampipe pack FOLDER OUT``: a folder of images with sidecars becomes shards."""

from __future__ import annotations

import argparse
import json

from streampipe.commands.arguments import add_limits, positive, size, whole
from streampipe.folders.layouts import LAYOUTS
from streampipe.pack import pack
from streampipe.pack.change import FORMATS

HELP = "write a folder of images, with the captions, masks and json files beside them, as shards"


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("folder", help="the folder; images are found in all folders below it")
    parser.add_argument("out", help="where the shards go; made if it does not exist")
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be done and what is wrong; write nothing"
    )
    parser.add_argument("--layout", choices=("auto", *LAYOUTS), default="auto", help="of the folder (auto)")
    parser.add_argument("--metadata", metavar="FILE", help="a table of the images: csv, jsonl, parquet, json")
    parser.add_argument("--caption", metavar="TEXT", help="for images that have none, as in 'a photo of a {name}'")
    parser.add_argument("--max-samples", type=positive, default=10_000, metavar="N", help="a shard's samples (10000)")
    parser.add_argument("--max-bytes", type=size, default=10**9, metavar="B", help="a shard's bytes, as in 500M (1G)")
    parser.add_argument("--shuffle", action="store_true", help="shuffle the samples over all shards")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the shuffle (0)")
    parser.add_argument(
        "--on-error", choices=("raise", "skip"), default="raise", help="skip: list what cannot be packed, exit status 3"
    )
    parser.add_argument("--deduplicate", action="store_true", help="pack images that are equal, byte for byte, once")
    parser.add_argument("--resize", type=positive, metavar="PIXELS", help="of the shorter edge, at most")
    parser.add_argument("--max-pixels", type=size, metavar="N", help="of an image, at most, as in 1M")
    parser.add_argument("--format", choices=tuple(FORMATS), help="what images of other formats become")
    parser.add_argument("--quality", type=positive, default=92, metavar="Q", help="of JPEG and WebP, 1 to 100 (92)")
    parser.add_argument("--upright", action="store_true", help="turn images whose orientation only EXIF says")
    parser.add_argument("--follow-symlinks", metavar="ROOT", help="links may lead into ROOT, not only into the folder")
    parser.add_argument(
        "--case-sensitive-keys", action="store_true", help="keys may differ in upper and lower case alone"
    )
    parser.add_argument(
        "--workers", type=whole, metavar="N", help="processes (as many as there are processors, up to 8)"
    )
    add_limits(parser)
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bar, no summary")


def run(given: argparse.Namespace) -> int:
    """Pack; 3 if files were skipped; of a dry run 1 if packing would fail."""
    summary = pack(
        given.folder,
        given.out,
        max_samples=given.max_samples,
        max_bytes=given.max_bytes,
        shuffle=given.shuffle,
        seed=given.seed,
        on_error=given.on_error,
        layout=given.layout,
        metadata=given.metadata,
        caption=given.caption,
        deduplicate=given.deduplicate,
        resize=given.resize,
        max_pixels=given.max_pixels,
        format=given.format,
        quality=given.quality,
        upright=given.upright,
        follow_symlinks=given.follow_symlinks,
        case_sensitive=given.case_sensitive_keys,
        num_workers=given.workers,
        limits=given.limits,
        dry_run=given.dry_run,
        progress=not given.quiet and not given.json,
    )
    if given.json:
        print(json.dumps(summary.as_dict()))
    elif not given.quiet:
        print(summary)
        if given.dry_run:
            for each in summary.skipped:
                print(f"  cannot be packed: {each.file!r} ({each.reason})")
    if given.dry_run and (summary.collisions or not summary.samples or (summary.skipped and given.on_error == "raise")):
        return 1
    return 3 if summary.skipped else 0
