"""One shard with its index, made in a worker process or in the parent: a function of its samples alone."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa

from streampipe.atomic import AtomicFile, sync_folder, write_atomic
from streampipe.decoding import probe
from streampipe.decoding.fields import IMAGES, main_image
from streampipe.errors import DecodeError, PackError, StreampipeError
from streampipe.folders.files import Unreadable, packed_size, read_file
from streampipe.folders.names import Item
from streampipe.index import ShardIndex, scan
from streampipe.index.find import index_url
from streampipe.index.manifest import Entry
from streampipe.pack.change import Change
from streampipe.processes import Tell
from streampipe.source import Source
from streampipe.tar import Limits, TarWriter

AGAIN = "make room or mend the disk, and run the same command again: finished shards are kept"


class Skipped(NamedTuple):
    """What was left out: a file, why, and of which shard (None if it was not read at all)."""

    file: str
    reason: str
    shard: str | None = None


@dataclass(frozen=True)
class Task:
    """A shard to be made."""

    path: str
    folder: str
    items: tuple[Item, ...]
    digest: str
    on_error: str
    change: Change = field(default_factory=Change)


class Made(NamedTuple):
    """A shard that is there: its row of the manifest, a digest of its files, and what was left out of it."""

    entry: Entry
    digest: str
    skipped: tuple[Skipped, ...]


def make(task: Task, tell: Tell) -> Made:
    """Write a shard and, before it, its index: where there is a shard, there is its index.

    Raises:
        PackError: a file cannot be read (not under ``on_error="skip"``), or the shard cannot be written.
    """
    skipped: list[Skipped] = []
    facts: list[tuple[str | None, int | None]] = []
    try:
        with AtomicFile(task.path) as draft:
            writer = TarWriter(draft.file.write)
            for item in task.items:
                _add(writer, item, task, skipped, facts)
                tell(1)
            writer.close()
            draft.sync()
            index = _with_facts(scan(draft.path, Source(), Limits()), facts)
            forget(task.path)
            write_atomic(index_url(task.path), index.to_bytes())
            draft.publish(sync=False)  # it is on the disk
        sync_folder(os.path.dirname(task.path))
    except OSError as error:
        if isinstance(error, StreampipeError):
            raise
        needed = sum(map(packed_size, task.items))
        raise PackError(
            f"{task.path} could not be written ({error.strerror or error}): it needs {needed} bytes; {AGAIN}"
        ) from error
    entry = Entry(os.path.basename(task.path), index.shard_bytes, len(index), index.facts["sha256"])
    return Made(entry, task.digest, tuple(skipped))


def forget(path: str) -> None:
    """Delete a shard that is out of date before its new index is there: one never describes the other."""
    for each in (path, index_url(path)):
        if os.path.lexists(each):
            os.unlink(each)


def _add(
    writer: TarWriter, item: Item, task: Task, skipped: list[Skipped], facts: list[tuple[str | None, int | None]]
) -> None:
    """Write a sample, and note the sha256 of its main image as it was found, and the orientation of what is written."""
    try:
        fields = {name: read_file(task.folder, file, name) for name, file in item.files.items()}
        main = main_image([name for name in fields if name.rpartition(".")[2] in IMAGES])
        digest = hashlib.sha256(fields[main]).hexdigest()
        if task.change:
            try:
                fields = task.change.apply(fields)
            except DecodeError as error:
                raise Unreadable(os.path.join(task.folder, item.files[main].path), str(error)) from error
    except Unreadable as error:
        if task.on_error == "raise":
            raise PackError(f"{error}; mend it, or pass --on-error skip to leave it out") from error
        skipped.append(Skipped(error.path, error.why, os.path.basename(task.path)))
        return
    writer.add(item.key, fields)
    facts.append((digest, _orientation(fields)))


def _orientation(fields: dict[str, bytes]) -> int | None:
    try:
        return probe(fields[main_image([name for name in fields if name.rpartition(".")[2] in IMAGES])]).orientation
    except DecodeError:
        return None  # decoding says what is wrong with it


def _with_facts(index: ShardIndex, facts: list[tuple[str | None, int | None]]) -> ShardIndex:
    """An index with the columns ``sha256`` and ``orientation``, where the json has none of that name."""
    table = index.table
    for number, (name, kind) in enumerate((("sha256", pa.string()), ("orientation", pa.int32()))):
        if name not in table.column_names:
            table = table.append_column(name, pa.array([each[number] for each in facts], kind))
    return ShardIndex(table, index.facts)
