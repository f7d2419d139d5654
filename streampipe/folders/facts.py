"""What conditions and buckets may ask of a folder's samples: sizes of images, values of json files, found run by run.

A shard is a run of samples in the order of their keys. It is looked through once, and what was found is remembered
under the names, sizes and dates of its files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator

from streampipe.decoding import probe
from streampipe.decoding.fields import IMAGES, main_image
from streampipe.errors import DecodeError
from streampipe.folders.files import digest_of, packed_size
from streampipe.folders.names import File, Item
from streampipe.index import Finder, ShardIndex
from streampipe.index.columns import Columns
from streampipe.index.facts import scalars_of
from streampipe.index.table import make
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
    return Finder(Source(), Limits()).noted(identity, name, lambda: _scan(folder, items, read), columns)


def main_file(item: Item) -> tuple[str, File]:
    """A sample's main image: field and file."""
    name = main_image([name for name in item.files if name.rpartition(".")[2] in IMAGES])
    return name, item.files[name]


def _scan(folder: str, items: Iterable[Item], read: Read) -> ShardIndex:
    """Read the headers of the images, and the json files."""
    rows, columns, at = [], Columns(), 0
    for item in items:
        width, height = _size(folder, *main_file(item), read)
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
        columns.add({"bytes": sum(file.size for file in item.files.values()), **facts})
    return make(rows, columns, {"bytes": at})


def _size(folder: str, name: str, file: File, read: Read) -> tuple[int | None, int | None]:
    """Width and height of an image, as shown; None where it is damaged, which decoding will say."""
    try:
        with open(os.path.join(folder, file.path), "rb") as opened:
            head = opened.read(_HEAD)
    except OSError:
        head = read(file, name)  # which says what is wrong
    try:
        header = probe(head)
    except DecodeError:
        if file.size <= _HEAD:
            return None, None
        try:
            header = probe(read(file, name))  # its header lies behind much else
        except DecodeError:
            return None, None
    return header.width, header.height
