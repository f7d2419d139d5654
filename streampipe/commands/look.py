"""What commands read of a shard: from its index where there is one, else front to back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from streampipe.context import Run, Sample
from streampipe.index import Finder
from streampipe.plan.dataset import count
from streampipe.policy import ErrorPolicy
from streampipe.reading.indexed import IndexedShard
from streampipe.reading.tars import TarSamples
from streampipe.urls import ShardList


class Listed(NamedTuple):
    """A sample without its bytes: the size of each field, and of the main image as shown where that is known."""

    key: str
    fields: dict[str, int]
    width: int | None
    height: int | None


def listed(url: str, finder: Finder) -> Iterator[Listed]:
    """The samples of a shard. Without an index, a remote or compressed shard is read as a whole for it."""
    found = finder.find(url)
    if found is None:
        for sample in samples(url, finder):
            sizes = {name: len(value) for name, value in sample.items() if not name.startswith("__")}
            yield Listed(sample["__key__"], sizes, None, None)
        return
    for row in found.table.select(["key", "fields", "width", "height"]).to_pylist():
        yield Listed(row["key"], {each["name"]: each["size"] for each in row["fields"]}, row["width"], row["height"])


def samples(url: str, finder: Finder) -> Iterator[Sample]:
    """All samples of a shard with their bytes, front to back, strictly."""
    shard = TarSamples(ShardList.of([url]), finder.source, None, finder.limits, None, "sequential")
    return shard(Run(policy=ErrorPolicy("raise")), 0)


def sample(url: str, key: str, finder: Finder) -> Sample | None:
    """The sample of a key with its bytes, checked against the index where there is one; None if the shard has none."""
    found = finder.find(url)
    if found is None:
        return next((each for each in samples(url, finder) if each["__key__"] == key), None)
    keys = found.keys()
    if key not in keys:
        return None
    shard = IndexedShard(count(ShardList.of([url]), finder), 0, found)
    row = keys.index(key)
    start, end = shard.span(row)
    return shard.sample(row, finder.source.read(url, start, end), 0)
