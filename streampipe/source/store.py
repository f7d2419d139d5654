"""What a store is: the protocol of everything that gives bytes by URL, and the registry of those that do.

A store gives ranges of one version of an object, and says which version that is. It tries once: to try again, to go
on at the byte and to renew credentials is done above it, in one place for all (``fetch``). A third party adds one in a
file of its own::

    class MyStore(sp.Store):
        def __init__(self, options, network): ...
        def pin(self, url): ...
        def get(self, url, start, end, pin): ...

    sp.register_store("mine", MyStore)                        # mine://... is read by it
    sp.stream(..., network=sp.Network(stores={"s3": "mine"}))  # or s3://... is

or by an entry point of the group ``streampipe.stores`` (named as the scheme; ``Network(schemes=)`` then allows it).
Whether it is right, ``streampipe.testing.check_store`` tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any, NamedTuple, Protocol, runtime_checkable

from streampipe.errors import ConfigError
from streampipe.source.network import Network

_GROUP = "streampipe.stores"


class Pin(NamedTuple):
    """One version of an object, as far as the store says: its size, a mark that no other version has, and its date."""

    size: int | None = None
    version: str | None = None
    modified: str | None = None

    @property
    def mark(self) -> str | None:
        """What to keep of it: the version, or the date where there is none."""
        return _opaque(self.version) or self.modified

    def differs(self, other: Pin) -> str | None:
        """How another answer is of another version; None if nothing that both say differs.

        Answers of one server do not all say the same: an ETag may be weak in one and strong in another, or be missing
        where a date is given. Only like is compared with like.

        >>> Pin(9, 'W/"1"', "Monday").differs(Pin(9, '"1"')), Pin(9, '"1"').differs(Pin(9, '"2"'))
        (None, 'version "1" became "2"')
        """
        if self.size is not None and other.size is not None and self.size != other.size:
            return f"{self.size} bytes became {other.size}"
        if self.version and other.version:
            same = _opaque(self.version) == _opaque(other.version)
            return None if same else f"version {self.version} became {other.version}"
        if self.modified and other.modified and self.modified != other.modified:
            return f"the date {self.modified} became {other.modified}"
        return None

    def with_(self, other: Pin) -> Pin:
        """What two answers together say of the object."""
        size = other.size if self.size is None else self.size
        return Pin(size, self.version or other.version, self.modified or other.modified)


def _opaque(version: str | None) -> str | None:
    return version.removeprefix("W/") if version else version


class Answer(NamedTuple):
    """Bytes on their way: ``pieces`` begin at byte ``start`` of the object; ``whole``: ranges were ignored.

    ``placed``: the bytes lie in the memory that was given for them already (``Receiving``); of the pieces only how
    long they are says something.
    """

    start: int
    pin: Pin
    pieces: Iterator[bytes]
    whole: bool = False
    placed: bool = False


Memory = Callable[[int], Sequence[memoryview]]
"""Memory for what begins at a byte of an object: some pieces, to be filled one after the other. All before it came."""


class Store(Protocol):
    """Gives the bytes of objects. It is made once a process, with ``(options, network)``, and is used by many threads.

    What it raises is understood by its kind: ``FileNotFoundError``, ``PermissionError``, an HTTP status as
    ``status``; anything else is tried again.
    """

    ranges: bool = True
    """Any range can be asked for; else an object is read front to back."""
    streams: bool = False
    """Bytes are there as they come; else all of an answer, or nothing."""
    pins: bool = False
    """Answers say size and version by themselves; else ``pin`` is asked before the first of them."""
    worked: bool = False
    """Whether it ever gave anything: credentials that were good may have run out. Set by those who read."""

    def credentials(self, url: str) -> str:
        """With which credentials it asks, for a message: never their values."""
        return "with its own credentials"

    def renew(self) -> None:
        """Forget credentials and connections."""

    def pin(self, url: str) -> Pin:
        """The object's size and version, as the store has them now.

        Raises:
            FileNotFoundError: there is none.
        """
        ...

    def get(self, url: str, start: int, end: int | None, pin: Pin) -> Answer:
        """The bytes [start, end) of the pinned version, and of no other (``end`` None: to its end; it may lie beyond).

        An answer may end early, if its pieces then end in good order or raise: the rest is asked for again.

        Raises:
            ShardChanged: the store has another version now.
        """
        ...


@runtime_checkable
class Receiving(Protocol):
    """A store that puts bytes where they are wanted, which saves a copy of each."""

    def get_into(self, url: str, start: int, end: int, pin: Pin, memory: Memory) -> Answer:
        """As ``get``; what comes is put into ``memory``, which is asked for as it comes, in order."""
        ...


@runtime_checkable
class Folders(Protocol):
    """What a store may do beside reading: list, and write."""

    def glob(self, pattern: str) -> list[str]:
        """The URLs that match, sorted, as the store has them now."""
        ...

    def is_directory(self, url: str) -> bool:
        """Whether there is anything below this URL."""
        ...

    def write(self, url: str, data: bytes) -> None:
        """Put an object in its place, at once and whole."""
        ...

    def upload(self, path: str, url: str) -> None:
        """The same with a local file, piece by piece."""
        ...


Factory = Callable[[Mapping[str, Any], Network], Store]
_REGISTERED: dict[str, Factory] = {}
BUILT_IN: dict[str, Factory] = {}
"""By scheme. Filled by ``stores``; ``fsspec`` reads what has no entry."""


def register_store(scheme: str, factory: Factory) -> None:
    """Read a scheme's URLs by a store of one's own; ``Network(stores={"s3": scheme})`` lets it read other schemes too.

    Call it at import time of a module that workers import too (or in the script, outside ``if __name__``).
    """
    if not scheme.isidentifier() or scheme != scheme.lower():
        raise ConfigError(f"a store is registered for a scheme such as 'mine', in lower case, not {scheme!r}")
    _REGISTERED[scheme] = factory


def registered(scheme: str) -> bool:
    """Whether code of this process has registered a store for a scheme, and so allowed it."""
    return scheme in _REGISTERED


def factory_of(scheme: str, network: Network) -> tuple[str, Factory]:
    """The store of a scheme: what ``Network(stores=)`` says, what was registered, what is built in, else fsspec.

    Raises:
        ConfigError: ``Network(stores=)`` names a store that is not there.
    """
    name = dict(network.stores).get(scheme, scheme)
    found = _REGISTERED.get(name) or BUILT_IN.get(name) or _entry(name)
    if found is None and name != scheme:
        raise ConfigError(
            f"Network(stores=) reads {scheme}:// by {name!r}, which is no store here: there are "
            f"{', '.join(sorted({*_REGISTERED, *BUILT_IN}))}; sp.register_store({name!r}, ...) adds one"
        )
    return (name, found) if found is not None else ("fsspec", BUILT_IN["fsspec"])


def _entry(name: str) -> Factory | None:
    found = next(iter(entry_points(group=_GROUP, name=name)), None)
    if found is None:
        return None
    factory: Factory = found.load()
    return factory
