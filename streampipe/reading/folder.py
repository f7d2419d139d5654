"""A folder of images as a source of samples: those that ``pack`` of it would write, without packing it.

Strategy: the folder is listed once, when the source is made; nothing is opened for that. Samples are in the order of
their keys, cut into shards at places that follow from the keys alone, so that a file that is added changes the facts of
one shard and no more. Facts (sizes of images, values of json files) are found when something asks for them, and
remembered under the names, sizes and dates of the shard's files.
"""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import pyarrow as pa

from streampipe.counters import counters
from streampipe.errors import ConfigError, NameCollision, SampleError
from streampipe.folders import File, Item, Listing, scan
from streampipe.folders.facts import cut, facts_of, main_file
from streampipe.folders.files import Unreadable, packed_size, read_file
from streampipe.folders.layouts import layout_of
from streampipe.folders.listing import shown
from streampipe.folders.walk import allowed
from streampipe.kinds import checked_class
from streampipe.reading.numbered import Numbered

log = logging.getLogger("streampipe")
_HELD = 64  # shards whose files are held as objects
_LISTED = frozenset(("key", "size"))
"""Columns that need no file to be opened."""


@checked_class
class Folder(Numbered):
    """The images of a folder, and the files of the same name beside them.

    ``sp.stream("folder/")`` makes one with the defaults. Samples have the keys and fields that ``sp.pack`` gives them.
    Facts are ``width`` and ``height`` of the main image, ``bytes`` of all files of a sample, and the values of its
    json.

    Args:
        layout, metadata, caption, follow_symlinks, case_sensitive: as for ``sp.pack``.
        on_error: ``"skip"`` leaves out samples with files that cannot be read, counted and logged.

    Raises:
        PackError: it is no folder, or holds no image, or a file that cannot be read.
        NameCollision: two files would be the same field of the same sample.

    >>> import pathlib, tempfile, streampipe as sp
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "a.jpg").write_bytes(b"..."), (folder / "a.txt").write_text("a cat")
    >>> [sorted(sample) for sample in sp.stream(sp.Folder(folder, caption="a {name}"))]
    [['__key__', '__position__', '__url__', 'jpg', 'txt']]
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        layout: str = "auto",
        metadata: str | os.PathLike[str] | None = None,
        caption: str | None = None,
        follow_symlinks: str | None = None,
        case_sensitive: bool = False,
        on_error: str = "raise",
    ) -> None:
        if on_error not in ("raise", "skip"):
            raise ConfigError(f"on_error is 'raise' or 'skip', not {on_error!r}")
        self.folder = os.path.abspath(os.path.expanduser(os.fspath(folder)))
        if not os.path.isdir(self.folder):
            raise ConfigError(f"{self.folder} is no folder; give the folder that holds the images")
        self._roots = allowed(self.folder, follow_symlinks)
        listing = scan(
            self.folder,
            layout=layout_of(
                self.folder, layout, None if metadata is None else os.fspath(metadata), follow=follow_symlinks
            ),
            caption=caption,
            follow_symlinks=follow_symlinks,
            case_sensitive=case_sensitive,
        )
        with listing:
            _check(listing, on_error)
            shards = list(cut(listing.items()))
        self.shards: Sequence[str] = [os.path.join(self.folder, items[0].key) for items in shards]
        self._counts = [len(items) for items in shards]
        self._packed = [_packed(items) for items in shards]
        self._now: OrderedDict[int, list[Item]] = OrderedDict()

    def __repr__(self) -> str:
        return f"Folder({os.path.basename(self.folder)!r})"

    def counts(self) -> list[int]:
        """The samples of each shard."""
        return self._counts

    def sample(self, shard: int, number: int) -> dict[str, Any]:
        """A sample, its fields as bytes.

        Raises:
            SampleError: a file is gone, may not be read, or has changed since the folder was listed.
        """
        item = self._items(shard)[number]
        sample: dict[str, Any] = {"__key__": item.key, "__url__": os.path.join(self.folder, main_file(item)[1].path)}
        for name, file in item.files.items():
            sample[name] = self._read(file, name)
        return sample

    def facts(self, shard: int, columns: Collection[str] | None) -> pa.Table:
        """The facts of a shard's samples."""
        items = self._items(shard)
        if columns is not None and _LISTED.issuperset(columns):
            sizes = [packed_size(item) for item in items]
            return pa.table({"key": pa.array([item.key for item in items], pa.string()), "size": sizes})
        return facts_of(self.folder, items, self._read, columns).table

    def _items(self, shard: int) -> list[Item]:
        found = self._now.get(shard)
        if found is None:
            found = self._now[shard] = _unpacked(self._packed[shard])
            while len(self._now) > _HELD:
                self._now.popitem(last=False)
        return found

    def _read(self, file: File, name: str) -> bytes:
        try:
            return read_file(self.folder, file, name, None, self._roots)
        except Unreadable as error:
            what = f"changed since the folder was listed: {error.why}" if error.changed else f"is gone ({error.why})"
            raise SampleError(
                f"{shown(error.path)} {what}; make the stream anew, which lists the folder again, or leave such "
                f"samples out by on_error='skip'"
            ) from error


def _check(listing: Listing, on_error: str) -> None:
    """Raise what stands in the way of streaming a folder, and tell what is left out.

    Raises:
        NameCollision: two files would be the same field of the same sample.
        ConfigError: there is nothing, or a file that cannot be read.
    """
    folder = listing.folder
    if listing.collisions.count:
        raise NameCollision(
            f"{folder}: {listing.collisions.count} name collisions; rename the files: {listing.collisions}"
        )
    if listing.broken and on_error == "raise":
        path, why = next(listing.why_broken())
        more = f", nor can {listing.broken - 1} other files" if listing.broken > 1 else ""
        raise ConfigError(
            f"{shown(path)} cannot be read ({why}){more}; mend it, or leave such samples out by on_error='skip'"
        )
    if not listing.samples:
        what = f"none of its images can be read ({listing.broken} files)" if listing.broken else "it holds no image"
        raise ConfigError(
            f"{folder}: {what}, nor a shard: {listing.layout.wants}; shards in folders below are found by a glob such "
            f"as {folder}/*/*.tar"
        )
    left_out = (
        ("samples that cannot be read", listing.broken),
        ("sidecar files without an image", listing.orphans.count),
        ("files of other kinds", listing.other.count),
        ("hidden files", listing.hidden),
    )
    for what, number in left_out:
        if number:
            counters.add("listing", f"{what} passed over", number)
            log.warning("%s: %d %s are passed over", folder, number, what)


def _packed(items: Iterable[Item]) -> bytes:
    """The files of a shard, small: every worker holds those of all shards."""
    return zlib.compress(json.dumps([(item.key, item.files) for item in items]).encode(), 1)


def _unpacked(data: bytes) -> list[Item]:
    return [
        Item(key, {name: File(*file) for name, file in files.items()})
        for key, files in json.loads(zlib.decompress(data))
    ]
