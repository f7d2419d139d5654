"""``streampipe index URL...``: an index beside every shard, and the dataset's manifest."""

from __future__ import annotations

import argparse

from streampipe.commands.arguments import add_urls, positive, shards_of
from streampipe.index import index

HELP = "write an index beside every shard, and a manifest of the dataset"


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    add_urls(parser)
    parser.add_argument("--out", metavar="FOLDER", help="where indexes and manifest go, if not beside the shards")
    parser.add_argument("--threads", type=positive, default=4, metavar="N", help="shards read at once (4)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar, no summary")


def run(given: argparse.Namespace) -> int:
    """Index."""
    shards, source = shards_of(given)
    summary = index(
        shards, source, folder=given.out, threads=given.threads, limits=given.limits, progress=not given.quiet
    )
    if not given.quiet:
        print(summary)
    return 0
