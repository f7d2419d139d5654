"""The door to all bytes: local files mapped, remote objects fetched, kept shards from the cache."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from streampipe.atomic import write_atomic
from streampipe.errors import AccessDenied, ShardMissing, SourceError, SourceUnavailable
from streampipe.locks import ProcessLock
from streampipe.source.cache import Cache
from streampipe.source.download import Download
from streampipe.source.failures import cause, failure
from streampipe.source.fetch import Fetch, attempt
from streampipe.source.forward import Forward, fetched
from streampipe.source.hub import HubStore
from streampipe.source.local import BLOCK, LocalFile, of_one_folder, open_local, pin_of
from streampipe.source.location import check_scheme, is_chain, local_path, redact, scheme_of
from streampipe.source.network import Network
from streampipe.source.ranges import Ranges
from streampipe.source.store import BUILT_IN, Factory, Folders, Pin, Store, factory_of, registered
from streampipe.source.stores import FsspecStore, Opener, OpenerStore
from streampipe.source.traffic import Traffic, traffic_of
from streampipe.source.versions import Version, Versions
from streampipe.unwanted import Stop

_log = logging.getLogger("streampipe")
_PAGE = re.compile(rb"\s*(<!doctype\s|<html\b)", re.IGNORECASE)
_AHEAD = 3  # shards whose first window is asked for before they are wanted

_making = ProcessLock()


class _Live:
    """What a process has open. Never pickled, never used after a fork."""

    def __init__(self, source: Source) -> None:
        self.process = os.getpid()
        self.traffic = traffic_of(source.network)
        self.stores: dict[str, Store] = {}
        self.folders = FsspecStore(source.storage_options, source.network)
        self.pins = Versions()
        self.coming: dict[str, Forward] = {}
        self.downloads: dict[str, Download] = {}


class Source:
    """Opens shards. Holds settings only, nothing live, so it can be pickled and used after a fork.

    Args:
        storage_options: for fsspec; for http(s) ``headers``.
        opener: a function from a URL to a binary file, used for every URL.
        network: how remote objects are read.
        cache: where shards are kept.
    """

    def __init__(
        self,
        storage_options: Mapping[str, Any] | None = None,
        opener: Opener | None = None,
        network: Network | None = None,
        cache: Cache | None = None,
    ) -> None:
        self.storage_options = dict(storage_options or {})
        self.opener = opener
        self.network = network or Network()
        self.cache = cache
        self._known: dict[str, str] = {}  # what all processes agree on: the commits of the hub
        self._worked: set[str] = set()  # stores that gave something to this job
        self._now: _Live | None = None

    def __getstate__(self) -> dict[str, Any]:
        self._remember()
        return {**self.__dict__, "_now": None}

    def _remember(self) -> None:
        """Which stores worked, for processes that come after."""
        if self._now is not None:
            self._worked |= {name for name, store in list(self._now.stores.items()) if store.worked}

    @property
    def _live(self) -> _Live:
        live = self._now
        if live is None or live.process != os.getpid():
            with _making:  # threads that begin at once must agree on versions
                live = self._now
                if live is None or live.process != os.getpid():
                    self._remember()
                    live = self._now = _Live(self)
        return live

    def is_remote(self, url: str) -> bool:
        """Whether a shard is read through a store."""
        return self.opener is not None or local_path(url) is None

    def file(self, url: str, pin: Pin | None = None) -> LocalFile | None:
        """A local or kept shard, to be read anywhere; None where there is only a stream.

        ``pin``: which version a kept one must be of; None: that which this process reads.
        """
        if self.is_remote(url):
            if self.cache is None or self.opener is not None or not self.cache.has(url):
                return None
            return self.cache.file(url, pin or self._pin(url))
        try:
            return open_local(local_path(url) or "", url)
        except OSError as error:
            raise failure(error, url).error from error

    def buffer(self, url: str) -> memoryview | None:
        """The same, mapped: for who looks at headers only, once. A file that shrinks meanwhile ends the process."""
        file = self.file(url)
        return None if file is None else file.mapped()

    def chunks(self, url: str, then: Sequence[str] = ()) -> Iterator[bytes]:
        """All bytes of a shard, front to back, asked for ahead of need; and the beginnings of those that come ``then``.

        Raises:
            ShardChanged: it was replaced meanwhile.
            TruncatedShard, SourceUnavailable: not all of it came.
        """
        if not self.is_remote(url):
            return self._file(url)
        if self.cache is not None and self.opener is None:
            return self._through_cache(url, then)
        live = self._live
        forward = live.coming.pop(url, None) or self._forward(url)
        forward.start()
        last, seen = forward, {url}
        for next_url in then[:_AHEAD]:
            if self.is_remote(next_url) and next_url not in seen:
                seen.add(next_url)
                last.then = live.coming.setdefault(next_url, self._forward(next_url))
                last = last.then
                last.start()
        return iter(forward)

    def check(self, urls: Iterable[str]) -> None:
        """Refuse URLs that nothing here reads.

        Raises:
            ConfigError: their scheme is not allowed, or ``Network(stores=)`` names no store.
        """
        if self.opener is None:
            for url in {scheme_of(url): url for url in urls if local_path(url) is None}.values():
                self._maker(url)

    def close(self, urls: Iterable[str] | None = None) -> None:
        """Give up what was asked for ahead, of all objects or of some: who ends may be one of several who read. Copies
        on their way into a cache are made all the same.
        """
        live = self._now
        if live is None or live.process != os.getpid():
            return
        for url in list(live.coming) if urls is None else urls:
            if forward := live.coming.pop(url, None):
                forward.close()
        for url in list(live.downloads) if urls is None else urls:
            live.downloads.pop(url, None)

    def download(self, url: str) -> Download | None:
        """Begin to copy a shard into the cache, or the copy that was begun; None if there is no cache."""
        if self.cache is None or not self.is_remote(url) or self.opener is not None:
            return None
        live = self._live
        for old in [each for each, download in list(live.downloads.items()) if download.done]:
            live.downloads.pop(old, None)
        found = live.downloads.get(url)
        if found is None:
            patience = self.network.stall + self.network.longest_wait
            found = Download(self.cache, url, lambda at, pin: self._from(url, at, pin), patience)
            live.downloads[url] = found  # another thread may let it go at once
        return found

    def settle(self) -> None:
        """At the end of a pass: let copies that are whole get their names before this process may end."""
        if self._now is not None and self._now.process == os.getpid():
            for download in list(self._now.downloads.values()):
                download.settle()

    def finished(self, url: str) -> None:
        """The plan does not need a shard any more in this epoch."""
        if self.cache is not None and self.is_remote(url):
            self.cache.finished(url)

    @property
    def traffic(self) -> Traffic:
        """The threads and the budget of bytes of this process."""
        return self._live.traffic

    def ranges(self, url: str, stop: Stop) -> Ranges:
        """A remote shard to be read in parts, ahead of need; ``stop`` gives up what is on the way."""
        live = self._live
        return Ranges(self._store(url), live.pins.of(url), self.network, live.traffic, stop)

    def begin(self) -> None:
        """A pass begins: objects are read as they are now."""
        if self._now is not None and self._now.process == os.getpid():
            self._now.pins.begin()

    def agreed(self, url: str) -> Version:
        """The version of an object that this process reads in parts."""
        return self._live.pins.of(url)

    def read(self, url: str, start: int = 0, end: int | None = None, version: Version | None = None) -> bytes:
        """The bytes [start, end) of an object, or all of it.

        ``version``: which one they must be of; None: parts of a remote object are of that which this process reads.

        Raises:
            ShardChanged: it was replaced.
            SourceUnavailable: fewer bytes came than were asked for.
        """
        path = local_path(url)
        if path is None:
            live = self._live
            if version is None:  # of objects that are read whole, and may be many, nothing is remembered
                version = Version(url) if end is None else live.pins.of(url)
            data, pin = fetched(
                self._store(url), url, self.network, live.traffic.link, start, end, version.pin or Pin()
            )
            version.agree(pin)
        else:
            try:
                with open(path, "rb") as file:
                    if version is not None:
                        version.agree(pin_of(file.fileno()))
                    file.seek(start)
                    data = file.read(-1 if end is None else end - start)
            except SourceError:
                raise
            except OSError as error:
                raise failure(error, url).error from error
        if end is not None and len(data) != end - start:
            raise SourceUnavailable(
                f"{redact(url)}: {len(data)} of {end - start} bytes came from byte {start} on; it is shorter than its "
                f"index says: run streampipe index again, or check how it was uploaded"
            )
        return data

    def read_if_there(self, url: str, most: int = 1 << 30) -> bytes | None:
        """All bytes of a small object, such as an index; None if there is none, or none that may be read.

        Object stores answer "forbidden" for what is not there where the reader may not list the bucket, and some web
        servers give a page for it.

        Raises:
            SourceError: it has more than ``most`` bytes.
        """
        pieces, size = [], 0
        try:
            remote = self.is_remote(url)
            for piece in self._small(url) if remote else self._file(url):
                pieces.append(piece)
                size += len(piece)
                if size > most:
                    raise SourceError(f"{redact(url)} has more than {most} bytes, the most that is read of such a file")
        except (ShardMissing, AccessDenied) as error:
            if isinstance(error, AccessDenied):
                _log.info("%s; it is taken as not there", error)
            return None
        data = b"".join(pieces)
        if remote and _PAGE.match(data):
            _log.info("%s is a web page; it is taken as not there", redact(url))
            return None
        return data

    def _small(self, url: str) -> Iterator[bytes]:
        """All bytes of a small object of a store. How long they take says what to expect of its link."""
        return self.traffic.link.heard(Fetch(self._store(url), url, self.network))

    def size(self, url: str) -> int | None:
        """How many bytes an object has; None if the store does not say."""
        return self.pin(url).size

    def pin(self, url: str) -> Pin:
        """The size and version that an object has now, as far as its store says."""
        path = local_path(url)
        if path is None:
            return attempt(self._store(url), url, self.network)
        try:
            return pin_of(path)
        except OSError as error:
            raise failure(error, url).error from error

    def version(self, url: str) -> str | None:
        """What no other version of an object has: of a file its size and date; None if the store does not say."""
        pin = self.pin(url)
        return pin.mark and f"{pin.size} {pin.mark}"

    def write(self, url: str, data: bytes) -> None:
        """Put an object in its place at once: whoever looks sees the old one or the whole new one."""
        path = local_path(url)
        try:
            if path is None:
                self._folders(url).write(url, data)
                return
            write_atomic(path, data)
        except Exception as error:
            raise failure(error, url, "written").error from cause(error, url)

    def upload(self, path: str, url: str) -> None:
        """Put a local file in its place in a store, piece by piece; the store publishes it when it is complete."""
        try:
            self._folders(url).upload(path, url)
        except Exception as error:
            raise failure(error, url, "written").error from cause(error, url)

    def glob(self, pattern: str) -> list[str]:
        """The URLs that match a glob, sorted, as the store has them now."""
        try:
            if (names := of_one_folder(pattern)) is not None:
                return names
            return self._folders(pattern).glob(pattern)
        except Exception as error:
            raise failure(error, pattern, "listed").error from cause(error, pattern)

    def files(self, folder: str) -> Iterator[tuple[str, int, str | None]]:
        """The files below a folder of a store, as they are listed: path below it, bytes, version."""
        check_scheme(folder, self.network.schemes)
        try:
            yield from self._live.folders.files(folder)
        except Exception as error:
            raise failure(error, folder, "listed").error from cause(error, folder)

    def is_directory(self, path: str) -> bool:
        """Whether there is a directory at this URL."""
        try:
            return self._folders(path).is_directory(path)
        except Exception as error:
            raise failure(error, path, "listed").error from cause(error, path)

    def _file(self, url: str) -> Iterator[bytes]:
        file = self.file(url)
        if file is not None:
            yield from file.pieces()
            return
        try:
            with open(local_path(url) or "", "rb") as pipe:
                while chunk := pipe.read(BLOCK):
                    yield chunk
        except OSError as error:
            raise failure(error, url).error from error

    def _forward(self, url: str) -> Forward:
        return Forward(self._store(url), url, self.network, self._live.traffic)

    def _through_cache(self, url: str, then: Sequence[str]) -> Iterator[bytes]:
        download = self.download(url)
        for next_url in then[:1]:
            self.download(next_url)
        if download is not None:
            try:
                yield from download.pieces()
            finally:
                self._live.downloads.pop(url, None)

    def _from(self, url: str, at: int, pin: Pin | None) -> Forward:
        """The bytes from ``at`` on, of a version or (None) of the one that is read."""
        return Forward(self._store(url), url, self.network, self._live.traffic, pin or self._pin(url), at)

    def _pin(self, url: str) -> Pin:
        version = self.agreed(url)
        if version.pin is None:
            version.agree(attempt(self._store(url), url, self.network))
        return version.pin or Pin()

    def _store(self, url: str) -> Store:
        stores = self._live.stores
        if self.opener is not None:
            return stores.setdefault("opener", OpenerStore(self.opener))
        name, make = self._maker(url)
        if name not in stores:
            store = make(self.storage_options, self.network)
            store.worked = name in self._worked
            if isinstance(store, HubStore):
                store.share(self._known)
            stores.setdefault(name, store)
        return stores[name]

    def _maker(self, url: str) -> tuple[str, Factory]:
        """The name of the store that reads a URL, and what makes it."""
        scheme = scheme_of(url)
        if not registered(scheme):
            check_scheme(url, self.network.schemes)
        return ("fsspec", BUILT_IN["fsspec"]) if is_chain(url) else factory_of(scheme, self.network)

    def _folders(self, url: str) -> Folders:
        """What lists and writes: the store itself where it can, else fsspec."""
        if self.opener is None and local_path(url) is None:
            store = self._store(url)
            if isinstance(store, Folders):
                return store
        check_scheme(url, self.network.schemes)
        return self._live.folders
