"""What a sample source is: the protocol of everything that holds samples in shards, and the registry of those that do.

A shard is what one reader reads front to back: a file, a range of rows of a database, a page of a listing. A source
says which shards there are, reads one, and may be able to do more: a method for each ability. A third party adds one in
a file of its own::

    class Pages(sp.SampleSource):
        def __init__(self, urls, source): ...      # source reads bytes by URL: ranges, retries and cache apply
        def read(self, shard, first=0): ...        # only this: the samples are streamed, in lanes
        def counts(self): ...                      # and batches are decided before they are read
        def sample(self, shard, number): ...       # and samples come in any order
        def facts(self, shard, columns): ...       # and where, bucket, split and take read no sample
        def only(self, fields): ...                # and select reads no other fields

    sp.stream(Pages(...), shuffle=True)            # as it is; or by name:
    sp.register_source("pages", Pages)             # "a.pages", "pages://..." and stream(format="pages") are read by it

or by an entry point of the group ``streampipe.sources``, named so. Whether it is right,
``streampipe.testing.check_source`` tells.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from importlib.metadata import entry_points
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa

from streampipe.errors import ConfigError
from streampipe.source import Source

GROUP = "streampipe.sources"


@runtime_checkable
class SampleSource(Protocol):
    """Samples in shards. It is picklable and holds nothing live: every worker has a copy.

    A sample is a dict: ``__key__``, a text that no other sample has, and fields, as bytes where they are encoded
    (images, by the extension that names their format, or ``image``, ``mask``), else as plain values. ``__url__`` may
    say where it comes from; else it is the shard's name.
    """

    shards: Sequence[str]
    """The shards by name, the same in every process and epoch. Names are for messages, and tell datasets apart."""

    def read(self, shard: int, first: int = 0) -> Iterator[dict[str, Any]]:
        """The samples of a shard in order, from number ``first`` on.

        Raises:
            ShardError: what is there is damaged; ``on_error="skip"`` then goes on with the next shard.
            SourceError: it cannot be had.
        """
        ...


@runtime_checkable
class Counts(Protocol):
    """A source that knows how many samples there are."""

    def counts(self) -> Sequence[int] | None:
        """The samples of each shard; None if this one does not know after all."""
        ...


@runtime_checkable
class RandomAccess(Protocol):
    """A source that gives any sample without reading those before it. It has ``counts`` or ``facts`` as well."""

    def sample(self, shard: int, number: int) -> dict[str, Any]:
        """The sample of a number in a shard.

        Raises:
            ShardError, SampleError: it is damaged, or has changed; ``on_error="skip"`` takes another one.
            SourceError: it cannot be had.
        """
        ...


@runtime_checkable
class Facts(Protocol):
    """A source that knows of samples what a condition or a bucket may ask."""

    def facts(self, shard: int, columns: Collection[str] | None) -> pa.Table | None:
        """One row for each sample of a shard, in order; None if what is asked for is not known.

        Column ``key`` is the samples' keys; ``width`` and ``height`` those of the image, as shown; ``size`` its bytes,
        about; ``video.frames``, ``video.duration`` (seconds), ``video.width`` and ``video.height`` those of the video,
        so that clips of it can be planned; all others are a condition's own. ``columns``: those that will be looked
        at, whether they are there or not; None: any.
        """
        ...


@runtime_checkable
class Columns(Protocol):
    """A source that can read some fields alone."""

    def only(self, fields: Collection[str]) -> SampleSource | None:
        """The same source, whose samples have of their fields no others than these; None: that would gain nothing.

        A name may be one that no sample has.
        """
        ...


Factory = Callable[[Sequence[str], Source], SampleSource]
"""From URLs (patterns and folders as the user gave them) and what reads them, to a sample source."""
BUILT_IN: dict[str, Factory] = {}
"""By name. Filled by ``streampipe.reading.formats``."""
_REGISTERED: dict[str, Factory] = {}


def register_source(name: str, factory: Factory) -> None:
    """Read names that end in ``.NAME``, URLs ``NAME://...``, and ``stream(format=NAME)``, by a source of one's own.

    Raises:
        ConfigError: the name is no word in lower case, or one that is built in.
    """
    if not name.isidentifier() or name != name.lower() or name in ("tar", *BUILT_IN):
        raise ConfigError(f"a source is registered under a word in lower case that is not taken, not {name!r}")
    _REGISTERED[name] = factory


def factory_of(name: str) -> Factory:
    """The source of a name: what was registered, what is built in, or what an installed package brings.

    Raises:
        ConfigError: there is none.
    """
    found = _REGISTERED.get(name) or BUILT_IN.get(name) or _entry(name)
    if found is None:
        theirs = {each.name for each in entry_points(group=GROUP)}
        known = sorted({"tar", *BUILT_IN, *_REGISTERED, *theirs})
        raise ConfigError(
            f"there is no format {name!r}: choose from {', '.join(known)}, or add it: sp.register_source({name!r}, ...)"
        )
    return found


def format_of(url: str) -> str | None:
    """The name of a source that a URL's scheme or ending is registered for in this process, or built in; else None.

    >>> format_of("s3://b/train-00000.parquet"), format_of("a.tar")
    ('parquet', None)
    """
    scheme, remote, _ = url.partition("://")
    plain = url.partition("?")[0].lower()
    for name in (*_REGISTERED, *BUILT_IN):
        if (remote and scheme == name) or plain.endswith(f".{name}"):
            return name
    return None


def _entry(name: str) -> Factory | None:
    found = next(iter(entry_points(group=GROUP, name=name)), None)
    if found is None:
        return None
    factory: Factory = found.load()
    return factory
