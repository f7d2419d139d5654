"""The arguments of ``streampipe info URL...``."""

from __future__ import annotations

import argparse

from streampipe.usage.arguments import add_index, add_urls, positive

HELP = """Say what a dataset holds: shards, samples, bytes, fields, what where() may ask; and histograms of resolutions,
shapes, buckets, caption lengths and scores. It reads indexes (of many shards what stands together beside the manifest);
local shards without one are scanned, remote ones are not read. Sizes are of the main image as shown."""
EXAMPLES = """
  streampipe info shards/
  streampipe info 's3://bucket/{00000..01999}.tar' --bucket sd15 --json
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    add_urls(parser)
    add_index(parser)
    parser.add_argument("--bucket", default="sdxl", metavar="NAME", help="sdxl, sd15, pixart, photo, ... (sdxl)")
    parser.add_argument("--threads", type=positive, default=16, metavar="N", help="indexes read at once (16)")
    parser.add_argument("--json", action="store_true", help="print it as a JSON object")
