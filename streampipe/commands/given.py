"""What arguments that several commands have mean."""

from __future__ import annotations

import argparse

from streampipe.index import Finder
from streampipe.source import Source
from streampipe.urls import ShardList, expand


def shards_of(given: argparse.Namespace) -> tuple[ShardList, Source]:
    """The shards that are meant, and what reads them."""
    source = Source(given.storage_options)
    return expand(given.urls, lambda: source), source


def finder_of(given: argparse.Namespace, source: Source) -> Finder:
    """What finds the shards' indexes."""
    return Finder(source, given.limits, given.index)
