"""``streampipe select URL... --where CONDITION``: what a condition keeps; the answer is kept for all later jobs."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from typing import Any

from streampipe.commands.arguments import add_index, add_urls, finder_of, shards_of
from streampipe.commands.say import say, say_json
from streampipe.errors import ConfigError
from streampipe.index.answers import Tally
from streampipe.plan.ask import Question, Uncounted, ask, where_kept
from streampipe.plan.buckets import Buckets, make
from streampipe.plan.dataset import Kept
from streampipe.plan.sorter import BEYOND, UNSIZED, Sorter
from streampipe.query.condition import MISSING, Condition, Keep
from streampipe.source import Cache, redact

HELP = """Count what a condition keeps, as sp.stream(...).where(CONDITION) would, why the rest is dropped, and how many
samples each bucket has. The answer is kept under a fingerprint of the data and the question: beside the manifest where
that can be written, else on this machine. Jobs that ask the same words of the same data find it, and do not count
again. Shards are counted by their indexes; nothing else is read. Exit status 1 where nothing is kept."""
EXAMPLES = """
  streampipe select 's3://bucket/{00000..01999}.tar' --where 'width >= 512 and aesthetic > 5' --bucket sdxl
  streampipe select shards/ --where 'watermark < 0.5' --missing keep --shards
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    add_urls(parser)
    add_index(parser)
    parser.add_argument(
        "--where", action="append", default=[], metavar="CONDITION", help="as in training; again for a second where()"
    )
    parser.add_argument("--missing", choices=MISSING, default="drop", help="samples that lack the value (drop)")
    parser.add_argument("--bucket", metavar="NAME", help="also count by bucket: sdxl, sd15, pixart, photo")
    parser.add_argument("--cache", metavar="FOLDER", help="the jobs' cache=, where answers are kept too")
    parser.add_argument("--shards", action="store_true", help="also say how many samples each shard has")
    parser.add_argument("--json", action="store_true", help="print it as a JSON object")


def run(given: argparse.Namespace) -> int:
    """Ask; 1 if nothing is kept."""
    if not given.where and given.bucket is None:
        raise ConfigError("select wants a question: --where CONDITION, --bucket NAME, or both")
    shards, source = shards_of(given)
    if given.cache is not None:
        source.cache = Cache(given.cache)
    finder = finder_of(given, source)
    conditions = tuple(Condition(each, given.missing) for each in given.where)
    buckets = None if given.bucket is None else make(given.bucket)
    question = _question(Keep(conditions) if conditions else None, buckets)
    try:
        tally = ask(shards, finder, question)
    except Uncounted as error:
        raise ConfigError(f"the samples cannot be counted: {error}; run streampipe index first") from error
    found = _found(tally, buckets) | {"shards": len(shards), "answer": where_kept(shards, finder, question)}
    if given.shards:
        counts = tally.counts.sum(1).tolist()
        found["by_shard"] = {redact(url): count for url, count in zip(shards, counts, strict=True)}
    if given.json:
        say_json(found)
    else:
        for name, text in _lines(found):
            say(f"{name:<10} {text}")
    return 0 if found["kept"] else 1


def _question(keep: Keep | None, buckets: Buckets | None) -> Question:
    """The very question that a pipeline asks."""
    if buckets is not None:
        return Sorter(buckets, keep)
    assert keep is not None
    return Kept(keep)


def _found(tally: Tally, buckets: Buckets | None) -> dict[str, Any]:
    """An answer as plain values."""
    dropped: Counter[str] = Counter()
    unknown = 0
    for name, number in tally.numbers.items():
        what = name.partition("\n")[2]
        if what.startswith("dropped because "):
            dropped[what.removeprefix("dropped because ")] += number
        unknown += number if what == "kept without a value" else 0
    if buckets is not None:
        dropped[f"it has no bucket ({buckets.outside})"] = tally.numbers[BEYOND]
        dropped["there is no image whose size is known"] = tally.numbers[UNSIZED]
    kept = int(tally.counts.sum())
    found = {
        "samples": kept + dropped.total(),
        "kept": kept,
        "kept_without_a_value": unknown,
        "dropped": dict((+dropped).most_common()),
        "bytes": tally.whole,
        "kept_bytes": tally.wanted,
    }
    if buckets is not None:
        sums = tally.counts.sum(0).tolist()
        pairs = sorted(zip(buckets.sizes, sums, strict=True), key=lambda pair: -pair[1])
        found["buckets"] = {"{} x {}".format(*size): count for size, count in pairs if count}
    return found


def _lines(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    share = f" ({found['kept'] / found['samples']:.1%})" if found["samples"] else ""
    yield "samples", f"{found['samples']:,} in {found['shards']:,} shards"
    yield "kept", f"{found['kept']:,}{share}, about {found['kept_bytes']:,} of {found['bytes']:,} bytes"
    if found["kept_without_a_value"]:
        yield "kept", f"{found['kept_without_a_value']:,} of them without a value (missing=keep)"
    for reason, count in found["dropped"].items():
        yield "dropped", f"{count:,} because {reason}"
    for name, count in found.get("buckets", {}).items():
        yield "bucket", f"{name}: {count:,}"
    if found["answer"] is not None:
        yield "answer", f"kept for later jobs: {found['answer']}"
    else:
        yield "answer", "not kept: jobs count a few local shards anew; others need a manifest (streampipe index)"
    for url, count in found.get("by_shard", {}).items():
        yield "shard", f"{url}: {count:,}"
