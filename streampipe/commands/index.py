"""``streampipe index URL...``: an index beside every shard, and the dataset's manifest."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from streampipe.commands.say import say_json
from streampipe.index import index


def run(given: argparse.Namespace) -> int:
    """Index; 3 if damaged shards were left out."""
    summary = index(
        given.urls,
        folder=given.out,
        threads=given.threads,
        engine=given.engine,
        address=given.address,
        on_error=given.on_error,
        limits=given.limits,
        storage_options=given.storage_options,
        progress=not given.quiet and not given.json,
    )
    if given.json:
        say_json(asdict(summary))
    elif not given.quiet:
        print(summary)
        for failed in summary.failed:
            print(failed)
    return 3 if summary.failed else 0
