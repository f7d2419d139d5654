"""The arguments of ``streampipe extract URL KEY``."""

from __future__ import annotations

import argparse

from streampipe.usage.arguments import add_index, add_storage

HELP = """Write the fields of one sample as files, KEY.FIELD each, into a folder; the folders of a key are left out of
the name. A file that is there is never replaced."""
EXAMPLES = """
  streampipe extract shards/ 000000123
  streampipe extract 's3://bucket/{00000..00099}.tar' 000000123.mask.png --out masks
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.add_argument("url", help="a shard; or several (brace range, glob, folder): the first that has the key")
    parser.add_argument("name", metavar="KEY[.FIELD]", help="as ls lists them; without FIELD all fields")
    add_storage(parser)
    add_index(parser)
    parser.add_argument("--out", default=".", metavar="FOLDER", help="where the files go; made if need be (here)")
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")
