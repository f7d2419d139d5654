"""The arguments of ``streampipe select URL... --where CONDITION``."""

from __future__ import annotations

import argparse

from streampipe.usage.arguments import add_index, add_urls
from streampipe.usage.words import MISSING

HELP = """Count what a condition keeps, as sp.stream(...).where(CONDITION) would, why the rest is dropped, and how many
samples each bucket has. The answer is kept under a fingerprint of the data and the question: beside the manifest where
that can be written, else on this machine. Jobs that ask the same words of the same data find it, and do not count
again. Shards are counted by their indexes; nothing else is read. Exit status 1 where nothing is kept."""
EXAMPLES = """
  streampipe select 's3://bucket/{00000..01999}.tar' --where 'width >= 512 and aesthetic > 5' --bucket sdxl
  streampipe select shards/ --where 'watermark < 0.5' --missing keep --shards
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    add_urls(parser)
    add_index(parser)
    parser.add_argument(
        "--where", action="append", default=[], metavar="CONDITION", help="as in training; again for a second where()"
    )
    parser.add_argument("--missing", choices=MISSING, default="drop", help="samples that lack the value (drop)")
    parser.add_argument("--bucket", metavar="NAME", help="also count by bucket: sdxl, sd15, pixart, photo")
    parser.add_argument("--cache", metavar="FOLDER", help="the jobs' cache=, where answers are kept too")
    parser.add_argument("--shards", action="store_true", help="also say how many samples each shard has")
    parser.add_argument("--json", action="store_true", help="print it as a JSON object")
