"""``streampipe select URL... --where CONDITION``: what a condition keeps; the answer is kept for all later jobs."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

from streampipe.commands.given import finder_of, shards_of
from streampipe.commands.say import say, say_json
from streampipe.errors import ConfigError
from streampipe.index.answers import Tally
from streampipe.plan.ask import Question, Uncounted, ask, where_kept
from streampipe.plan.buckets import Buckets, make
from streampipe.plan.dataset import Kept
from streampipe.plan.sorter import BEYOND, UNSIZED, Sorter
from streampipe.query.condition import Condition, Keep
from streampipe.source import Cache, redact


def run(given: argparse.Namespace) -> int:
    """Ask; 1 if nothing is kept, 2 if nothing is asked."""
    if not given.where and given.bucket is None:
        print("streampipe: select wants a question: --where CONDITION, --bucket NAME, or both", file=sys.stderr)
        return 2
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
