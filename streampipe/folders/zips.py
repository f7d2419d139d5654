"""A folder in a zip archive as a folder of a store: its files are listed and read without being unpacked.

An archive's directory is read once in a process. A file's version is its checksum (CRC-32), which is in the directory,
and is checked when it is read. A symbolic link in it is the file that it leads to, if that is in the archive.
"""

from __future__ import annotations

import lzma
import os
import posixpath
import stat
import zipfile
import zlib
from collections.abc import Iterator
from functools import lru_cache

from streampipe.errors import SourceError
from streampipe.folders.remote import LEADS_OUT
from streampipe.source import Source, local_path
from streampipe.source.versions import Version

_SCHEME = "zip://"
_LINKS, _LONGEST = 8, 4096  # links that lead to each other, and bytes of one
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
        archive, seen = _archive(path), set[str]()
        for info in archive.infolist():
            name = info.filename
            if name.startswith("/") or ".." in name.split("/"):
                raise SourceError(f"{path} holds {name!r}, a name that leads out of it; unpack it with care, and look")
            if not name.startswith(below) or info.is_dir():
                continue
            if name in seen:
                raise SourceError(f"{path} holds {name!r} twice; unpack it, and keep the one that is right")
            seen.add(name)
            target = _target(archive, info)
            if target is None:
                yield name.removeprefix(below), LEADS_OUT, None
            else:
                yield name.removeprefix(below), target.file_size, f"{target.CRC:08x}"

    def read(self, url: str, start: int = 0, end: int | None = None, version: Version | None = None) -> bytes:
        """See ``Source.read``."""
        if not url.startswith(_SCHEME):
            return super().read(url, start, end, version)
        path, name = _split(url)
        try:
            archive = _archive(path)
            target = _target(archive, archive.getinfo(name))
            if target is None:
                raise SourceError(
                    f"{name!r} in {path} is a symbolic link out of the archive; put the file itself there"
                )
            return archive.read(target)[start:end]
        except _WRONG as error:
            raise SourceError(f"{name!r} in {path} cannot be read ({error}); fetch the archive again") from error


def _split(url: str) -> tuple[str, str]:
    """The archive, and what is meant in it."""
    path, at = url.removeprefix(_SCHEME), 0
    while (at := path.lower().find(".zip", at) + 4) > 3:
        if path[at : at + 1] in ("", "/") and os.path.isfile(path[:at]):
            return path[:at], path[at + 1 :]
    raise SourceError(f"{path} is not there any more; fetch the archive again")


def _target(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> zipfile.ZipInfo | None:
    """The file that an entry is, or leads to; None if that is not in the archive."""
    for _ in range(_LINKS):
        if not stat.S_ISLNK(info.external_attr >> 16):
            return info
        if info.file_size > _LONGEST:
            return None
        try:
            leads = archive.read(info).decode("utf-8", "surrogateescape")
        except _WRONG:
            return None
        name = posixpath.normpath(posixpath.join(posixpath.dirname(info.filename), leads))
        found = archive.NameToInfo.get(name)
        if found is None or found.is_dir():
            return None
        info = found
    return None


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
