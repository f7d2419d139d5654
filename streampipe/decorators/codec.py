"""Values to bytes and back without pickle: JSON for the structure, raw bytes for arrays and tensors.

Layout: magic, crc32 of all that follows, length of the JSON, the JSON, the raw pieces one after the other.
"""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

import numpy as np
import torch

from streampipe.errors import ConfigError

_MAGIC = b"spv1"
_HEAD = struct.Struct("<4sIQ")


def encode(value: Any) -> bytes:
    """A value as bytes: None, numbers, text, bytes, numpy arrays, tensors, and lists, tuples and dicts of these.

    >>> decode(encode({"a": (1, b"x")}))
    {'a': (1, b'x')}
    """
    pieces: list[bytes] = []
    tree = json.dumps(_flatten(value, pieces)).encode()
    body = b"".join((tree, *pieces))
    return _HEAD.pack(_MAGIC, zlib.crc32(body), len(tree)) + body


def decode(data: bytes) -> Any:
    """What ``encode`` was given. Raises ValueError where the bytes are damaged."""
    if len(data) < _HEAD.size:
        raise ValueError("too short")
    magic, crc, length = _HEAD.unpack_from(data)
    body = data[_HEAD.size :]
    if magic != _MAGIC or zlib.crc32(body) != crc:
        raise ValueError("damaged")
    return _rebuild(json.loads(body[:length]), memoryview(body)[length:])


def _flatten(value: Any, pieces: list[bytes]) -> Any:
    if value is None or (isinstance(value, (bool, int, float, str)) and type(value) in (bool, int, float, str)):
        return {"v": value}
    if isinstance(value, (bytes, bytearray)):
        return {"b": _piece(bytes(value), pieces)}
    if isinstance(value, torch.Tensor):
        plain = value.detach().cpu().contiguous()
        raw = plain.reshape(-1).view(torch.uint8) if plain.numel() else torch.empty(0, dtype=torch.uint8, device="cpu")
        name = str(plain.dtype).removeprefix("torch.")
        return {"t": _piece(raw.numpy().tobytes(), pieces), "dtype": name, "shape": list(plain.shape)}
    if isinstance(value, np.ndarray) and not value.dtype.hasobject and value.dtype.names is None:
        return {"n": _piece(value.tobytes(), pieces), "dtype": value.dtype.str, "shape": list(value.shape)}
    if type(value) in (list, tuple):
        return {"l" if type(value) is list else "u": [_flatten(each, pieces) for each in value]}
    if type(value) is dict:
        return {"d": [[_flatten(key, pieces), _flatten(each, pieces)] for key, each in value.items()]}
    raise ConfigError(
        f"a {type(value).__name__} cannot be cached on disk: return numbers, text, bytes, arrays, tensors, or lists, "
        f"tuples and dicts of these"
    )


def _piece(data: bytes, pieces: list[bytes]) -> list[int]:
    start = sum(map(len, pieces))
    pieces.append(data)
    return [start, len(data)]


def _rebuild(node: dict[str, Any], raw: memoryview) -> Any:
    kind = next(iter(node))
    value = node[kind]
    if kind == "v":
        return value
    if kind in "lu":
        items = [_rebuild(each, raw) for each in value]
        return items if kind == "l" else tuple(items)
    if kind == "d":
        return {_rebuild(key, raw): _rebuild(each, raw) for key, each in value}
    data = bytearray(raw[value[0] : value[0] + value[1]])
    if kind == "b":
        return bytes(data)
    if kind == "n":
        return np.frombuffer(data, np.dtype(node["dtype"])).reshape(node["shape"])
    dtype = getattr(torch, node["dtype"])
    flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype, device="cpu")
    return flat.reshape(node["shape"])
