"""``streampipe info URL...``: what a dataset holds, from its indexes."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streampipe.commands.given import finder_of, shards_of
from streampipe.commands.histogram import Histogram
from streampipe.commands.say import say, say_json
from streampipe.index import Finder, ShardIndex
from streampipe.index.facts import OWN
from streampipe.plan.buckets import Buckets, make
from streampipe.query.aliases import CAPTION_KEYS, columns_of

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
    """What ``info`` says of a shard; ``samples`` is None where they are not counted."""

    samples: int | None
    bytes: int | None
    fields: dict[str, tuple[int, int]]  # how many samples have it, and its bytes in all of them
    columns: frozenset[str]
    values: dict[str, np.ndarray]  # by histogram


def run(given: argparse.Namespace) -> int:
    """Read all indexes, and say what is in them."""
    shards, source = shards_of(given)
    finder, whole = finder_of(given, source), Dataset(make(given.bucket))
    with ThreadPoolExecutor(given.threads) as pool:
        for facts in pool.map(lambda url: facts_of(url, finder), shards):
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
    columns = index.fact_names - (set(OWN) - {"key", "width", "height"})
    return Facts(len(index), index.shard_bytes, _fields(index), columns, dict(_values(index)))


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
        self._shards += 1
        self._counted += facts.samples is not None
        self._samples += facts.samples or 0
        self._sized += facts.bytes is not None
        self._bytes += facts.bytes or 0
        self._columns |= facts.columns
        for name, (samples, size) in facts.fields.items():
            self._fields[name] += samples
            self._field_bytes[name] += size
        for name, values in facts.values.items():
            self._histograms[name].add(values)
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


def _fields(index: ShardIndex) -> dict[str, tuple[int, int]]:
    """The fields of a shard: in how many samples they are, and their bytes."""
    each = pc.list_flatten(index.table.column("fields"))
    table = pa.table({"name": pc.struct_field(each, "name"), "size": pc.struct_field(each, "size")})
    found = table.group_by("name").aggregate([("size", "count"), ("size", "sum")]).to_pydict()
    return {
        name: (samples, size)
        for name, samples, size in zip(found["name"], found["size_count"], found["size_sum"], strict=True)
    }


def _values(index: ShardIndex) -> Iterator[tuple[str, np.ndarray]]:
    """The values of each histogram in a shard."""
    sizes = index.table.select(["height", "width"]).drop_null()
    height, width = (sizes.column(name).to_numpy().astype(np.int64) for name in ("height", "width"))
    height, width = height[(known := (height > 0) & (width > 0))], width[known]
    if len(height):
        yield from (("height", height), ("width", width))
        yield from (("megapixels", height * width / 1e6), ("width / height", width / height))
    yield from _captions(index)
    for name in SCORES:
        columns = index.columns(columns_of(name))
        numeric = [each for each in columns.values() if isinstance(each, pa.ChunkedArray) and _is_number(each.type)]
        if numeric:
            yield name, numeric[0].drop_null().cast(pa.float64(), safe=False).to_numpy()


def _captions(index: ShardIndex) -> Iterator[tuple[str, np.ndarray]]:
    """The lengths of captions: bytes, where they are members; else characters."""
    each = pc.list_flatten(index.table.column("fields"))
    names, sizes = pc.struct_field(each, "name"), pc.struct_field(each, "size")
    for key in CAPTION_KEYS:
        found = sizes.filter(pc.equal(names, key))
        if len(found):
            yield "caption bytes", found.to_numpy()
            return
    for column in index.columns(CAPTION_KEYS).values():
        if isinstance(column, pa.ChunkedArray) and pa.types.is_string(column.type):
            yield "caption characters", pc.utf8_length(column.drop_null()).to_numpy()
            return


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
