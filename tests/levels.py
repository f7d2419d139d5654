"""The same samples at every level: shards that are indexed, counted by another tool's files, or only streamed."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import streampipe as sp
from tests.data import write_shards
from tests.plan.test_bucketed import write_sized

COUNTS = (7, 1, 9, 0, 4, 6, 3, 5, 8, 2)
BATCH = 4
Rows = tuple[tuple[int, str, int], ...]


def rows(batch: dict[str, Any]) -> Rows:
    """What is compared of a batch: the epoch, the key and a checksum of all fields of each sample, in order."""
    fields = sorted(name for name in batch if not name.startswith("__"))
    found = []
    for i, (position, key) in enumerate(zip(batch["__position__"], batch["__key__"], strict=True)):
        found.append((position.epoch, key, zlib.crc32(repr([_plain(batch[name][i]) for name in fields]).encode())))
    return tuple(found)


def keys_of(batches: Sequence[Rows]) -> list[str]:
    """The keys of all samples of some batches."""
    return [key for batch in batches for _, key, _ in batch]


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


@sp.stage
def numbered(samples):
    """An opaque stage: it holds one sample back, and numbers what it yields, so its past can be seen in each sample."""
    last, number = None, 0
    for sample in samples:
        if last is not None:
            yield {**last, "number": str(number)}
            number += 1
        last = sample
    if last is not None:
        yield {**last, "number": str(number)}


@sp.stage
def twice(samples):
    """A stage that splits: every sample becomes two."""
    for sample in samples:
        yield {**sample, "__key__": sample["__key__"] + "a"}
        yield {**sample, "__key__": sample["__key__"] + "b"}


@sp.stage
def noisy(samples, *, run):
    """A stage with a random choice for each sample."""
    for sample in samples:
        yield {**sample, "noise": repr(run.uniform(sample, 2))}


def most(sample):
    """A filter that drops about a third, without a pattern."""
    return zlib.crc32(sample["__key__"].encode()) % 3 > 0


def shout(text):
    return text.upper()


def open_local(url):
    """An opener: whoever reads through it knows nothing of the shard but its bytes."""
    return io.BytesIO(Path(url).read_bytes())


def compress(plain: Path, to: Path, counts: Sequence[int] | None = None) -> None:
    """The shards again as .tar.gz, which nothing indexes; with ``counts``, img2dataset's number beside each."""
    to.mkdir(parents=True, exist_ok=True)
    for i, path in enumerate(sorted(plain.glob("*.tar"))):
        (to / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), 1, mtime=0))
        if counts is not None:
            (to / f"{path.stem}_stats.json").write_text(json.dumps({"successes": counts[i], "count": counts[i] + 2}))


def write_levels(folder: Path, counts: Sequence[int] = COUNTS) -> list[str]:
    """The same shards for every level, in folders below ``folder``; the keys of their samples."""
    keys = write_shards(folder / "indexed", counts)
    compress(folder / "indexed", folder / "counted", counts)
    compress(folder / "indexed", folder / "streamed")
    write_shards(folder / "other", [11, 6])
    (folder / "sized").mkdir()
    write_sized(folder / "sized", [7, 1, 9, 4, 6, 3, 11])
    return keys


Make = Callable[..., sp.Pipeline]
"""From the folder of ``write_levels`` and options of ``sp.stream`` to a pipeline without its batch."""


def _source(level: str, folder: Path, epochs: int | None = 1, seed: int = 3, **options: Any) -> sp.Pipeline:
    """A new pipeline over shards that were listed and counted once: a job of many ranks in one process would do it for
    each of them.
    """
    policy = options.pop("on_error", "raise")
    found = _stream(level, folder, **{"shuffle": 5, **options})
    policy = policy if isinstance(policy, sp.ErrorPolicy) else sp.ErrorPolicy(policy)
    return sp.Pipeline(found.source, seed=seed, epochs=epochs, policy=policy)


@lru_cache(maxsize=64)
def _stream(level: str, folder: Path, **options: Any) -> sp.Pipeline:
    if level == "opened":
        urls = [str(path) for path in sorted((folder / "indexed").glob("*.tar"))]
        return sp.stream(urls, opener=open_local, **options)
    return sp.stream(str(folder / level), **options)


def samples(level: str, chain: str, folder: Path, **options: Any) -> sp.Pipeline:
    """A pipeline of a level and a chain, before its batch.

    ``level``: indexed, counted, streamed, or opened (streamed through an opener). ``chain``: built-in stages alone
    (each), a filter of the user's, an opaque stage, or one that splits.
    """
    pipe = _source(level, folder, **options).decode().map(shout, "txt").caption("txt", dropout=0.3)
    if chain == "filter":
        return pipe.filter(most)
    if chain == "opaque":
        return pipe.apply(noisy()).apply(numbered())
    if chain == "split":
        return pipe.apply(twice())
    assert chain == "each"
    return pipe


def mixed(folder: Path, **options: Any) -> sp.Pipeline:
    """A mixture of two datasets."""
    parts = [_source(name, folder, seed=seed).decode() for name, seed in (("indexed", 3), ("other", 9))]
    return sp.mix(parts, [3, 1], **options)


def bucketed(folder: Path, **options: Any) -> sp.Pipeline:
    """Buckets that the planner decides; epochs have different lengths, because leftovers are carried over."""
    pipe = _source("sized", folder, **options)
    return pipe.bucket([(8, 16), (8, 8), (16, 8), (8, 40)]).decode()
