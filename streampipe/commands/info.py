"""``streampipe info URL...``: what a dataset holds, from its indexes."""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streampipe.commands.given import finder_of, shards_of
from streampipe.commands.histogram import Histogram
from streampipe.commands.say import say, say_json
from streampipe.errors import IndexMismatch, SourceError
from streampipe.index import Finder, ShardIndex
from streampipe.index.dataset import Known, known_of
from streampipe.index.facts import OWN
from streampipe.index.merged import Untold, Wanted
from streampipe.index.merged import facts_of as merged_facts
from streampipe.index.sizes import Lengths, sizes_from, sizes_of
from streampipe.plan.buckets import Buckets, make
from streampipe.pool import Pool
from streampipe.query.aliases import CAPTION_KEYS, columns_of

log = logging.getLogger("streampipe")
SCORES = ("aesthetic", "watermark", "nsfw", "similarity")
_EDGES: dict[str, tuple[float, ...]] = {
    "height": (0, 256, 512, 768, 1024, 1536, 2048, 4096),
    "width": (0, 256, 512, 768, 1024, 1536, 2048, 4096),
    "megapixels": (0, 0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32),
    "width / height": (0, 1 / 3, 1 / 2, 2 / 3, 4 / 5, 0.95, 1.05, 5 / 4, 3 / 2, 2, 3),
    "caption bytes": (0, 1, 32, 64, 128, 256, 512, 1024, 2048, 4096),
    "caption characters": (0, 1, 32, 64, 128, 256, 512, 1024, 2048, 4096),
}


class Facts(NamedTuple):
    """What ``info`` says of some shards; ``samples`` is None where they are not counted."""

    samples: int | None
    bytes: int | None
    fields: Mapping[str, tuple[int, int]]  # how many samples have it, and its bytes in all of them
    columns: frozenset[str]
    values: dict[str, np.ndarray]  # by histogram
    captions: Lengths | None = None
    shards: int = 1


def run(given: argparse.Namespace) -> int:
    """Read all indexes, and say what is in them."""
    shards, source = shards_of(given)
    finder, whole = finder_of(given, source), Dataset(make(given.bucket))
    with Pool(given.threads) as pool:
        left = np.ones(len(shards), bool)
        known = known_of(shards, finder)
        for (_, at), found in zip(jobs := list(known.merged()), pool.map(_merged(known, finder), jobs), strict=True):
            left[at] = not found
            for facts in found:
                whole.add(facts)
        for facts in pool.map(lambda i: facts_of(shards[i], finder), np.flatnonzero(left).tolist()):
            whole.add(facts)
    if given.json:
        say_json(whole.as_dict())
        return 0
    for name, text in whole.lines():
        say(f"{name:<18} {text}")
    return 0


def facts_of(url: str, finder: Finder) -> Facts:
    """What is known of a shard without reading it as a whole."""
    index = finder.find(url)
    if index is None:
        return Facts(None, finder.source.size(url), {}, frozenset(), {})
    sizes = sizes_of(index)
    values = dict(_values(index, sizes.captions is None))
    return Facts(len(index), index.shard_bytes, sizes.fields, _asked(index), values, sizes.captions)


def _merged(known: Known, finder: Finder) -> Callable[[tuple[Wanted, np.ndarray]], list[Facts]]:
    """What the facts of many shards say together; nothing, where their own indexes must be asked."""
    columns = frozenset(("width", "height", *CAPTION_KEYS, *(name for score in SCORES for name in columns_of(score))))

    def one(job: tuple[Wanted, np.ndarray]) -> list[Facts]:
        wanted, at = job
        sizes = sizes_from(wanted.part.sizes)
        if sizes is None or len(at) < wanted.part.shards:
            return []
        size = int(known.column("bytes")[at].sum())
        try:
            tables = [found for found, _, _ in merged_facts(wanted, finder.source, finder.limits, columns)]
            names = frozenset[str]().union(*map(_asked, tables))
            values = [Facts(0, 0, {}, names, dict(_values(each, sizes.captions is None)), None, 0) for each in tables]
        except Untold:
            return []
        except (IndexMismatch, SourceError) as error:
            log.warning("%s; it is passed over: the shards' own indexes are read", error)
            return []
        return [Facts(sizes.samples, size, sizes.fields, names, {}, sizes.captions, len(at)), *values]

    return one


def _asked(index: ShardIndex) -> frozenset[str]:
    return frozenset(index.fact_names) - (set(OWN) - {"key", "width", "height"})


class Dataset:
    """What is known of all shards together."""

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets
        self._shards = self._counted = self._samples = self._sized = self._bytes = 0
        self._columns: set[str] = set()
        self._fields: Counter[str] = Counter()
        self._field_bytes: Counter[str] = Counter()
        self._histograms = {name: Histogram(edges) for name, edges in _EDGES.items()}
        self._histograms |= {name: Histogram() for name in SCORES}
        self._of_bucket: Counter[str] = Counter()

    def add(self, facts: Facts) -> None:
        """One shard more."""
        self._shards += facts.shards
        self._counted += facts.shards * (facts.samples is not None)
        self._samples += facts.samples or 0
        self._sized += facts.shards * (facts.bytes is not None)
        self._bytes += facts.bytes or 0
        self._columns |= facts.columns
        for name, (samples, size) in facts.fields.items():
            self._fields[name] += samples
            self._field_bytes[name] += size
        for name, values in facts.values.items():
            self._histograms[name].add(values)
        if facts.captions is not None:
            least, most, total, counts = facts.captions
            some = (1 << np.arange(len(counts))) >> 1  # the least number of so many binary digits
            self._histograms["caption bytes"].add_counted(some, np.asarray(counts), least, most, total)
        if "height" in facts.values:
            found = self._buckets.assign(facts.values["height"], facts.values["width"])
            for number, count in zip(*np.unique(found, return_counts=True), strict=True):
                self._of_bucket[self._name(int(number))] += int(count)

    def _name(self, number: int) -> str:
        return "{} x {}".format(*self._buckets.sizes[number]) if number >= 0 else f"none ({self._buckets.outside})"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        fields = {n: {"samples": k, "bytes": self._field_bytes[n]} for n, k in self._fields.most_common()}
        return {
            "shards": self._shards,
            "counted_shards": self._counted,
            "samples": self._samples,
            "bytes": self._bytes,
            "sized_shards": self._sized,
            "fields": fields,
            "columns": sorted(self._columns),
            "buckets": dict(self._of_bucket.most_common()),
            "histograms": {name: each.as_dict() for name, each in self._histograms.items() if each.values},
        }

    def lines(self) -> Iterator[tuple[str, str]]:
        """The report, line by line."""
        missing = self._shards - self._counted
        yield "shards", f"{self._shards:,}"
        rest = f" in {self._counted:,} shards; the others are not counted" if missing else ""
        yield "samples", f"{self._samples:,}{rest}"
        yield "bytes", f"{self._bytes:,}" + ("" if self._sized == self._shards else f" in {self._sized:,} shards")
        if missing:
            yield (
                "tier",
                f"sequential: {missing:,} shards have no index and are remote or compressed (streampipe index)",
            )
        else:
            yield "tier", "planned, where the stages allow it: the samples are counted"
        if self._fields:
            yield "fields", ", ".join(f"{name} ({n:,})" for name, n in self._fields.most_common(20))
        for name, n in self._fields.most_common(20):
            size = self._field_bytes[name]
            yield "field", f"{name}: {size:,} bytes, {size / n:,.0f} on average"
        asked = sorted(self._columns - {"width", "height"})
        if self._counted:
            yield "where", ", ".join(["width", "height", *asked[:40]]) + (", ..." if len(asked) > 40 else "")
        for name, each in self._histograms.items():
            for line in each.lines():
                yield name, line
        for name, count in self._of_bucket.most_common():
            yield "bucket", f"{name}: {count:,} ({count / self._of_bucket.total():.1%})"


def _values(index: ShardIndex, captions: bool = True) -> Iterator[tuple[str, np.ndarray]]:
    """The values of each histogram in a shard; ``captions``: of columns with captions, too."""
    sizes = index.table.select(["height", "width"]).drop_null()
    height, width = (sizes.column(name).to_numpy().astype(np.int64) for name in ("height", "width"))
    height, width = height[(known := (height > 0) & (width > 0))], width[known]
    if len(height):
        yield from (("height", height), ("width", width))
        yield from (("megapixels", height * width / 1e6), ("width / height", width / height))
    if captions:
        yield from _captions(index)
    for name in SCORES:
        columns = index.columns(columns_of(name))
        numeric = [each for each in columns.values() if isinstance(each, pa.ChunkedArray) and _is_number(each.type)]
        if numeric:
            found = pc.coalesce(*(each.cast(pa.float64(), safe=False) for each in numeric))
            yield name, found.drop_null().to_numpy()


def _captions(index: ShardIndex) -> Iterator[tuple[str, np.ndarray]]:
    """The lengths of captions that are no members, in characters."""
    columns = index.columns(CAPTION_KEYS).values()
    texts = [each for each in columns if isinstance(each, pa.ChunkedArray) and pa.types.is_string(each.type)]
    if texts:
        yield "caption characters", pc.utf8_length(pc.coalesce(*texts).drop_null()).to_numpy()


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
