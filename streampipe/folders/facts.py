"""What conditions and buckets may ask of a folder's samples: sizes of images, values of json files, found run by run.

A shard is a run of samples in the order of their keys. It is looked through once, and what was found is remembered
under the names, sizes and dates of its files. Other images than the main one, and files of conditions, are looked at
where they are asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from mmap import ACCESS_READ, mmap
from typing import Any

import pyarrow as pa

from streampipe.decoding import ImageHeader, probe
from streampipe.decoding.codec import Data
from streampipe.decoding.fields import ALL_IMAGES
from streampipe.decoding.movie import is_video_field, main_picture
from streampipe.errors import DecodeError
from streampipe.folders.files import digest_of, packed_size
from streampipe.folders.names import File, Item
from streampipe.index import Finder, ShardIndex
from streampipe.index.columns import Columns
from streampipe.index.facts import EDGES, costs_of, images_in, scalars_of, video_facts
from streampipe.index.table import IMAGES, make
from streampipe.rng import derive
from streampipe.source import Source
from streampipe.tar import Limits

Read = Callable[[File, str], bytes]
"""Gives the bytes of a file, for the field of a name."""
_MEAN, _MOST = 512, 2048  # samples of a shard
_TENSORS = ".safetensors"
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
    images, costs = _asked(items, columns)
    identity = f"folder\0{folder}\0{digest_of(items)}" + "\0images" * images + "\0costs" * costs
    name = os.path.join(folder, items[0].key)
    scan = partial(_scan, folder, items, read, images, costs)
    found = Finder(Source(), Limits()).noted(identity, name, scan, columns)
    if "video.frames" in found.table.column_names or (columns is not None and "video.frames" not in columns):
        return found
    none = pa.nulls(len(items), pa.int64())  # there is no video: that is known, too
    return ShardIndex(found.table.append_column("video.frames", none), found.facts)


def _asked(items: Iterable[Item], columns: Collection[str] | None) -> tuple[bool, bool]:
    """Whether sizes of other images may be asked for, and what conditions cost."""
    if columns is None:
        return True, True
    stems = {name.partition(".")[0] for item in items for name in item.files if name.endswith(_TENSORS)}
    costs = any(column.startswith(tuple(f"{stem}." for stem in stems)) for column in columns) if stems else False
    return any(column.endswith(EDGES) for column in columns), costs


def main_file(item: Item) -> tuple[str, File]:
    """A sample's main video, or without one its main image: field and file."""
    name = main_picture(item.files)
    return name, item.files[name]


def _scan(folder: str, items: Iterable[Item], read: Read, images: bool, costs: bool) -> ShardIndex:
    """Read the headers of the main images and videos, and the json files; of other images and of conditions if so."""
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
        others = _other_sizes(folder, item, read) if images else {}
        if costs:
            facts |= costs_of({name: read(file, name) for name, file in item.files.items() if name.endswith(_TENSORS)})
        columns.add({"bytes": sum(file.size for file in item.files.values()), **facts, **video, **others}, others)
    found = make(rows, columns, {"bytes": at})
    found.facts[IMAGES] = images
    return found


def _size(folder: str, name: str, file: File, read: Read) -> tuple[int | None, int | None, dict[str, Any]]:
    """Width and height of an image or a video, as shown, None where it is damaged, which decoding will say; and the
    columns of a video.
    """
    head, whole = _opened(folder, name, file, read)
    if is_video_field(name, whole):
        found = video_facts({name: whole})
        return found.get("video.width"), found.get("video.height"), found
    header, _ = _probed(head, name, file, read)
    return (None, None, {}) if header is None else (header.width, header.height, {})


def _other_sizes(folder: str, item: Item, read: Read) -> dict[str, int]:
    """The sizes of all images but the main one, as an index has them of a shard."""
    names = [name for name in item.files if name.rpartition(".")[2] in ALL_IMAGES]
    if len(names) < 2:
        return {}
    heads = {}
    for name in names:
        file = item.files[name]
        _, heads[name] = _probed(_opened(folder, name, file, read)[0], name, file, read)
    return images_in(heads)[1]


def _opened(folder: str, name: str, file: File, read: Read) -> tuple[bytes, Data]:
    """The first bytes of a file, and all of them, which cost nothing as long as they are not looked at."""
    try:
        with open(os.path.join(folder, file.path), "rb", opener=_unless_link) as opened:
            head = opened.read(_HEAD)
            return head, memoryview(mmap(opened.fileno(), 0, access=ACCESS_READ)) if head else b""
    except (OSError, ValueError):
        whole = read(file, name)  # which says what is wrong
        return whole, whole


def _unless_link(path: str, flags: int) -> int:
    """A file that is none stops nobody; a link is read whole, by who looks where it leads."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)


def _probed(head: bytes, name: str, file: File, read: Read) -> tuple[ImageHeader | None, bytes]:
    """The header of an image, None where it is damaged; and the bytes that it was found in."""
    try:
        return probe(head), head
    except DecodeError:
        if len(head) >= file.size:
            return None, head
    whole = read(file, name)  # its header lies behind much else
    try:
        return probe(whole), whole
    except DecodeError:
        return None, whole
