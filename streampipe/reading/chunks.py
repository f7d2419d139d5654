"""What shards of MosaicML's streaming and of LitData have in common: a table of offsets, then samples made of columns.

They are read to be converted, or streamed as they are. Nothing in them is run: columns of pickles are refused.
"""

from __future__ import annotations

import json
import math
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from streampipe.errors import ConfigError, CorruptShard, StreampipeError
from streampipe.reading.numbered import Numbered
from streampipe.source import Source, local_path, redact
from streampipe.source.versions import Version
from streampipe.tar.compression import decompress

_HELD = 64  # shards whose offsets are held
_KEYS = ("__key__", "key")
WHOLE = ("brotli", "snappy")
"""Compressions of a shard as one piece."""
Value = Callable[[bytes], Any]
"""From the bytes of a column to its value."""


class Column(NamedTuple):
    """A column: its name, what makes a value of its bytes, and how many these are, where that is always the same."""

    name: str
    value: Value
    size: int | None = None


class Shard(NamedTuple):
    """A shard: its URL, its samples, its columns, and how it is compressed (None: it is not).

    ``bytes``: of what it inflates to, where the index says so.
    """

    url: str
    samples: int
    columns: tuple[Column, ...]
    compression: str | None = None
    bytes: int = 0


class _Opened(NamedTuple):
    """What is held of a shard: its bytes, where it is compressed, and the places of its samples; and of which version
    of it they are.
    """

    whole: bytes | None
    offsets: np.ndarray
    version: Version


class Chunks(Numbered):
    """Samples in shards of this kind, under folders with an ``index.json`` each. A sample source of any order."""

    def __init__(self, urls: str | Sequence[str], source: Source | None = None) -> None:
        self.source = source or Source()
        self._files = [_inside(root, shard) for root in _roots(urls) for shard in self.listed(root, self._index(root))]
        if not self._files:
            raise ConfigError(f"{redact(_roots(urls)[0])}: its index.json names no shards")
        self.shards: Sequence[str] = [shard.url for shard in self._files]
        self._now: OrderedDict[int, _Opened] = OrderedDict()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({redact(self.shards[0])!r}, {len(self.shards)} shards)"

    def listed(self, root: str, index: Mapping[str, Any]) -> Iterator[Shard]:
        """The shards that an ``index.json`` names."""
        raise NotImplementedError

    def counts(self) -> list[int]:
        """The samples of each shard."""
        return [shard.samples for shard in self._files]

    def sample(self, shard: int, number: int) -> dict[str, Any]:
        """A sample.

        Raises:
            CorruptShard: it is not what the index says.
        """
        held = self._files[shard]
        whole, offsets, version = self._opened(shard)
        start, end = int(offsets[number]), int(offsets[number + 1])
        if not 0 < start <= end or (whole is not None and end > len(whole)):
            raise CorruptShard(f"{redact(held.url)}, sample {number}: bytes {start} to {end} cannot be; fetch it again")
        data = self.source.read(held.url, start, end, version) if whole is None else whole[start:end]
        try:
            fields = _values(data, held.columns)
        except StreampipeError:
            raise
        except Exception as error:  # struct.error, ValueError, UnicodeDecodeError, ...
            raise CorruptShard(
                f"{redact(held.url)}, sample {number}: it is not what its index says ({error}); fetch it again"
            ) from error
        key = next((fields.pop(name) for name in _KEYS if isinstance(fields.get(name), str)), None)
        return {"__key__": key or f"{shard:05d}/{number:08d}", "__url__": redact(held.url), **fields}

    def _index(self, root: str) -> Mapping[str, Any]:
        url = f"{root}/index.json"
        data = self.source.read_if_there(url)
        if data is None:
            raise ConfigError(f"there is no {redact(url)}: give the folder that the other tool wrote")
        try:
            found = json.loads(data)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise CorruptShard(f"{redact(url)} is no JSON object; fetch it again")
        return found

    def _opened(self, shard: int) -> _Opened:
        """A shard whose samples can be found. What is held of another version of it is let go."""
        held = self._files[shard]
        found, version = self._now.pop(shard, None), self.source.agreed(held.url)
        if found is None or found.version is not version:
            need = 4 * (held.samples + 2)
            whole = None
            if held.compression is not None:
                chunks = self.source.chunks(held.url)
                if held.compression in WHOLE:
                    whole = _inflated(b"".join(chunks), held)
                else:
                    whole = b"".join(decompress(chunks, shard=redact(held.url), kind=held.compression))
            head = self.source.read(held.url, 0, need, version) if whole is None else whole[:need]
            numbers = np.frombuffer(head, "<u4")
            if (
                len(numbers) < held.samples + 2
                or numbers[0] != held.samples
                or (np.diff(numbers[1:].astype(int)) < 0).any()
            ):
                raise CorruptShard(
                    f"{redact(held.url)} does not hold {held.samples} samples, as its index says, in a layout that is "
                    f"known; fetch it again, or convert it with the tool that wrote it"
                )
            found = _Opened(whole, numbers[1:], version)
        self._now[shard] = found
        while len(self._now) > (2 if found.whole is not None else _HELD):
            self._now.popitem(last=False)
        return found


def _inflated(data: bytes, shard: Shard) -> bytes:
    """The bytes of a shard that is compressed as a whole; never more than its index says."""
    shown = redact(shard.url)
    try:
        import cramjam
    except ImportError:
        raise ConfigError(f"{shown} is compressed with {shard.compression}: pip install 'streampipe[mds]'") from None
    inflate = cramjam.brotli.decompress_into if shard.compression == "brotli" else cramjam.snappy.decompress_raw_into
    whole = bytearray(shard.bytes)
    try:
        found = inflate(data, whole)
    except cramjam.DecompressionError as error:
        raise CorruptShard(
            f"{shown}: its {shard.compression} data is damaged, or more than the {shard.bytes} bytes that its index "
            f"says ({error}); fetch it again"
        ) from None
    if found != shard.bytes:
        raise CorruptShard(f"{shown} inflates to {found} bytes, its index says {shard.bytes}; fetch it again")
    return bytes(whole)


def _roots(urls: str | Sequence[str]) -> list[str]:
    """The folders that are meant: shards stand for that in which they lie."""
    given = [urls] if isinstance(urls, str) else [str(url) for url in urls]
    roots = [(local_path(url) or url).rstrip("/") for url in given]
    return list(dict.fromkeys(r.rpartition("/")[0] if r.endswith((".mds", ".bin", ".json")) else r for r in roots))


def _inside(root: str, shard: Shard) -> Shard:
    """A shard that lies where its index does.

    Raises:
        CorruptShard: its name leads elsewhere.
    """
    if ".." in shard.url.removeprefix(root).split("/"):
        raise CorruptShard(f"{redact(root)}/index.json names {redact(shard.url)}, which lies outside; fetch it again")
    return shard


def _values(data: bytes, columns: Sequence[Column]) -> dict[str, Any]:
    sizes, at = [], 0
    for column in columns:
        size = column.size
        if size is None:
            (size,) = struct.unpack_from("<I", data, at)
            at += 4
        sizes.append(size)
    if at + sum(sizes) != len(data):
        raise ValueError(f"its columns have {at + sum(sizes)} bytes, it has {len(data)}")
    fields: dict[str, Any] = {}
    for column, size in zip(columns, sizes, strict=True):
        value = column.value(data[at : at + size])
        at += size
        if isinstance(value, list) and value and all(isinstance(each, (bytes, np.ndarray)) for each in value):
            named = {f"{column.name}{number}": each for number, each in enumerate(value)}
        else:
            named = {column.name: value}
        if twice := named.keys() & fields.keys():
            raise ValueError(f"two of its values would be field {min(twice)!r}")
        fields |= named
    return fields


def pixels(data: bytes) -> np.ndarray:
    """An image that was stored as its pixels: height x width x channels.

    >>> pixels(struct.pack("<3I", 2, 1, 3) + b"RGB" + bytes(6)).shape
    (1, 2, 3)
    """
    width, height, length = struct.unpack_from("<3I", data)
    mode = data[12 : 12 + length].decode()
    channels = {"L": 1, "RGB": 3, "RGBA": 4}.get(mode)
    if channels is None:
        raise ValueError(f"pixels of mode {mode!r} have no format here")
    return np.frombuffer(data, np.uint8, offset=12 + length).reshape(height, width, channels)


def parts(sizes_at: int, value: Value, data: bytes) -> list[Any]:
    """A list of values: their number, their sizes and then themselves, from a byte on."""
    (number,) = struct.unpack_from("<I", data, sizes_at)
    at = sizes_at + 4 + 4 * number
    found = []
    for size in struct.unpack_from(f"<{number}I", data, sizes_at + 4):
        if at + size > len(data):
            raise ValueError("a list is longer than its bytes")
        found.append(value(data[at : at + size]))
        at += size
    return found


def scalar(kind: str) -> Value:
    """A number of a numpy kind, as Python's."""
    return partial(_number, kind)


def listing(at: int, value: Value) -> Value:
    """A list of values, of which number and sizes stand at a byte."""
    return partial(parts, at, value)


def _number(kind: str, data: bytes) -> Any:
    return np.frombuffer(data, kind)[0].item()


def array(data: bytes, kind: str, shape: Sequence[int]) -> np.ndarray:
    """An array of so many values, checked before it is made."""
    if math.prod(shape) * np.dtype(kind).itemsize != len(data):
        raise ValueError(f"an array of shape {tuple(shape)} and {kind} does not have {len(data)} bytes")
    return np.frombuffer(data, kind).reshape(shape)


def as_bytes(data: bytes) -> bytes:
    """Bytes as they are."""
    return bytes(data)


def as_text(data: bytes) -> str:
    """Text in UTF-8."""
    return data.decode()


def refuse_pickles(name: str, place: str) -> None:
    """Refuse a column whose values can run code.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(
        f"{redact(place)}: column {name!r} holds pickles, which can run code when they are read; write it anew without "
        f"that column, or convert it with the tool that wrote it, where you trust it"
    )
