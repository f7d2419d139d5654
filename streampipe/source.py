"""URL to bytes. The only file that knows fsspec.

A local shard is mapped into memory; anything else is read forward in windows of fixed size. Messages show URLs without
user names, passwords and query strings.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any
from urllib.parse import urlsplit, urlunsplit

from streampipe.errors import AccessDenied, ConfigError, ShardMissing, SourceError, SourceUnavailable, StreampipeError

WINDOW = 8 << 20
"""Bytes asked for at once from a source that is not a local file."""

Opener = Callable[[str], IO[bytes]]
"""A user's own way to open a URL: gives a binary file object."""

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)(?:://|::)")


def redact(url: str) -> str:
    """The URL without user name, password, query and fragment.

    >>> redact("https://me:secret@host/a.tar?token=abc")
    'https://host/a.tar'
    >>> redact("data/a.tar")
    'data/a.tar'
    """
    if "://" not in url:
        return url
    head, _, last = url.rpartition("::")
    parts = urlsplit(last)
    clean = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    if not parts.netloc and not clean.startswith(f"{parts.scheme}://"):
        clean = clean.replace(f"{parts.scheme}:", f"{parts.scheme}://", 1)
    return f"{head}::{clean}" if head else clean


def local_path(url: str) -> str | None:
    """The path of a local file's URL; None for any other URL."""
    if url.startswith("file://"):
        return url[len("file://") :]
    return None if _SCHEME.match(url) else url


class Source:
    """Opens shards. Holds settings only, nothing live, so it can be pickled and used after a fork."""

    def __init__(self, storage_options: Mapping[str, Any] | None = None, opener: Opener | None = None) -> None:
        self.storage_options = dict(storage_options or {})
        self.opener = opener

    def buffer(self, url: str) -> memoryview | None:
        """All bytes of a local shard, mapped; None where the shard is not a local file."""
        path = local_path(url)
        if path is None or self.opener is not None:
            return None
        try:
            with open(path, "rb") as file:
                if os.fstat(file.fileno()).st_size == 0:
                    return memoryview(b"")
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except OSError as error:
            raise _mapped(error, url) from error

    def chunks(self, url: str) -> Iterator[bytes]:
        """All bytes of a shard, front to back, in windows. A source that ends before its known length is an error."""
        try:
            with self._open(url) as file:
                size = getattr(file, "size", None)
                done = 0
                while chunk := file.read(WINDOW):
                    done += len(chunk)
                    yield chunk
        except StreampipeError:
            raise
        except Exception as error:  # backends raise what they like (aiohttp, botocore, even IndexError)
            raise _mapped(error, url) from error
        if isinstance(size, int) and done < size:
            raise SourceUnavailable(
                f"{redact(url)}: the source ended after {done} of {size} bytes; run again, or check the connection"
            )

    def read(self, url: str, start: int = 0, end: int | None = None) -> bytes:
        """The bytes [start, end) of an object, or all of it.

        Raises:
            SourceUnavailable: fewer bytes came than were asked for.
        """
        try:
            path = local_path(url)
            if path is not None:
                with open(path, "rb") as file:
                    file.seek(start)
                    data = file.read(-1 if end is None else end - start)
            else:
                fs, name = _filesystem(url, self.storage_options), _stripped(url, self.storage_options)
                data = bytes(fs.cat_file(name, start=start or None, end=end))
        except Exception as error:
            raise _mapped(error, url) from error
        if end is not None and len(data) != end - start:
            raise SourceUnavailable(
                f"{redact(url)}: {len(data)} of {end - start} bytes came from byte {start} on; it is shorter than its "
                f"index says, or the connection broke: run again"
            )
        return data

    def read_if_there(self, url: str) -> bytes | None:
        """All bytes of an object; None if there is none."""
        try:
            return self.read(url)
        except ShardMissing:
            return None

    def size(self, url: str) -> int | None:
        """How many bytes an object has; None if the store does not say."""
        try:
            path = local_path(url)
            if path is not None:
                return os.path.getsize(path)
            size = _filesystem(url, self.storage_options).size(_stripped(url, self.storage_options))
        except Exception as error:
            raise _mapped(error, url) from error
        return None if size is None else int(size)

    def write(self, url: str, data: bytes) -> None:
        """Put an object in its place at once: whoever looks sees the old one or the whole new one."""
        path = local_path(url)
        try:
            if path is None:  # object stores publish an object when its upload is complete
                fs = _filesystem(url, self.storage_options)
                fs.pipe_file(_stripped(url, self.storage_options), data)
                return
            temporary = f"{path}.{os.getpid()}.part"
            try:
                with open(temporary, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, path)
            finally:
                if os.path.exists(temporary):
                    os.unlink(temporary)
        except Exception as error:
            raise _mapped(error, url, "written") from error

    def _open(self, url: str) -> IO[bytes]:
        if self.opener is not None:
            return self.opener(url)
        path = local_path(url)
        if path is not None:
            return open(path, "rb")
        file: IO[bytes] = _filesystem(url, self.storage_options).open(
            _stripped(url, self.storage_options), "rb", block_size=WINDOW
        )
        return file

    def glob(self, pattern: str) -> list[str]:
        """The URLs that match a glob, sorted."""
        try:
            fs = _filesystem(pattern, self.storage_options)
            found = fs.glob(_stripped(pattern, self.storage_options))
        except Exception as error:
            raise _mapped(error, pattern) from error
        return sorted(_as_given(pattern, path, fs) for path in found)

    def is_directory(self, path: str) -> bool:
        """Whether there is a directory at this URL."""
        try:
            return bool(_filesystem(path, self.storage_options).isdir(_stripped(path, self.storage_options)))
        except Exception as error:
            raise _mapped(error, path) from error


def _filesystem(url: str, options: Mapping[str, Any]) -> Any:
    import fsspec

    try:
        return fsspec.core.url_to_fs(url, **options)[0]
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{redact(url)} cannot be opened: {error}") from error


def _stripped(url: str, options: Mapping[str, Any]) -> str:
    import fsspec

    return str(fsspec.core.url_to_fs(url, **options)[1])


def _as_given(pattern: str, path: str, fs: Any) -> str:
    """A path from a store's listing, written as the user wrote the pattern: with its scheme, relative if it was."""
    if "://" in pattern:
        return path if "://" in path else str(fs.unstrip_protocol(path))
    return path if os.path.isabs(pattern) else os.path.relpath(path)


def _mapped(error: Exception, url: str, done: str = "read") -> StreampipeError:
    """A backend's error as one of ours, by what it is or by the HTTP status that it carries."""
    if isinstance(error, StreampipeError):
        return error
    status = getattr(error, "status", None)
    text = f"{type(error).__name__}: {error}".replace(url, redact(url))
    if isinstance(error, (FileNotFoundError, IsADirectoryError, NotADirectoryError)) or status in (404, 410):
        return ShardMissing(f"{redact(url)} does not exist; check the URL ({text})")
    if isinstance(error, PermissionError) or status in (401, 403):
        return AccessDenied(f"{redact(url)} may not be {done}; check the credentials in storage_options= ({text})")
    return SourceError(f"{redact(url)} could not be {done} ({text})")
