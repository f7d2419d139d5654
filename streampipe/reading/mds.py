"""Datasets of MosaicML's streaming (MDS) as a source of samples."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from streampipe.errors import ConfigError, CorruptShard
from streampipe.reading.chunks import (
    Chunks,
    Column,
    Shard,
    Value,
    array,
    as_bytes,
    as_text,
    listing,
    pixels,
    refuse_pickles,
    scalar,
)
from streampipe.source import local_path, redact

_NUMBERS = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
_KINDS = {8: "uint8", 9: "int8", 16: "uint16", 17: "int16", 18: "float16", 32: "uint32", 33: "int32", 34: "float32"}
_KINDS |= {64: "uint64", 65: "int64", 66: "float64"}
_ENCODINGS: dict[str, Value] = {
    "bytes": as_bytes,
    "jpeg": as_bytes,
    "png": as_bytes,
    "str": as_text,
    "str_decimal": as_text,
    "str_int": int,
    "str_float": float,
    "int": scalar("int64"),
    **{name: scalar(name) for name in _NUMBERS},
    "pil": pixels,
    "json": json.loads,
    "list[jpeg]": listing(4, as_bytes),
    "list[png]": listing(4, as_bytes),
    "list[pil]": listing(4, pixels),
    "jpeg_array": listing(0, as_bytes),
    "jpegarray": listing(0, as_bytes),
}
_COMPRESSIONS = {"zstd": "zstd", "gz": "gzip", "bz2": "bzip2", "br": "brotli", "snappy": "snappy"}


class MDS(Chunks):
    """The samples of MDS shards. JPEG and PNG columns are bytes; images that were stored as pixels are arrays.

    Args:
        urls: the folder with ``index.json``, or several.

    Raises:
        ConfigError: a column holds pickles, or is of an unknown encoding; a compression is unknown.
        CorruptShard: an index is damaged.
    """

    def listed(self, root: str, index: Mapping[str, Any]) -> Iterator[Shard]:
        """The shards that an ``index.json`` names."""
        for entry in index.get("shards", ()):
            try:
                if entry["format"] != "mds":
                    raise ConfigError(f"{redact(root)}: shards of format {entry['format']!r} are not read, only 'mds'")
                names, encodings, sizes = entry["column_names"], entry["column_encodings"], entry["column_sizes"]
                packed, plain, count = entry["zip_data"], entry["raw_data"], int(entry["samples"])
                size = int(plain["bytes"])
                if packed and _is_unpacked(f"{root}/{packed['basename']}", f"{root}/{plain['basename']}"):
                    packed = None
                url = f"{root}/{(packed or plain)['basename']}"
                kind = str(entry["compression"] or "").partition(":")[0]
                columns = tuple(
                    Column(name, _value(name, encoding, url), size)
                    for name, encoding, size in zip(names, encodings, sizes, strict=True)
                )
                if not 0 <= size < 1 << 32:  # its offsets have 32 bits
                    raise ValueError(f"a shard of {size} bytes")
            except (KeyError, TypeError, ValueError) as error:
                if isinstance(error, ConfigError):
                    raise
                raise CorruptShard(f"{redact(root)}/index.json is damaged ({error!r}); fetch it again") from error
            if packed and kind not in _COMPRESSIONS:
                raise ConfigError(f"{redact(url)} is compressed by {kind}, which is not read; decompress it first")
            yield Shard(url, count, columns, _COMPRESSIONS[kind] if packed else None, size)


def _is_unpacked(packed: str, plain: str) -> bool:
    """Whether a folder of this machine has a shard as it inflates, as streaming keeps what it has fetched."""
    there, inflated = local_path(packed), local_path(plain)
    return there is not None and inflated is not None and not os.path.exists(there) and os.path.exists(inflated)


def _value(name: str, encoding: str, place: str) -> Value:
    kind, _, how = encoding.partition(":")
    if kind == "pkl":
        refuse_pickles(name, place)
    if kind == "ndarray":
        dtype, _, shape = how.partition(":")
        if dtype and dtype not in _NUMBERS:
            raise ConfigError(f"{redact(place)}: column {name!r} is of {dtype}, which is not read")
        return _Array(dtype, tuple(int(side) for side in shape.split(",")) if shape else None)
    if kind not in _ENCODINGS:
        raise ConfigError(f"{redact(place)}: column {name!r} is of encoding {encoding!r}, which is not known")
    return _ENCODINGS[kind]


class _Array:
    """Arrays whose dtype and shape are known, or stand before each."""

    def __init__(self, dtype: str, shape: tuple[int, ...] | None) -> None:
        self._dtype, self._shape = dtype, shape

    def __call__(self, data: bytes) -> np.ndarray:
        at, dtype, shape = 0, self._dtype, self._shape
        if not dtype:
            dtype, at = _KINDS[data[0]], 1
        if shape is None:
            rank, width = data[at] >> 2, 1 << (data[at] & 3)
            shape = tuple(np.frombuffer(data, f"<u{width}", rank, at + 1).tolist())
            at += 1 + rank * width
        return array(data[at:], dtype, shape)
