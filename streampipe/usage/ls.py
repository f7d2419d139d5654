"""The arguments of ``streampipe ls URL...``."""

from __future__ import annotations

import argparse

from streampipe.usage.arguments import add_index, add_urls

HELP = """List the samples of shards, a line each, with tabs between the columns: shard, key, bytes of each field,
width x height of the main image. Indexes are read where there are some, else the shards."""
EXAMPLES = """
  streampipe ls shards/ | head
  streampipe ls 's3://bucket/{00000..00099}.tar' --json | jq -r 'select(.width < 512) | .key'
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    add_urls(parser)
    add_index(parser)
    parser.add_argument("--json", action="store_true", help="a JSON object a line: url, key, fields, height, width")
