"""``streampipe ls URL...``: the samples of shards, one a line."""

from __future__ import annotations

import argparse

from streampipe.commands.arguments import add_index, add_urls, finder_of, shards_of
from streampipe.commands.look import listed
from streampipe.commands.say import say
from streampipe.source import redact

HELP = "list the samples of shards: shard, key, bytes of each field, width x height"


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    add_urls(parser)
    add_index(parser)


def run(given: argparse.Namespace) -> int:
    """List, with tabs between the columns."""
    shards, source = shards_of(given)
    finder = finder_of(given, source)
    for url in shards:
        for sample in listed(url, finder):
            fields = " ".join(f"{name}={size}" for name, size in sample.fields.items())
            shown = f"{sample.width}x{sample.height}" if sample.width else "-"
            say(redact(url), sample.key, fields, shown)
    return 0
