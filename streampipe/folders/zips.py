"""A folder in a zip archive as a folder of a store: its files are listed and read without being unpacked.

An archive's directory is read once in a process. A file's version is its checksum (CRC-32), which is in the directory,
and is checked when it is read.
"""

from __future__ import annotations

import lzma
import os
import zipfile
import zlib
from collections.abc import Iterator
from functools import lru_cache

from streampipe.errors import SourceError
from streampipe.source import Source, local_path
from streampipe.source.versions import Version

_SCHEME = "zip://"
_WRONG = (
    KeyError,
    OSError,
    RuntimeError,
    NotImplementedError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)


def url_of(name: str) -> str | None:
    """The URL of a folder in an archive (``a.zip``, ``a.zip/train``); None: it is in none that is there.

    >>> url_of("no/such.zip/train") is None
    True
    """
    path = local_path(name)
    if path is None:
        return None
    path, at = os.path.expanduser(path).rstrip("/"), 0
    while (at := path.lower().find(".zip", at) + 4) > 3:
        if path[at : at + 1] in ("", "/") and os.path.isfile(path[:at]):
            return f"{_SCHEME}{os.path.realpath(path[:at])}{path[at:]}"
    return None


class Zips(Source):
    """A source that lists and reads what is in archives, too."""

    def files(self, folder: str) -> Iterator[tuple[str, int, str | None]]:
        """See ``Source.files``.

        Raises:
            SourceError: it is no archive, is damaged, or has names that lead out of it.
        """
        if not folder.startswith(_SCHEME):
            yield from super().files(folder)
            return
        path, below = _split(folder)
        below = f"{below}/" if below else ""
        for info in list(_archive(path).NameToInfo.values()):
            name = info.filename
            if name.startswith("/") or ".." in name.split("/"):
                raise SourceError(f"{path} holds {name!r}, a name that leads out of it; unpack it with care, and look")
            if name.startswith(below) and not info.is_dir():
                yield name.removeprefix(below), info.file_size, f"{info.CRC:08x}"

    def read(self, url: str, start: int = 0, end: int | None = None, version: Version | None = None) -> bytes:
        """See ``Source.read``."""
        if not url.startswith(_SCHEME):
            return super().read(url, start, end, version)
        path, name = _split(url)
        try:
            return _archive(path).read(name)[start:end]
        except _WRONG as error:
            raise SourceError(f"{name!r} in {path} cannot be read ({error}); fetch the archive again") from error


def _split(url: str) -> tuple[str, str]:
    """The archive, and what is meant in it."""
    path, at = url.removeprefix(_SCHEME), 0
    while (at := path.lower().find(".zip", at) + 4) > 3:
        if path[at : at + 1] in ("", "/") and os.path.isfile(path[:at]):
            return path[:at], path[at + 1 :]
    raise SourceError(f"{path} is not there any more; fetch the archive again")


def _archive(path: str) -> zipfile.ZipFile:
    try:
        facts = os.stat(path)
        return _opened(path, facts.st_size, facts.st_mtime_ns, os.getpid())
    except (OSError, zipfile.BadZipFile) as error:
        raise SourceError(f"{path} is no zip archive that can be read ({error}); fetch it again") from error


@lru_cache(4)
def _opened(path: str, size: int, mtime: int, process: int) -> zipfile.ZipFile:
    """An archive, opened in this process: one that is forked would move the place in the file that both read at."""
    return zipfile.ZipFile(path)
