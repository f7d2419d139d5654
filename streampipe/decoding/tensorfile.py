"""Files of tensors in the safetensors format: written and read here where they are conditions (see ``conditioning``).

Eight bytes say how long the header is; the header is JSON: of each tensor its type, its shape and where it lies behind
the header; ``__metadata__`` holds texts by name. Any safetensors reader opens what is written here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from streampipe.errors import DecodeError

Data = bytes | memoryview
SAFE_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in SAFE_TYPES.items()}
OURS = "streampipe"
"""The metadata that says a file is read here."""
_START = 8
_LONGEST = 1 << 24  # bytes of a header


class Stored(NamedTuple):
    """A tensor in a file: its type, its shape and its bytes."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    data: memoryview

    def tensor(self) -> torch.Tensor:
        """The tensor, in memory of its own."""
        out = torch.empty(self.shape, dtype=self.dtype, device="cpu")
        out.reshape(-1).view(torch.uint8).numpy()[:] = np.frombuffer(self.data, np.uint8)
        return out


def build(tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> bytes:
    """A file of tensors. Those of the largest types come first, so that each lies where its type wants it.

    Raises:
        TypeError: a tensor is of a type that the format does not have.
    """
    header: dict[str, Any] = {"__metadata__": {OURS: json.dumps(facts, ensure_ascii=False)}}
    parts, at = [], 0
    for name, tensor in sorted(tensors.items(), key=lambda item: -item[1].element_size()):
        if tensor.dtype not in NAMES:
            raise TypeError(f"{tensor.dtype} is no type of this format")
        plain = tensor.detach().cpu().contiguous()
        data = plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""
        offsets = [at, at := at + len(data)]
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        parts.append(data)
    head = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    head += b" " * (-len(head) % _START)
    return b"".join([len(head).to_bytes(_START, "little"), head, *parts])


def ours(data: Data) -> dict[str, Any] | None:
    """What the header of a file says in our own metadata; None where it has none."""
    found = _header(memoryview(data))
    return None if found is None else found[1]


def parse(data: Data) -> tuple[dict[str, Stored], dict[str, Any]] | None:
    """The tensors of a file, and our own metadata; None where it has none.

    Raises:
        DecodeError: tensors do not lie one behind the other, or not as large as they say.
    """
    view = memoryview(data)
    found = _header(view)
    if found is None:
        return None
    header, facts, start = found
    tensors, at = {}, start
    try:
        for name, each in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            dtype, shape = SAFE_TYPES[each["dtype"]], tuple(each["shape"])
            first, last = each["data_offsets"]
            size = math.prod(shape) * dtype.itemsize
            if start + first != at or last - first != size or any(type(n) is not int or n < 0 for n in shape):
                raise ValueError(f"{name} is {size} bytes at {first}")
            tensors[name] = Stored(dtype, shape, view[at : at + size])
            at += size
    except (KeyError, TypeError, ValueError) as error:
        raise DecodeError(f"the header of a .safetensors file describes no tensors: {error}") from error
    if at != len(view):
        raise DecodeError(f"a .safetensors header wants {at} bytes, {len(view)} are there")
    return tensors, facts


def _header(view: memoryview) -> tuple[dict[str, Any], dict[str, Any], int] | None:
    """The header without its metadata, our own metadata, and where the tensors begin."""
    end = _START + int.from_bytes(view[:_START], "little")
    if not _START < end <= min(len(view), _LONGEST):
        return None
    head = bytes(view[_START:end])
    if b'"%b"' % OURS.encode() not in head:
        return None
    try:
        header = json.loads(head)
        facts = json.loads(header.pop("__metadata__")[OURS])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return (header, facts, end) if isinstance(facts, dict) and "version" in facts else None
