"""What one shard is made of, as the process that makes it gets it: samples that are read there, one after the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple, Protocol

from streampipe.decoding.codecs import BUILT_IN, recognise
from streampipe.decoding.fields import KNOWN
from streampipe.decoding.movie import PICTURES
from streampipe.errors import SampleError, ShardError, SourceError, StageError
from streampipe.folders.files import Unreadable, digest_of_texts, from_text, packed_size, read_file
from streampipe.folders.names import Item
from streampipe.folders.walk import leads_out
from streampipe.samplesource import RandomAccess, SampleSource
from streampipe.source import Source, redact
from streampipe.threads import ordered
from streampipe.write.encode import encode_field

THREADS = 16
"""Samples of remote shards that are asked for at once."""
_TEXTS = ("text", "caption", "prompt", "captions", "instruction", "edit_prompt")
_EXTENSIONS = {"jpeg": "jpg", "jpeg2000": "jp2", "tiff": "tif"}  # the others are called as their files end


class Loaded(NamedTuple):
    """A sample as it was found: its fields as bytes, and where a field came from, for messages."""

    key: str
    fields: dict[str, bytes]
    place: Callable[[str], str]


class Contents(Protocol):
    """The samples of a shard that is to be. Picklable, and nothing live."""

    @property
    def needed(self) -> int:
        """About how many bytes they take."""
        ...

    @property
    def digest(self) -> str:
        """Of everything that decides their bytes in a shard."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Loaded | Unreadable]:
        """Each in turn, or why it cannot be had."""
        ...


@dataclass(frozen=True)
class FilesOf:
    """Samples of files in a folder: their keys, and their files as texts."""

    folder: str
    rows: Sequence[tuple[str, str]]
    source: Source | None = None  # what reads a folder of a store
    roots: Sequence[str] = ()  # the folders that files of a local one may lie in, by any link

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def needed(self) -> int:
        """All of their files, headers included."""
        return sum(map(packed_size, self._items()))

    @property
    def digest(self) -> str:
        """Of their names, sizes and dates."""
        return digest_of_texts(self.rows)

    def _items(self) -> Iterator[Item]:
        return (Item(key, from_text(files)) for key, files in self.rows)

    def __iter__(self) -> Iterator[Loaded | Unreadable]:
        if self.source is not None:
            yield from ordered(self._one, self._items(), THREADS)
            return
        inside = set[str]()  # folders that were looked at: none is a link out of this one
        for item in self._items():
            for file in item.files.values():
                below = file.path.rpartition("/")[0]
                if below not in inside:
                    if (why := leads_out(os.path.join(self.folder, below), self.roots)) is not None:
                        yield Unreadable(os.path.join(self.folder, file.path), f"its folder is {why}")
                        break
                    inside.add(below)
            else:
                yield self._one(item)

    def _one(self, item: Item) -> Loaded | Unreadable:
        folder, source, roots = self.folder, self.source, self.roots
        try:
            fields = {name: read_file(folder, file, name, source, roots) for name, file in item.files.items()}
        except Unreadable as error:
            return error
        return Loaded(item.key, fields, partial(self._path, item))

    def _path(self, item: Item, name: str) -> str:
        return os.path.join(self.folder, item.files[name].path)


class Place(NamedTuple):
    """A sample of a source: the key that it gets, its shard, and its number there."""

    key: str
    shard: int
    number: int


@dataclass(frozen=True)
class SamplesOf:
    """Samples of a sample source: each by itself where it can be (``alone``), else shard by shard, front to back."""

    given: SampleSource
    places: Sequence[Place]
    needed: int
    alone: bool
    threads: int = 0
    exact: bool = False  # its fields are members already
    digest: str = ""

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[Loaded | Unreadable]:
        if self.alone:
            yield from ordered(self._one, self.places, self.threads)
            return
        for shard, places in groupby(self.places, key=itemgetter(1)):
            yield from self._forward(shard, list(places))

    def _one(self, place: Place) -> Loaded | Unreadable:
        assert isinstance(self.given, RandomAccess)
        try:
            return self._loaded(place, self.given.sample(place.shard, place.number))
        except (SampleError, ShardError, SourceError) as error:
            return self._unreadable(place, error)

    def _forward(self, shard: int, places: list[Place]) -> Iterator[Loaded | Unreadable]:
        wanted = {place.number: place for place in places}
        first, last = min(wanted), max(wanted)
        try:
            for number, sample in enumerate(self.given.read(shard, first), first):
                place = wanted.pop(number, None)
                if place is not None:
                    yield self._loaded(place, sample)
                if number == last:
                    return
        except (SampleError, ShardError, SourceError) as error:
            for place in wanted.values():
                yield self._unreadable(place, error)
            return
        for place in wanted.values():
            yield self._unreadable(place, SampleError("it is gone"))

    def _loaded(self, place: Place, sample: Mapping[str, Any]) -> Loaded | Unreadable:
        try:
            fields = plain(sample) if self.exact else members(sample)
        except (StageError, ValueError) as error:
            return self._unreadable(place, error)
        return Loaded(place.key, fields, lambda name: f"{self._name(place)}, field {name!r}")

    def _unreadable(self, place: Place, error: Exception) -> Unreadable:
        return Unreadable(self._name(place), str(error))

    def _name(self, place: Place) -> str:
        return f"{redact(self.given.shards[place.shard])}, sample {place.key!r}"


def plain(sample: Mapping[str, Any]) -> dict[str, bytes]:
    """A sample's fields, all of them bytes."""
    return {name: bytes(value) for name, value in sample.items() if not name.startswith("__")}


def members(sample: Mapping[str, Any]) -> dict[str, bytes]:
    """A sample's fields as the members that it gets. Bytes keep their names and are not changed.

    Bytes of images whose name says no format get it from their content: ``image`` becomes ``jpg``, ``control`` becomes
    ``control.png``. Of values, a caption becomes ``txt``; numbers, lists and other texts go into the ``json``
    (``meta.json`` where there is one); arrays become ``npy``.

    Raises:
        StageError: a value has no safe format.

    >>> members({"__key__": "a", "image": bytes.fromhex("ffd8ff"), "text": "a cat", "score": 0.5})
    {'jpg': b'\\xff\\xd8\\xff', 'txt': b'a cat', 'json': b'{"score": 0.5}'}
    """
    fields: dict[str, bytes] = {}
    facts: dict[str, Any] = {}
    for name, value in sample.items():
        if name.startswith("__"):
            continue
        lower = name.lower().replace("/", "_")
        if isinstance(value, (bytes, bytearray, memoryview)):
            _put(fields, _named(lower, value), bytes(value))
        elif isinstance(value, str) and lower.rpartition(".")[2] in KNOWN and lower not in _TEXTS:
            _put(fields, lower, value.encode())
        elif value is None or isinstance(value, (str, bool, int, float, list, tuple, Mapping)):
            facts[name] = value
        else:
            _put(fields, *encode_field(lower, value))
    caption = next((facts.pop(name) for name in _TEXTS if isinstance(facts.get(name), str)), None)
    if caption is not None and "txt" not in fields:
        fields["txt"] = caption.encode()
    if facts:
        _put(fields, "meta.json" if "json" in fields else "json", encode_field("json", facts)[1])
    return fields


def _put(fields: dict[str, bytes], name: str, data: bytes) -> None:
    if name in fields:
        raise StageError(f"two fields would be called {name!r}")
    fields[name] = data


def _named(name: str, data: bytes | bytearray | memoryview) -> str:
    if name.rpartition(".")[2] in KNOWN:
        return name
    codec = recognise(data, BUILT_IN)
    if codec is None:
        return name
    found = _EXTENSIONS.get(codec.name, codec.name)
    return found if name in ("image", "img") else f"{name}.{found}"


def main_of(fields: Mapping[str, Any]) -> list[str]:
    """The names of a sample's images."""
    return list(_pictures(tuple(fields)))


@lru_cache(1024)
def _pictures(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if name.rpartition(".")[2] in PICTURES)
