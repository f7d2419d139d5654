"""``streampipe ls URL...``: the samples of shards, one a line."""

from __future__ import annotations

import argparse

from streampipe.commands.given import finder_of, shards_of
from streampipe.commands.look import listed
from streampipe.commands.say import say, say_json
from streampipe.source import redact


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
