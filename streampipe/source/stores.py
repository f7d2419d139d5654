"""What is not HTTP: object stores by fsspec, and a user's own opener."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

from streampipe.errors import ConfigError
from streampipe.source.failures import Ended
from streampipe.source.http import Answer, Pin, check_pin
from streampipe.source.location import redact, scheme_of

PIECE = 1 << 20

Opener = Callable[[str], IO[bytes]]
"""A user's own way to open a URL: gives a binary file object."""

_VERSIONS = ("ETag", "etag", "e_tag", "content_md5", "generation", "oid", "LastModified", "mtime", "updated")


class FsspecStore:
    """Reads and writes objects by way of an fsspec filesystem, made when first needed."""

    ranges = True

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = dict(options)
        self._fresh = False
        self._made: dict[str, Any] = {}  # by scheme: one filesystem for all threads (fsspec makes one for each)

    def conditional(self, url: str) -> bool:
        """s3fs asks with IfMatch; others give whatever is there."""
        return scheme_of(url) == "s3"

    def renew(self) -> None:
        """Make the filesystem anew: tokens run out."""
        self._made.clear()
        self._fresh = True

    def filesystem(self, url: str) -> Any:
        """The filesystem of a URL."""
        import fsspec

        key = url.partition("://")[0]
        if key not in self._made:
            options = {**self._options, **({"skip_instance_cache": True} if self._fresh else {})}
            try:
                self._made[key] = fsspec.core.url_to_fs(url, **options)[0]
            except ImportError as error:
                raise ConfigError(f"{redact(url)} needs a package that is not installed: {error}") from error
            except ValueError as error:
                raise ConfigError(f"{redact(url)} cannot be opened: {error}") from error
        return self._made[key]

    def path(self, url: str) -> str:
        """The path of a URL in its filesystem."""
        return str(self.filesystem(url)._strip_protocol(url)) if "::" not in url else _chained(url, self._options)

    def pin(self, url: str) -> Pin:
        """The object's size and version, as the store has them now."""
        fs, path = self.filesystem(url), self.path(url)
        if scheme_of(url) == "s3":
            # s3fs's files ask for each range with IfMatch; their facts come from one HEAD, past its listing cache
            facts = fs.info(path, refresh=True)
            handle = fs.open(path, "rb", block_size=PIECE, cache_type="none")
            handle.details = facts
            return Pin(facts.get("size"), _version(facts), handle)
        fs.invalidate_cache(path.rpartition("/")[0])  # a listing from before would hide a change
        facts = fs.info(path)
        return Pin(facts.get("size"), _version(facts))

    def get(self, url: str, start: int, end: int | None, pin: Pin) -> Answer:
        """The bytes [start, end) of the pinned version."""
        if pin.size is None:
            pin = self.pin(url)
        stop = pin.size if end is None else end if pin.size is None else min(end, pin.size)
        return Answer(start, pin, self._pieces(url, start, stop, pin))

    def _pieces(self, url: str, start: int, end: int | None, pin: Pin) -> Iterator[bytes]:
        if end is not None and start >= end:
            return
        if pin.handle is not None:
            data = bytes(pin.handle._fetch_range(start, end))
        else:
            data = bytes(self.filesystem(url).cat_file(self.path(url), start=start, end=end))
        wanted = None if end is None else end - start
        if (
            wanted is not None and len(data) > wanted
        ):  # ranges were ignored: its bytes from `start` on are the right ones
            data = data[start:end] if len(data) == pin.size else data[:0]
        if data:
            yield data
        if wanted is not None and len(data) < wanted:
            check_pin(url, pin, self.pin(url))
            raise Ended(f"{len(data)} of {wanted} bytes came")


class OpenerStore:
    """Reads whatever a user's opener opens, front to back; it seeks where the file can."""

    ranges = False

    def __init__(self, opener: Opener) -> None:
        self._opener = opener

    def conditional(self, url: str) -> bool:
        """There is nothing to compare."""
        return True

    def renew(self) -> None:
        """Nothing is kept."""

    def pin(self, url: str) -> Pin:
        """What the file says of its size."""
        with self._opener(url) as file:
            size = getattr(file, "size", None)
        return Pin(size if isinstance(size, int) else None)

    def get(self, url: str, start: int, end: int | None, pin: Pin) -> Answer:
        """The bytes from ``start`` on."""
        file = self._opener(url)
        size = getattr(file, "size", None)
        found = Pin(size if isinstance(size, int) else None)
        check_pin(url, pin, found)
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


def _chained(url: str, options: Mapping[str, Any]) -> str:
    import fsspec

    return str(fsspec.core.url_to_fs(url, **options)[1])


def _version(facts: Mapping[str, Any]) -> str | None:
    found = next((facts[name] for name in _VERSIONS if facts.get(name)), None)
    return None if found is None else str(found)
