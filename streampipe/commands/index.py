"""``streampipe index URL...``: an index beside every shard, and the dataset's manifest."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from streampipe.commands.arguments import add_urls, positive
from streampipe.index import index

HELP = "write an index beside every shard, and a manifest of the dataset"


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    add_urls(parser)
    parser.add_argument("--out", metavar="FOLDER", help="where indexes and manifest go, if not beside the shards")
    parser.add_argument("--threads", type=positive, default=4, metavar="N", help="shards read at once (4)")
    parser.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="skip: go on behind damaged shards, exit status 3",
    )
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bar, no summary")


def run(given: argparse.Namespace) -> int:
    """Index; 3 if damaged shards were left out."""
    summary = index(
        given.urls,
        folder=given.out,
        threads=given.threads,
        on_error=given.on_error,
        limits=given.limits,
        storage_options=given.storage_options,
        progress=not given.quiet and not given.json,
    )
    if given.json:
        print(json.dumps(asdict(summary)))
    elif not given.quiet:
        print(summary)
        for failed in summary.failed:
            print(failed)
    return 3 if summary.failed else 0
