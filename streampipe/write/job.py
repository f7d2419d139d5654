"""The job that an output folder belongs to: what decides its shards, written down before the first of them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache
from typing import Any

from streampipe.atomic import sweep
from streampipe.errors import ConfigError, OutputBusy, PackError
from streampipe.index.find import index_url
from streampipe.index.manifest import NAME
from streampipe.reading.protocol import Samples, digest
from streampipe.source import Source, local_path, redact
from streampipe.spec import Spec
from streampipe.write.draft import put, sweep_uploads
from streampipe.write.spec import describe

RECORD = "write.json"
VERSION = 1


def shard_url(pattern: str, number: int) -> str:
    """The URL of an output shard.

    >>> shard_url("out/{:05d}.tar", 7)
    'out/00007.tar'
    """
    return pattern.format(number)


def check_pattern(pattern: str) -> None:
    """Refuse a pattern that does not number shards.

    >>> check_pattern("out/shard.tar")
    Traceback (most recent call last):
        ...
    streampipe.errors.ConfigError: 'out/shard.tar' does not number the shards: write it as in 'out/{:05d}.tar'
    """
    try:
        names = [shard_url(pattern, number).rpartition("/") for number in (0, 1)]
    except (IndexError, KeyError, ValueError):
        names = []
    if len({name for _, _, name in names}) < 2 or len({folder for folder, _, _ in names}) > 1:
        raise ConfigError(f"{redact(pattern)!r} does not number the shards: write it as in 'out/{{:05d}}.tar'")
    if not pattern.endswith(".tar"):
        raise ConfigError(
            f"{redact(pattern)!r}: shards are written as plain .tar: what they hold is compressed already"
        )


def claim(pattern: str, facts: Mapping[str, Any], source: Source, shards: int) -> None:
    """Make sure that what is at ``pattern`` is this very job's earlier work, or nothing; and write the job down.

    Raises:
        OutputBusy: there are shards of another job (it names what differs, with both values), or of unknown origin.
    """
    folder = pattern.rpartition("/")[0]
    path = local_path(folder) if "://" in folder else folder or "."
    record = f"{folder}/{RECORD}" if folder else RECORD

    @cache
    def ours() -> frozenset[str]:  # asked where a killed writer left something
        names = [shard_url(pattern, number).rpartition("/")[2] for number in range(min(shards, 100_000))]
        return frozenset([*names, *map(index_url, names), NAME, RECORD])

    if path is not None:
        try:
            os.makedirs(path, exist_ok=True)
            sweep(path, lambda name: name in ours())
        except OSError as error:
            raise PackError(
                f"{path} cannot be written ({error.strerror or error}); choose another output folder"
            ) from error
    else:
        sweep_uploads()
    known = source.read_if_there(record)
    if known is None:
        _check_empty(pattern, path, source)
        if put(record, (json.dumps(facts, indent=1) + "\n").encode(), source, new=True):
            return
        known = source.read(record)  # another process was faster
    try:
        theirs = json.loads(known)
    except ValueError:
        raise OutputBusy(f"{redact(record)} is damaged; choose an empty output folder, or delete this one") from None
    for name in {**facts, **theirs}:
        if theirs.get(name) != facts.get(name):
            mine, others = _difference(facts.get(name), theirs.get(name))
            raise OutputBusy(
                f"{redact(folder)} belongs to another job: its {name} was {others} and is {mine} here; choose an empty "
                f"output folder, or delete this one"
            )


def facts_of(spec: Spec, pattern: str, options: Any, more: dict[str, Any]) -> dict[str, Any]:
    """What decides the bytes of the shards. Not the error policy: ``"skip"`` may finish what ``"raise"`` stopped."""
    facts = {
        "streampipe": VERSION,
        "shards": pattern.rpartition("/")[2],
        "max_samples": options.max_samples,
        "inputs": _inputs(spec.source),
        "seed": spec.seed,
        **more,
        "pipeline": [describe(stage) for stage in spec.chain],
        "quality": options.quality,
        "version": options.version,
        **({} if options.sha256 else {"sha256": False}),
    }
    plain: dict[str, Any] = json.loads(json.dumps(facts))
    return plain


def _inputs(source: Samples) -> list[str]:
    """What the samples are, in words and digests; of a mixture its parts, with their stages."""
    if source.parts:
        return [line for part in source.parts for line in (*_inputs(part.source), *map(describe, part.chain))]
    return [each if isinstance(each, str) else digest([describe(each)]) for each in source.identity()]


def _difference(mine: Any, theirs: Any) -> tuple[str, str]:
    """Two values that differ, in lists those parts of them that do; None is one that was not given."""
    if isinstance(mine, list) and isinstance(theirs, list):
        ours = [each for each in mine if each not in theirs] or mine
        others = [each for each in theirs if each not in mine] or theirs
        return _short(ours), _short(others)
    return _short(mine), _short(theirs)


def _short(value: Any) -> str:
    text = "not given" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 500 else text[:497] + "..."


def _check_empty(pattern: str, path: str | None, source: Source) -> None:
    folder, first = pattern.rpartition("/")[0], shard_url(pattern, 0)
    if path is not None:
        present = [name for name in os.listdir(path) if name.endswith(".tar")]
    else:
        present = [first.rpartition("/")[2]] if exists(first, source) else []
    if present:
        raise OutputBusy(
            f"{redact(folder)} holds shards of unknown origin ({present[0]}) and no {RECORD}; choose an empty "
            f"output folder"
        )


def is_done(pattern: str, number: int, source: Source) -> bool:
    """Whether an output shard is there, with its index."""
    url = shard_url(pattern, number)
    return exists(url, source) and exists(index_url(url), source)


def exists(url: str, source: Source) -> bool:
    """Whether there is an object at a URL."""
    path = local_path(url)
    if path is not None:
        return os.path.exists(path)
    try:
        source.size(url)
    except FileNotFoundError:
        return False
    return True
