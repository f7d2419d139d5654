"""``streampipe pack FOLDER OUT``: a folder of images with sidecars becomes shards."""

from __future__ import annotations

import argparse

from streampipe.commands.arguments import positive, size
from streampipe.pack import pack

HELP = "write a folder of images with .txt/.json sidecars as shards"


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("folder", help="the folder; images are found in all folders below it")
    parser.add_argument("out", help="where the shards go; made if it does not exist")
    parser.add_argument("--max-samples", type=positive, default=10_000, metavar="N", help="a shard's samples (10000)")
    parser.add_argument("--max-bytes", type=size, default=10**9, metavar="B", help="a shard's bytes, as in 500M (1G)")
    parser.add_argument("--shuffle", action="store_true", help="shuffle the samples over all shards")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the shuffle (0)")
    parser.add_argument("--on-error", choices=("raise", "skip"), default="raise", help="for files that cannot be read")
    parser.add_argument("--follow-symlinks", metavar="ROOT", help="links may lead into ROOT, not only into the folder")
    parser.add_argument("--quiet", action="store_true", help="no progress bar, no summary")


def run(given: argparse.Namespace) -> int:
    """Pack; 3 if files were skipped."""
    summary = pack(
        given.folder,
        given.out,
        max_samples=given.max_samples,
        max_bytes=given.max_bytes,
        shuffle=given.shuffle,
        seed=given.seed,
        on_error=given.on_error,
        follow_symlinks=given.follow_symlinks,
        progress=not given.quiet,
    )
    if not given.quiet:
        print(summary)
    return 3 if summary.skipped else 0
