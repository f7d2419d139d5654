"""What is not HTTP: object stores by fsspec, and a user's own opener; and which store reads which scheme."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import takewhile
from typing import IO, Any

from streampipe.errors import ConfigError, ShardChanged
from streampipe.source.failures import Ended
from streampipe.source.gcs import gcs
from streampipe.source.http import check_pin
from streampipe.source.hub import HubStore
from streampipe.source.location import is_chain, parts_of, redact, scheme_of
from streampipe.source.network import Network
from streampipe.source.rust import ObStore
from streampipe.source.s3 import s3
from streampipe.source.store import BUILT_IN, Answer, Pin
from streampipe.source.web import web

PIECE = 1 << 20

Opener = Callable[[str], IO[bytes]]
"""A user's own way to open a URL: gives a binary file object."""

_VERSIONS = [
    "ETag",
    "etag",
    "e_tag",
    "content_md5",
    "generation",
    "oid",
    "blob_id",
    "LastModified",
    "mtime",
    "updated",
    "created",
]
_MADE = 64  # filesystems that are kept: those of archives have their lists of contents in memory
_KEYS = ["anon", "key", "token", "account_key", "sas_token", "credential", "connection_string", "username", "profile"]


class FsspecStore:
    """Reads, lists and writes objects by way of an fsspec filesystem, made when first needed.

    It gives whatever is there. So each range is compared with what the store says of the object after it came, before
    a byte of it is given out.
    """

    ranges = True
    streams = False
    pins = False

    def __init__(self, options: Mapping[str, Any], network: Network) -> None:
        self.worked = False
        self._options = dict(options)
        self._network = network
        self._fresh = False
        self._made: dict[str, Any] = {}  # by what makes them: one for all threads (fsspec makes one for each)

    def credentials(self, url: str) -> str:
        """Which of the storage_options say who asks."""
        used = next((name for name in _KEYS if self._options.get(name)), None)
        if used == "anon":
            return "without credentials (anon of storage_options)"
        return f"with {used} of storage_options" if used else "with what the environment and configuration files give"

    def renew(self) -> None:
        """Make the filesystem anew: tokens run out."""
        self._fresh = True
        self._made.clear()

    def filesystem(self, url: str) -> Any:
        """The filesystem of a URL."""
        key = _kind_of(url)
        found = self._made.get(key)
        if found is None:
            options = {**self._options, **({"skip_instance_cache": True} if self._fresh else {})}
            try:
                found = self._make(url, options)
            except ImportError as error:
                raise ConfigError(f"{redact(url)} needs a package that is not installed: {error}") from error
            except ValueError as error:
                raise ConfigError(f"{redact(url)} cannot be opened: {error}") from error
            while len(self._made) >= _MADE:
                self._made.pop(next(iter(self._made)), None)
            self._made[key] = found
        return found

    def _make(self, url: str, options: dict[str, Any]) -> Any:
        import fsspec

        return fsspec.core.url_to_fs(url, **options)[0]

    def path(self, url: str) -> str:
        """The path of a URL in its filesystem."""
        import fsspec

        return str(
            fsspec.core.url_to_fs(url, **self._options)[1]
            if is_chain(url)
            else self.filesystem(url)._strip_protocol(url)
        )

    def pin(self, url: str) -> Pin:
        """The object's size and version, as the store has them now."""
        fs, path = self.filesystem(url), self.path(url)
        fs.invalidate_cache(path.rpartition("/")[0])  # a listing from before would hide a change
        return _pin(self._call(fs, "info", path))

    def get(self, url: str, start: int, end: int | None, pin: Pin) -> Answer:
        """The bytes [start, end) of the pinned version."""
        if pin.size is None:
            found = self.pin(url)
            check_pin(url, pin, found)
            pin = found
        stop = pin.size if end is None else end if pin.size is None else min(end, pin.size)
        nothing = stop is not None and start >= stop
        return Answer(start, pin, iter(()) if nothing else self._pieces(url, start, stop, pin))

    def _pieces(self, url: str, start: int, end: int | None, pin: Pin) -> Iterator[bytes]:
        data = bytes(self._call(self.filesystem(url), "cat_file", self.path(url), start=start, end=end))
        check_pin(url, pin, self.pin(url))
        wanted = None if end is None else end - start
        if wanted is not None and len(data) > wanted:  # ranges were ignored: of a whole object we know the place
            data = data[start:end] if len(data) == pin.size else data[:0]
        if data:
            yield data
        if wanted is not None and len(data) < wanted:
            raise Ended(f"{len(data)} of {wanted} bytes came")

    def glob(self, pattern: str) -> list[str]:
        """The URLs that match a glob, sorted, as the store has them now."""
        fs = self._fresh_listing(pattern)
        asked = self.path(pattern)
        written = _as_given(pattern, asked)
        return sorted(map(written, fs.glob(asked)))

    def files(self, url: str) -> Iterator[tuple[str, int, str | None]]:
        """The files below a folder, directory after directory: path below it, bytes, version."""
        fs, root = self._fresh_listing(url), self.path(url).rstrip("/")
        for below, _, files in fs.walk(root, detail=True):
            inside = below.strip("/")[len(root.strip("/")) :].strip("/")
            for name in sorted(files):
                pin = _pin(files[name])
                yield f"{inside}/{name}" if inside else name, pin.size or 0, pin.mark

    def is_directory(self, url: str) -> bool:
        """Whether there is a directory at this URL."""
        return bool(self._fresh_listing(url).isdir(self.path(url)))

    def write(self, url: str, data: bytes) -> None:
        """Put an object in its place: object stores publish it when its upload is complete."""
        self.filesystem(url).pipe_file(self.path(url), data)

    def upload(self, path: str, url: str) -> None:
        """The same with a local file, piece by piece."""
        self.filesystem(url).put_file(path, self.path(url))

    def _fresh_listing(self, url: str) -> Any:
        """The filesystem, past what it remembers of listings: a second look at a folder must see new shards."""
        fs = self.filesystem(url)
        fs.invalidate_cache()
        return fs

    def _call(self, fs: Any, name: str, path: str, **options: Any) -> Any:
        """A method of a filesystem, with a deadline where there is a way to set one."""
        if not fs.async_impl or not hasattr(fs, f"_{name}"):
            return getattr(fs, name)(path, **options)
        from fsspec.asyn import sync

        return sync(fs.loop, getattr(fs, f"_{name}"), path, timeout=self._network.stall, **options)


def _pin(facts: Mapping[str, Any]) -> Pin:
    if facts.get("type") == "directory":
        raise IsADirectoryError(f"{facts.get('name')} is a directory")
    found = next((facts[name] for name in _VERSIONS if facts.get(name)), None)
    return Pin(facts.get("size"), None if found is None else str(found))


class OpenerStore:
    """Reads whatever a user's opener opens, front to back; it seeks where the file can."""

    ranges = False
    streams = True
    pins = True

    def __init__(self, opener: Opener) -> None:
        self.worked = False
        self._opener = opener

    def credentials(self, url: str) -> str:
        """Only the opener knows."""
        return "by the function given as opener="

    def renew(self) -> None:
        """Nothing is kept."""

    def pin(self, url: str) -> Pin:
        """What the file says of its size."""
        with self._opener(url) as file:
            return _size(file)

    def get(self, url: str, start: int, end: int | None, pin: Pin) -> Answer:
        """The bytes from ``start`` on."""
        file = self._opener(url)
        found = _size(file)
        try:
            check_pin(url, pin, found)
        except ShardChanged:
            file.close()
            raise
        return Answer(start, found, self._pieces(file, start, end, found))

    def _pieces(self, file: IO[bytes], at: int, end: int | None, pin: Pin) -> Iterator[bytes]:
        with file:
            if at:
                _skip(file, at)
            while end is None or at < end:
                piece = file.read(PIECE if end is None else min(PIECE, end - at))
                if not piece:
                    break
                at += len(piece)
                yield piece
            if pin.size is not None and at < (pin.size if end is None else min(end, pin.size)):
                raise Ended(f"the file of opener= ended at byte {at} of {pin.size}")


def _size(file: IO[bytes]) -> Pin:
    size = getattr(file, "size", None)
    return Pin(size if isinstance(size, int) else None)


def _skip(file: IO[bytes], to: int) -> None:
    seekable = getattr(file, "seekable", None)
    if seekable is not None and seekable():
        file.seek(to)
        return
    while to > 0:
        piece = file.read(min(PIECE, to))
        if not piece:
            raise Ended("the file of opener= is shorter than before")
        to -= len(piece)


def _kind_of(url: str) -> str:
    """What URLs of one filesystem have in common: the scheme, the account or host, and the archive that they are in."""
    import fsspec

    before, part, behind = parts_of(url)
    scheme = scheme_of(part)
    named: Mapping[str, Any] = {}
    with suppress(ImportError, ValueError):  # to make it says so in more words
        named = fsspec.get_filesystem_class(scheme)._get_kwargs_from_urls(part)
    return f"{before}{scheme}{behind} {named}"


def _as_given(pattern: str, asked: str) -> Callable[[str], str]:
    """What writes a path of a store's listing as the user wrote the pattern: with its scheme, relative if it was.

    Args:
        asked: the pattern's path in the store, which may lack parts that lie before it in the pattern (an account).
    """
    before, part, behind = parts_of(pattern)
    scheme, remote, rest = part.partition("://")
    if not remote:
        return str if os.path.isabs(pattern) else os.path.relpath
    pairs = zip(reversed(part), reversed(asked), strict=False)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    lead, ours = asked[: len(asked) - same], part[: len(part) - same]
    slash = "/" if rest.startswith("/") else ""

    def written(path: str) -> str:
        if "://" in path:
            return path
        if path.startswith(lead) and not glob.has_magic(lead):
            return f"{before}{ours}{path[len(lead) :]}{behind}"
        return f"{before}{scheme}://{slash}{path.lstrip('/')}{behind}"

    return written


BUILT_IN.update(
    {
        "fsspec": FsspecStore,
        "http": web,
        "https": web,
        "s3": s3,
        "gs": gcs,
        "gcs": gcs,
        "hf": HubStore,
        "obstore": ObStore,
    }
)
