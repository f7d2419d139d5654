"""A folder of a store as a folder of images: its files, and of what tells its layout a copy on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from streampipe.errors import PackError
from streampipe.folders.metadata import NAMES
from streampipe.folders.walk import Walk, is_passed_over
from streampipe.rng import derive
from streampipe.source import Source, redact

_TOLD_BY = (*NAMES, "captions.json", "prompt.json", "default.txt")
_DEEPEST = 3  # folders in which tables are looked for


class Object(NamedTuple):
    """An object of a store, as a walk looks at a file."""

    name: str
    size: int
    version: str | None


class RemoteWalk(Walk):
    """The files below a folder of a store."""

    def _entries(self) -> Iterator[tuple[str, Any]]:
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

    def _facts(self, entry: Any, ext: str) -> tuple[int, int, str | None]:
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
            below = "/".join(parts[:-1][:_DEEPEST])
            if below not in made and not any(map(is_passed_over, parts)):
                os.makedirs(os.path.join(folder, below), exist_ok=True)
                made.add(below)
            told_by = parts[-1] in _TOLD_BY and len(parts) <= _DEEPEST
            if told_by or (not slash and path.endswith((".parquet", "_stats.json"))):
                place = os.path.join(folder, *parts)
                os.makedirs(os.path.dirname(place), exist_ok=True)
                with open(place, "wb") as file:
                    file.write(source.read(f"{url}/{path}"))
            elif not slash and found <= 10_000:
                with open(os.path.join(folder, path), "xb"):
                    pass
        if not found:
            raise PackError(f"there is nothing below {redact(url)}; give the folder that holds the images")
        yield folder
