"""The arguments of ``streampipe cat URL KEY.FIELD``."""

from __future__ import annotations

import argparse

from streampipe.usage.arguments import add_index, add_storage

HELP = """Write the bytes of one field of one sample to standard output, as they are; checked against the index where
there is one. With --json the sample instead: texts, numbers and json as values, images as format and size."""
EXAMPLES = """
  streampipe cat shards/00000.tar 000000123.jpg > picture.jpg
  streampipe cat 's3://bucket/{00000..00099}.tar' 000000123.txt
  streampipe cat shards/ 000000123 --json
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("url", help="a shard; or several (brace range, glob, folder): the first that has the key")
    parser.add_argument("name", metavar="KEY[.FIELD]", help="as ls lists them; a sample of one field needs no FIELD")
    add_storage(parser)
    add_index(parser)
    parser.add_argument("--json", action="store_true", help="the sample, or the field, as a JSON object")
