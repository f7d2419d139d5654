"""Object stores by obstore (the Rust library object_store), where ``Network(stores={"s3": "obstore"})`` asks for it.

Its runtime does not survive a fork: it is for one process, or for workers that are spawned.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any

from streampipe.errors import ConfigError, ShardChanged
from streampipe.source.failures import Ended, changed
from streampipe.source.http import check_pin
from streampipe.source.location import redact
from streampipe.source.network import Network
from streampipe.source.store import Answer, Pin

_PIECE = 1 << 18
_NAMES = {  # s3fs's words for what obstore calls otherwise
    "key": "access_key_id",
    "secret": "secret_access_key",
    "token": "session_token",
    "endpoint_url": "endpoint",
    "anon": "skip_signature",
}


class ObStore:
    """Reads s3, gs and az.

    Args:
        options: obstore's configuration of such a store (``region``, ``access_key_id``, ...); s3fs's ``key``,
            ``secret``, ``token``, ``endpoint_url`` and ``anon`` mean the same here.
    """

    ranges = True
    streams = True
    pins = True

    def __init__(self, options: Mapping[str, Any], network: Network) -> None:
        try:
            import obstore  # noqa: F401
        except ImportError as error:
            raise ConfigError(
                f"Network(stores=) asks for obstore, which is not installed ({error}); pip install obstore"
            ) from None
        self.worked = False
        self._config = {_NAMES.get(name, name): value for name, value in options.items() if value is not None}
        self._network = network
        self._lock = threading.Lock()
        self._stores: dict[str, Any] = {}  # by scheme and bucket

    def credentials(self, url: str) -> str:
        """Whether storage_options say who asks."""
        if self._config.get("skip_signature"):
            return "without credentials (anon of storage_options)"
        given = any("key" in name or "token" in name for name in self._config)
        return "with the keys of storage_options" if given else "with what the environment gives"

    def renew(self) -> None:
        """Make the stores anew."""
        with self._lock:
            self._stores.clear()

    def pin(self, url: str) -> Pin:
        """The object's size and version."""
        import obstore

        store, path = self._store(url)
        try:
            return _pin(obstore.head(store, path))
        except Exception as error:
            raise _meaning(error, url) from error

    def get(self, url: str, start: int, end: int | None, pin: Pin) -> Answer:
        """The bytes [start, end) of the pinned version."""
        import obstore

        if end is not None and end <= start:
            return Answer(start, pin, iter(()))
        store, path = self._store(url)
        options: dict[str, Any] = {"range": {"offset": start} if end is None else (start, end)}
        if start == 0 and end is None:
            options = {}
        if pin.version and pin.version.startswith('"'):
            options["if_match"] = pin.version
        try:
            result = obstore.get(store, path, options=options)  # type: ignore[arg-type]
        except Exception as error:
            meant = _meaning(error, url)
            if type(meant) is OSError and start == 0 and (found := self.pin(url)).size == 0:
                return Answer(0, found, iter(()))  # no range of nothing can be had
            raise meant from error
        found = _pin(result.meta)
        check_pin(url, pin, found)
        size = found.size or 0
        first, last = result.range
        if first != start or last != (size if end is None else min(end, size)):
            raise Ended(f"bytes {first} to {last} came, {start} to {end} were asked for")
        return Answer(start, found, _pieces(result, last - first, url))

    def _store(self, url: str) -> tuple[Any, str]:
        from obstore.store import from_url

        make: Any = from_url
        scheme, _, rest = url.partition("://")
        bucket, _, path = rest.partition("/")
        if not path:
            raise IsADirectoryError(f"{redact(url)} names no object")
        if "" in path.split("/"):  # it would read another object, that has no such part
            raise ConfigError(
                f"{redact(url)} has an empty part, which obstore cannot ask for: leave out Network(stores=)"
            )
        at = f"{scheme}://{bucket}"
        with self._lock:
            if at not in self._stores:
                client = {
                    "connect_timeout": f"{self._network.connect * 1000:.0f}ms",
                    "read_timeout": f"{self._network.stall * 1000:.0f}ms",
                    "timeout": "365days",  # there is no limit on the whole
                    "allow_http": True,
                }
                try:  # tries are counted in one place, which is not obstore
                    made = make(at, client_options=client, retry_config={"max_retries": 0}, **self._config)
                except Exception as error:
                    raise _meaning(error, url) from error
                self._stores[at] = made
            return self._stores[at], path


def _pin(meta: Mapping[str, Any]) -> Pin:
    modified = meta.get("last_modified")
    return Pin(meta["size"], meta.get("e_tag") or meta.get("version"), None if modified is None else str(modified))


def _pieces(result: Any, wanted: int, url: str) -> Iterator[bytes]:
    done = 0
    try:
        for piece in result.stream(min_chunk_size=_PIECE):
            done += len(piece)
            yield memoryview(piece)  # type: ignore[misc]
    except Exception as error:
        raise _meaning(error, url) from error
    if done != wanted:
        raise Ended(f"{done} of {wanted} bytes came")


def _meaning(error: Exception, url: str) -> Exception:
    """obstore's errors by what they mean; what is not known is tried again."""
    from obstore import exceptions

    if isinstance(error, (ShardChanged, Ended)):
        return error
    text = str(error).partition("\n")[0]  # what follows is for who debugs it
    if isinstance(error, (exceptions.NotFoundError, FileNotFoundError)):
        return FileNotFoundError(text)
    if isinstance(error, (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError)):
        return PermissionError(text)
    if isinstance(error, exceptions.PreconditionError):
        return changed(url, "the store has another version now")
    if isinstance(error, (exceptions.UnknownConfigurationKeyError, exceptions.InvalidPathError)):
        return ValueError(text)
    if isinstance(error, exceptions.NotSupportedError):
        return NotImplementedError(text)
    if "fork" in text.lower():
        return NotImplementedError(
            "obstore does not work in a process that was forked after it was used: give the DataLoader "
            "multiprocessing_context='spawn', or read without Network(stores=)"
        )
    return OSError(text)
