"""``streampipe info URL...``: what a dataset holds, from its indexes."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from streampipe.commands.arguments import add_index, add_urls, finder_of, positive, shards_of
from streampipe.commands.say import say
from streampipe.index import Finder, ShardIndex
from streampipe.index.facts import OWN

HELP = "count shards, samples, bytes and fields; tier; widths and heights; what where() may ask"
_EDGES = (0, 256, 512, 768, 1024, 1536, 2048, 4096)
_BAR = 40


class Facts(NamedTuple):
    """What ``info`` says of a shard; ``samples`` is None where they are not counted."""

    samples: int | None
    bytes: int | None
    fields: Counter[str]
    columns: frozenset[str]
    sizes: dict[str, np.ndarray]  # "width", "height": how many samples are in each class of _EDGES


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    add_urls(parser)
    add_index(parser)
    parser.add_argument("--threads", type=positive, default=16, metavar="N", help="indexes read at once (16)")


def run(given: argparse.Namespace) -> int:
    """Read all indexes; local shards without one are scanned, remote ones are not read."""
    shards, source = shards_of(given)
    finder = finder_of(given, source)
    with ThreadPoolExecutor(given.threads) as pool:
        found = list(pool.map(lambda url: facts_of(url, finder), shards))
    for name, text in lines(found):
        say(f"{name:<10} {text}")
    return 0


def facts_of(url: str, finder: Finder) -> Facts:
    """What is known of a shard without reading it as a whole."""
    index = finder.find(url)
    if index is None:
        return Facts(None, finder.source.size(url), Counter(), frozenset(), {})
    names = [each["name"] for row in index.table.column("fields").to_pylist() for each in row]
    sizes = {name: _classes(index, name) for name in ("width", "height")}
    return Facts(len(index), index.shard_bytes, Counter(names), index.fact_names, sizes)


def lines(found: list[Facts]) -> Iterable[tuple[str, str]]:
    """The report, line by line."""
    counted = [each for each in found if each.samples is not None]
    samples = sum(each.samples or 0 for each in counted)
    sizes = [each.bytes for each in found if each.bytes is not None]
    missing = len(found) - len(counted)
    yield "shards", f"{len(found):,}"
    yield "samples", f"{samples:,}" + (f" in {len(counted):,} shards; the others are not counted" if missing else "")
    yield "bytes", f"{sum(sizes):,}" + ("" if len(sizes) == len(found) else f" in {len(sizes):,} shards")
    if missing:
        yield "tier", f"sequential: {missing:,} shards have no index and are remote or compressed (streampipe index)"
    else:
        yield "tier", "planned, where the stages allow it: the samples are counted"
    fields = sum((each.fields for each in counted), Counter[str]())
    if fields:
        yield "fields", ", ".join(f"{name} ({n:,})" for name, n in fields.most_common(20))
    columns = sorted(frozenset[str]().union(*(each.columns for each in counted)) - (set(OWN) - {"key"}))
    if counted:
        yield "where", ", ".join(["width", "height", *columns[:40]]) + (", ..." if len(columns) > 40 else "")
    for name in ("width", "height"):
        yield from _histogram(name, sum((each.sizes[name] for each in counted), np.zeros(len(_EDGES), np.int64)))


def _classes(index: ShardIndex, name: str) -> np.ndarray:
    values = index.table.column(name).drop_null().to_numpy()
    return np.bincount(np.searchsorted(_EDGES, values, side="right") - 1, minlength=len(_EDGES))


def _histogram(name: str, counts: np.ndarray) -> Iterable[tuple[str, str]]:
    for i in np.flatnonzero(counts):
        upper = f"{_EDGES[i + 1] - 1:>4}" if i + 1 < len(_EDGES) else "up  "
        bar = "#" * max(1, round(_BAR * counts[i] / counts.max()))
        yield name, f"{_EDGES[i]:>4} to {upper}  {counts[i]:>12,}  {bar}"
