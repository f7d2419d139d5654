"""The arguments of ``streampipe verify URL...``."""

from __future__ import annotations

import argparse

from streampipe.usage.arguments import add_engine, add_index, add_urls, positive

HELP = """Read every shard, and compare it byte for byte with its index and the manifest. Prints a line for each damage:
shard, sample, byte, and what to do. Exit status 1 if there is any."""
EXAMPLES = """
  streampipe verify shards/
  streampipe verify 's3://bucket/{00000..01999}.tar' --decode --threads 16 --json
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    add_urls(parser)
    add_index(parser)
    parser.add_argument("--decode", action="store_true", help="decode every field too")
    parser.add_argument(
        "--threads", type=positive, metavar="N", help="shards read at once (4; on a cluster, its processors)"
    )
    add_engine(parser)
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bar, no summary")
