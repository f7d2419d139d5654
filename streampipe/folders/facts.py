"""What conditions and buckets may ask of a folder's samples: sizes of images, values of json files, found run by run.

A shard is a run of samples in the order of their keys. It is looked through once, and what was found is remembered
under the names, sizes and dates of its files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from mmap import ACCESS_READ, mmap
from typing import Any

import pyarrow as pa

from streampipe.decoding import probe
from streampipe.decoding.movie import is_video_field, main_picture
from streampipe.errors import DecodeError
from streampipe.folders.files import digest_of, packed_size
from streampipe.folders.names import File, Item
from streampipe.index import Finder, ShardIndex
from streampipe.index.columns import Columns
from streampipe.index.facts import scalars_of, video_facts
from streampipe.index.table import IMAGES, make
from streampipe.rng import derive
from streampipe.source import Source
from streampipe.tar import Limits

Read = Callable[[File, str], bytes]
"""Gives the bytes of a file, for the field of a name."""
_MEAN, _MOST = 512, 2048  # samples of a shard
_HEAD = 256 << 10  # bytes that nearly every image header is in


def cut(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Samples into shards. Where one ends follows from its keys, so that a new file moves no other's."""
    shard: list[Item] = []
    for item in items:
        shard.append(item)
        if len(shard) >= _MOST or derive("folder", item.key) % _MEAN == 0:
            yield shard
            shard = []
    if shard:
        yield shard


def facts_of(folder: str, items: list[Item], read: Read, columns: Collection[str] | None = None) -> ShardIndex:
    """The facts of a shard's samples, one row each; remembered."""
    identity = f"folder\0{folder}\0{digest_of(items)}"
    name = os.path.join(folder, items[0].key)
    found = Finder(Source(), Limits()).noted(identity, name, lambda: _scan(folder, items, read), columns)
    if "video.frames" in found.table.column_names or (columns is not None and "video.frames" not in columns):
        return found
    none = pa.nulls(len(items), pa.int64())  # there is no video: that is known, too
    return ShardIndex(found.table.append_column("video.frames", none), found.facts)


def main_file(item: Item) -> tuple[str, File]:
    """A sample's main video, or without one its main image: field and file."""
    name = main_picture(item.files)
    return name, item.files[name]


def _scan(folder: str, items: Iterable[Item], read: Read) -> ShardIndex:
    """Read the headers of the images and videos, and the json files."""
    rows, columns, at = [], Columns(), 0
    for item in items:
        width, height, video = _size(folder, *main_file(item), read)
        size = packed_size(item)
        rows.append(
            {
                "key": item.key,
                "offset": at,
                "size": size,
                "crc32": None,
                "fields": [{"name": name, "offset": 0, "size": file.size} for name, file in item.files.items()],
                "width": width,
                "height": height,
            }
        )
        at += size
        facts = scalars_of(read(item.files["json"], "json")) if "json" in item.files else {}
        columns.add({"bytes": sum(file.size for file in item.files.values()), **facts, **video})
    found = make(rows, columns, {"bytes": at})
    found.facts[IMAGES] = False  # others than the main one are not looked at
    return found


def _size(folder: str, name: str, file: File, read: Read) -> tuple[int | None, int | None, dict[str, Any]]:
    """Width and height of an image or a video, as shown, None where it is damaged, which decoding will say; and the
    columns of a video.
    """
    try:
        with open(os.path.join(folder, file.path), "rb") as opened:
            head = opened.read(_HEAD)
            whole = memoryview(mmap(opened.fileno(), 0, access=ACCESS_READ)) if head else b""
    except (OSError, ValueError):
        head = whole = read(file, name)  # which says what is wrong
    if is_video_field(name, whole):
        found = video_facts({name: whole})
        return found.get("video.width"), found.get("video.height"), found
    try:
        header = probe(head)
    except DecodeError:
        if file.size <= _HEAD:
            return None, None, {}
        try:
            header = probe(read(file, name))  # its header lies behind much else
        except DecodeError:
            return None, None, {}
    return header.width, header.height, {}
