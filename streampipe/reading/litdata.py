"""Datasets that LitData optimized as a source of samples."""

from __future__ import annotations

import json
import struct
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
from streampipe.source import redact

_NUMPY = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64")
_TORCH: tuple[str | None, ...] = (
    "float32",
    "float32",
    "float64",
    "float64",
    None,
    None,
    None,
    None,
    "float16",
    "float16",
)
_TORCH += (None, "uint8", "int8", "int16", "int16", "int32", "int32", "int64", "int64", "bool")


class LitData(Chunks):
    """The samples of LitData's chunks. A value inside another one has a dotted name: ``meta.score``.

    Args:
        urls: the folder with ``index.json``, or several.

    Raises:
        ConfigError: a leaf holds pickles, or is of an unknown kind; chunks are encrypted, or of tokens.
        CorruptShard: an index is damaged.
    """

    def listed(self, root: str, index: Mapping[str, Any]) -> Iterator[Shard]:
        """The chunks that an ``index.json`` names."""
        try:
            config = index["config"]
            if config.get("encryption"):
                raise ConfigError(f"{redact(root)} is encrypted; decrypt it with the tool that wrote it")
            if config.get("item_loader") != "PyTreeLoader":
                raise ConfigError(f"{redact(root)} is of {config.get('item_loader')}: only samples of fields are read")
            kind = config.get("compression")
            if kind not in (None, "zstd"):
                raise ConfigError(f"{redact(root)} is compressed by {kind!r}, which is not read")
            names = _names(json.loads(config["data_spec"])[1])
            columns = tuple(
                Column(name, _value(name, encoding, root))
                for name, encoding in zip(names, config["data_format"], strict=True)
            )
            found = [Shard(f"{root}/{c['filename']}", int(c["chunk_size"]), columns, kind) for c in index["chunks"]]
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            if isinstance(error, ConfigError):
                raise
            raise CorruptShard(f"{redact(root)}/index.json is damaged ({error!r}); fetch it again") from error
        yield from found


def _names(spec: Mapping[str, Any], before: str = "") -> list[str]:
    """The names of the leaves of a tree of dicts, lists and tuples."""
    children = spec["children_spec"]
    if spec["type"] is None:
        return [before or "value"]
    if spec["type"].endswith("dict"):
        inner = [str(name) for name in json.loads(spec["context"])]
    elif spec["type"].endswith(("list", "tuple")):
        inner = [str(number) for number in range(len(children))]
    else:
        raise ConfigError(f"a sample holds a {spec['type']}, which is not read; only dicts, lists and tuples are")
    joined = [f"{before}.{name}" if before else name for name in inner]
    return [leaf for name, child in zip(joined, children, strict=True) for leaf in _names(child, name)]


def _value(name: str, encoding: str, place: str) -> Value:
    kind, _, how = encoding.partition(":")
    if kind == "pickle" or how == "pickle":
        refuse_pickles(name, place)
    if kind in ("no_header_numpy", "no_header_tensor"):
        table = _NUMPY if kind == "no_header_numpy" else _TORCH
        dtype = table[int(how)] if int(how) < len(table) else None
        if dtype is not None:
            return _Flat(dtype)
    if kind not in _ENCODINGS:
        raise ConfigError(f"{redact(place)}: {name!r} is of kind {encoding!r}, which is not read")
    return _ENCODINGS[kind]


class _Flat:
    """Arrays of one dimension."""

    def __init__(self, dtype: str) -> None:
        self._dtype = dtype

    def __call__(self, data: bytes) -> np.ndarray:
        return array(data, self._dtype, (len(data) // np.dtype(self._dtype).itemsize,))


def _numpy(data: bytes) -> np.ndarray:
    dtype, rank = struct.unpack_from("<2I", data)
    shape = struct.unpack_from(f"<{rank}I", data, 8)
    return array(data[8 + 4 * rank :], _NUMPY[dtype], shape)


def _tensor(data: bytes) -> np.ndarray:
    dtype, rank = struct.unpack_from(">2I", data)
    kind = _TORCH[dtype]
    if kind is None:
        raise ValueError("a tensor of a kind that is not read")
    return array(data[8 + 4 * rank :], kind, struct.unpack_from(f">{rank}I", data, 8))


def _json(data: bytes) -> Any:
    if data[:1] <= b" ":
        raise ValueError("a list or dict in LitData's own coding, which is not read")
    return json.loads(data)


_ENCODINGS: dict[str, Value] = {
    "bytes": as_bytes,
    "jpeg": as_bytes,
    "image": as_bytes,
    "file": as_bytes,
    "str": as_text,
    "text": as_text,
    "int": scalar("int64"),
    "float": scalar("float64"),
    "bool": scalar("bool"),
    "pil": pixels,
    "json": _json,
    "jpeg_array": listing(0, as_bytes),
    "numpy": _numpy,
    "tensor": _tensor,
}
