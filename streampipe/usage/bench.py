"""The arguments of ``streampipe bench URL...``."""

from __future__ import annotations

import argparse

from streampipe.usage.arguments import add_index, add_urls, positive, whole

HELP = """Measure samples a second from these shards on this machine, in shuffled order as in training: their bytes, or
images decoded to a size or to buckets. Says what limits the rate and what to change, then where the time goes, stage by
stage. The first batch is not counted: with it workers and threads start."""
EXAMPLES = """
  streampipe bench shards/ --bucket sdxl --threads 8
  streampipe bench 's3://bucket/{00000..00099}.tar' --seconds 30
  streampipe bench shards/ --size 512 --auto --report report.html
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    add_urls(parser)
    add_index(parser)
    parser.add_argument(
        "--size", type=positive, metavar="PIXELS", help="decode to such squares; without it, bytes only"
    )
    parser.add_argument("--bucket", metavar="NAME", help="or to buckets: sdxl, sd15, pixart, photo")
    parser.add_argument("--where", metavar="CONDITION", help="only those, as in 'width >= 512 and aesthetic > 5'")
    parser.add_argument("--batch", type=positive, default=16, metavar="N", help="samples of a batch (16)")
    parser.add_argument("--workers", type=whole, default=0, metavar="N", help="worker processes (0)")
    parser.add_argument("--threads", type=whole, default=0, metavar="N", help="threads that decode (0)")
    parser.add_argument("--auto", action="store_true", help="try a few numbers of workers and threads first")
    parser.add_argument("--report", metavar="FILE", help="write a page (HTML) with stages and a timeline")
    parser.add_argument("--seconds", type=positive, default=10, metavar="S", help="how long (10)")
    parser.add_argument("--json", action="store_true", help="print it as a JSON object")
