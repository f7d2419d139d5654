"""``streampipe ls URL...``: the samples of shards, one a line."""

from __future__ import annotations

import argparse

from streampipe.commands.arguments import add_index, add_urls, finder_of, shards_of
from streampipe.commands.look import listed
from streampipe.commands.say import say, say_json
from streampipe.source import redact

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


def run(given: argparse.Namespace) -> int:
    """List."""
    shards, source = shards_of(given)
    finder = finder_of(given, source)
    for url in shards:
        for sample in listed(url, finder):
            if given.json:
                row = {"url": redact(url), "key": sample.key, "fields": sample.fields}
                say_json({**row, "height": sample.height, "width": sample.width})
                continue
            fields = " ".join(f"{name}={size}" for name, size in sample.fields.items())
            shown = f"{sample.width}x{sample.height}" if sample.width else "-"
            say(redact(url), sample.key, fields, shown)
    return 0
