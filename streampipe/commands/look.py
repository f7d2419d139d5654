"""What commands read of a shard: from its index where there is one, else front to back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from streampipe.context import Run, Sample
from streampipe.errors import ConfigError
from streampipe.index import Finder
from streampipe.plan.dataset import count
from streampipe.plan.lanes import Shuffle
from streampipe.policy import ErrorPolicy
from streampipe.reading.indexed import IndexedShard
from streampipe.reading.tars import TarSamples
from streampipe.samples import split_name
from streampipe.source import redact
from streampipe.urls import ShardList, expand


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
    shard = TarSamples(ShardList.of([url]), finder.source, Shuffle(), finder.limits, None, "sequential")
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


def one(url: str, name: str, finder: Finder) -> tuple[Sample, str]:
    """The sample that ``KEY`` or ``KEY.FIELD`` names, of the first shard that has it; and the field, ``""`` if none.

    Raises:
        ConfigError: there is no such sample, or it has no such field.
    """
    key, field = split_name(name) or (name, "")
    shards = expand([url], lambda: finder.source)
    found = next((each for shard in shards if (each := sample(shard, key, finder)) is not None), None)
    if found is None:
        where = redact(url) if len(shards) == 1 else f"the {len(shards)} shards of {redact(url)}"
        raise ConfigError(f"there is no sample {key!r} in {where}; streampipe ls lists the keys")
    if field and field not in fields_of(found):
        raise ConfigError(f"sample {key!r} of {found['__url__']} has no field {field!r}; {choices(found)}")
    return found, field


def fields_of(sample: Sample) -> list[str]:
    """The names of a sample's fields."""
    return [name for name in sample if not name.startswith("__")]


def choices(sample: Sample) -> str:
    """What can be named, for a message."""
    key = sample["__key__"]
    return "say one of: " + ", ".join(f"{key}.{each}" for each in fields_of(sample))
