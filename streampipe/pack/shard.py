"""One shard with its index, made in a worker process or in the parent: a function of its samples alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa

from streampipe.checksum import Digest, Hashes, crc32
from streampipe.decoding.codecs import ALL
from streampipe.decoding.fields import decode_field
from streampipe.decoding.movie import main_picture, videos_in
from streampipe.decoding.video import check_video
from streampipe.errors import ConfigError, DecodeError, PackError, StreampipeError, UnsafeName
from streampipe.folders.files import Unreadable
from streampipe.index import ShardIndex
from streampipe.index.manifest import Entry
from streampipe.index.writer import IndexWriter
from streampipe.pack.change import Change
from streampipe.pack.contents import Contents, Loaded, main_of
from streampipe.pack.output import Output
from streampipe.pack.pickles import unpickled
from streampipe.processes import Tell
from streampipe.source import redact

AGAIN = "make room or mend the disk, and run the same command again: finished shards are kept"


_Facts = tuple[Digest | None, int | None]
"""The digest of a sample's image as it was found (None: without), and the orientation of what is written."""


class Skipped(NamedTuple):
    """What was left out: a file, why, and of which shard (None if it was not read at all)."""

    file: str
    reason: str
    shard: str | None = None


@dataclass(frozen=True)
class Task:
    """A shard to be made."""

    out: Output
    name: str
    contents: Contents
    on_error: str
    change: Change = field(default_factory=Change)
    verify: bool = False
    bucket: str | None = None
    unpickle: bool = False
    sha256: bool = True
    beside: bool = False  # whether a thread may make them


class Made(NamedTuple):
    """A shard that is there: its row of the manifest, a digest of its files, what was left out of it, and how many
    animations lost all frames but the first.
    """

    entry: Entry
    digest: str
    skipped: tuple[Skipped, ...]
    stills: int = 0


def make(task: Task, tell: Tell) -> Made:
    """Write a shard and, before it, its index: where there is a shard, there is its index.

    Raises:
        PackError: a file cannot be read (not under ``on_error="skip"``), or the shard cannot be written.
    """
    skipped: list[Skipped] = []
    facts: list[_Facts] = []
    stills: list[str] = []
    place = task.out.of(task.name)
    try:
        with task.out.draft(task.name) as draft, Hashes(task.beside and task.sha256) as hashes:
            writer = IndexWriter(draft.file.write, place, task.sha256, hashes)
            for found in task.contents:
                _add(writer, hashes, found, task, skipped, facts, stills)
                tell(1)
            index = _with_facts(writer.close(), facts, task)
            table = index.to_bytes()
            task.out.publish(draft, task.name, table)
    except OSError as error:
        if isinstance(error, StreampipeError):
            raise
        needed = task.contents.needed
        raise PackError(
            f"{redact(place)} could not be written ({error.strerror or error}): it needs {needed} bytes; {AGAIN}"
        ) from error
    entry = Entry(task.name, index.shard_bytes, len(index), index.facts.get("sha256"), crc32(table))
    return Made(entry, task.contents.digest, tuple(skipped), len(stills))


def _add(
    writer: IndexWriter,
    hashes: Hashes,
    found: Loaded | Unreadable,
    task: Task,
    skipped: list[Skipped],
    facts: list[_Facts],
    stills: list[str],
) -> None:
    """Write a sample, and note the sha256 of its main image as it was found, and the orientation of what is written."""
    digest: Digest | None = None
    if isinstance(found, Loaded) and (task.sha256 or task.change or task.verify or task.unpickle):
        found, digest = _ready(found, hashes, task, stills)
    if isinstance(found, Unreadable):
        if task.on_error == "raise":
            raise PackError(f"{found}; mend it, or pass --on-error skip to leave it out") from found
        skipped.append(Skipped(found.path, found.why, task.name))
        return
    try:
        header = writer.add(found.key, found.fields)
    except (UnsafeName, ConfigError) as error:  # of a source whose fields no shard can hold
        if task.on_error == "raise":
            raise PackError(f"{error}; or pass --on-error skip to leave it out") from error
        skipped.append(Skipped(found.place(""), str(error), task.name))
        return
    facts.append((digest, None if header is None else header.orientation))


def _ready(found: Loaded, hashes: Hashes, task: Task, stills: list[str]) -> tuple[Loaded | Unreadable, Digest | None]:
    """A sample as it is written, and the digest of its main image as it was found; or why it cannot be."""
    if task.unpickle:
        try:
            found = found._replace(fields=unpickled(found.fields))
        except DecodeError as error:
            return Unreadable(found.place(next(iter(found.fields))), str(error)), None
    images = main_of(found.fields)
    if not images:
        return found, None
    main = main_picture(images)
    digest = hashlib.sha256() if task.sha256 else None
    if digest is not None:
        hashes.update(digest, found.fields[main])
    name, fields = main, found.fields
    try:
        if task.change:
            fields = task.change.apply(found.fields, stills.append)
        if task.verify:
            for name in main_of(fields):
                data = fields[name]
                check_video(data) if videos_in({name: data}, gifs=False) else decode_field(name, data, formats=ALL)
    except DecodeError as error:
        return Unreadable(found.place(name if name in found.fields else main), str(error)), None
    return (found if fields is found.fields else found._replace(fields=fields)), digest


def _with_facts(index: ShardIndex, facts: list[_Facts], task: Task) -> ShardIndex:
    """An index with the columns ``sha256``, ``orientation`` and ``bucket``, where the json has none of that name."""
    table = index.table
    columns: dict[str, pa.Array] = {}
    if task.sha256:
        columns["sha256"] = pa.array([digest and digest.hexdigest() for digest, _ in facts], pa.string())
    columns["orientation"] = pa.array([orientation for _, orientation in facts], pa.int32())
    if task.bucket is not None:
        columns["bucket"] = pa.array([task.bucket] * len(facts), pa.string())
    for name, column in columns.items():
        if name not in table.column_names:
            table = table.append_column(name, column)
    return ShardIndex(table, index.facts)
