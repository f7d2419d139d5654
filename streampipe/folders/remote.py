"""A folder of a store as a folder of images: its files, and of what tells its layout a copy on this machine."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from streampipe.errors import PackError
from streampipe.folders.layouts import holds_images
from streampipe.folders.metadata import NAMES
from streampipe.folders.walk import Walk, is_passed_over
from streampipe.rng import derive
from streampipe.source import Source, redact

_TOLD_BY = (*NAMES, "captions.json", "prompt.json")
_DEEPEST = 3  # folders in which tables are looked for, and how deep folders are that are there for their names
_DECIDE = 2  # how deep those are by which a layout is chosen; below them they are of a hint
_MOST = 10_000  # files at the top that say what layout there is
LEADS_OUT = -1
"""The size of a link that leads nowhere in its store."""


class Object(NamedTuple):
    """An object of a store, as a walk looks at a file."""

    name: str
    size: int
    version: str | None


class RemoteWalk(Walk):
    """The files below a folder of a store."""

    _in_turn = False

    def _folders(self) -> Iterator[tuple[str, Iterable[Any]]]:
        for below, objects in groupby(self._objects(), key=itemgetter(0)):
            yield below, (each for _, each in objects)

    def _objects(self) -> Iterator[tuple[str, Object]]:
        count = 0
        for path, size, version in self._source.files(self._folder):
            below, slash, name = path.rpartition("/")
            if any(map(is_passed_over, path.split("/"))):
                self.hidden += 1
                continue
            count += 1
            if count % 1000 == 0:
                self._tell(1000)
            yield below + slash, Object(name, size, version)

    def _facts(self, path: str, entry: Any, ext: str) -> tuple[int, int, str | None]:
        if entry.size == LEADS_OUT:
            return 0, 0, "a symbolic link out of the folder; put the file itself in its place"
        why = self._why_not(entry.size, ext)
        return entry.size, derive("version", entry.version or "") >> 1, why


@contextmanager
def shadow(url: str, source: Source) -> Iterator[str]:
    """A folder of this machine that has the folders, the names and the tables of one of a store, and nothing else.

    Raises:
        PackError: there is nothing in it.
    """
    found, made = 0, set[str]()
    with TemporaryDirectory(prefix="streampipe-layout-") as folder:
        for path, _, _ in source.files(url):
            found += 1
            slash = "/" in path
            parts = path.split("/")
            if ".." in parts:  # what it is called by others never says where a file goes
                continue
            if any(map(is_passed_over, parts)):
                continue
            told_by = (parts[-1] in _TOLD_BY and len(parts) <= _DEEPEST) or parts[-1] == "default.txt"
            told_by |= not slash and path.endswith((".parquet", "_stats.json"))
            all_of_them = told_by or holds_images(parts[0])  # which layouts ask for at any depth
            folders = parts[:-1] if all_of_them else parts[:-1][:_DEEPEST]
            below = "/".join(folders)
            data = source.read(f"{url}/{path}") if told_by else b""
            try:
                if below not in made:
                    os.makedirs(os.path.join(folder, *folders), exist_ok=True)
                    made.add(below)
                if told_by or (not slash and found <= _MOST):
                    with open(os.path.join(folder, *parts), "xb") as file:
                        file.write(data)
            except OSError as error:
                decides = parts if not slash else folders if all_of_them else folders[:_DECIDE]
                there = os.path.lexists(os.path.join(folder, *decides))
                if told_by or (error.errno == errno.ENOSPC and not there):
                    raise PackError(
                        f"what {redact(url)} says of its layout cannot be kept in a temporary file ({error.strerror}: "
                        f"{path}); make room where temporary files are (TMPDIR), and run again"
                    ) from error  # else it is a name that no file of this machine can have
        if not found:
            raise PackError(f"there is nothing below {redact(url)}; give the folder that holds the images")
        yield folder
