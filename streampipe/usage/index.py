"""The arguments of ``streampipe index URL...``."""

from __future__ import annotations

import argparse

from streampipe.usage.arguments import add_engine, add_urls, positive

HELP = """Write an index beside every shard (where each sample is, the size of its image, the scalars of its json), and
a manifest of the dataset with the facts of all shards together. With them batches are planned: exact, resumable, and
where() and bucket() read nothing. Shards that are indexed already are kept; run it again when shards are added."""
EXAMPLES = """
  streampipe index shards/
  streampipe index 's3://bucket/{00000..01999}.tar' --threads 16
  streampipe index /shared/shards --engine ray --address auto
  streampipe index 'https://host/{000..099}.tar' --out indexes    # and then sp.stream(..., index="indexes")
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    add_urls(parser)
    parser.add_argument("--out", metavar="FOLDER", help="where indexes and manifest go, if not beside the shards")
    parser.add_argument(
        "--threads", type=positive, metavar="N", help="shards read at once (4; on a cluster, its processors)"
    )
    add_engine(parser)
    parser.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="skip: go on behind damaged shards, exit status 3",
    )
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bar, no summary")
