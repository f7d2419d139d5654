"""Arrays in fields: ``.npy``, ``.npz`` and ``.safetensors``, and how they reach a batch with one copy.

Strategy: a header is read, and what it says compared with the bytes that are there; headers repeat from sample to
sample, so those that were read are remembered. Where a batch is made of them, an array stays the bytes that it was
found in (``Unread``), which are copied straight into its row. Else it is copied once, into memory of its own.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch

from streampipe.decoding import conditioning
from streampipe.decoding.conditioning import ALONE
from streampipe.decoding.inflate import MAX_INFLATED
from streampipe.decoding.tensorfile import SAFE_TYPES, Data
from streampipe.errors import ConfigError, DecodeError, UnsafeFormat

_SMALL = 1 << 10  # bytes of headers that are remembered
_START = 8  # bytes in front of the header's length, or of the header, in either format


class Unread(NamedTuple):
    """An array in the bytes that it was found in: they are in order, and as many as type and shape want.

    ``array``: numpy's type, where it is numpy's array by itself and not a tensor.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    data: memoryview
    array: np.dtype[Any] | None = None


def owned(value: Any) -> Any:
    """A value, in memory of its own."""
    if type(value) is not Unread:
        return value
    if value.array is not None:
        return np.ndarray(value.shape, value.array, value.data).copy()
    out = torch.empty(value.shape, dtype=value.dtype, device="cpu")
    bytes_of(out)[:] = np.frombuffer(value.data, np.uint8)
    return out


def bytes_of(tensor: torch.Tensor) -> np.ndarray:
    """The memory of a contiguous tensor. numpy copies into it in this thread alone; torch would start others."""
    return np.asarray(tensor.reshape(-1).view(torch.uint8).numpy())


class _Header(NamedTuple):
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    torch_dtype: torch.dtype | None  # of those that a batch is made of
    size: int  # bytes of the array


def npy(data: Data, unread: bool = False) -> Any:
    """The array of an .npy file; with ``unread``, where it is one of numbers in order, in the bytes that it is in.

    Raises:
        DecodeError: it is of a version that is not read, or not as large as it says.
        UnsafeFormat: it holds Python objects.
        ValueError: it is none.
    """
    view = memoryview(data)
    end = _START + (4 if bytes(view[6:7]) == b"\2" else 2)
    end += int.from_bytes(view[_START:end], "little")
    head = bytes(view[:end])
    shape, fortran, dtype, torch_dtype, wanted = (_npy_header if len(head) <= _SMALL else _npy_header.__wrapped__)(head)
    if wanted != len(view) - end:
        raise DecodeError(
            f"an .npy header of {dtype} {shape} wants {wanted} bytes, {max(0, len(view) - end)} are there"
        )
    if unread and torch_dtype is not None and not fortran and wanted:
        return Unread(torch_dtype, shape, view[end:], dtype)
    return np.ndarray(shape, dtype, view, end, order="F" if fortran else "C").copy("K")


@lru_cache(256)
def _npy_header(head: bytes) -> _Header:
    file = io.BytesIO(head)
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise DecodeError(f"an .npy file of version {version}, which is not supported; save it as version 1 or 2")
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise UnsafeFormat(
            "an .npy file of Python objects can run code when it is read; save plain numbers, or register a decoder: "
            "decode(decoders={'npy': my_function})"
        )
    try:
        torch_dtype = torch.from_numpy(np.empty(0, dtype)).dtype if dtype.kind in "biufc" else None
    except (TypeError, ValueError):  # torch has no such type, or none in that order of bytes
        torch_dtype = None
    return _Header(shape, fortran, dtype, torch_dtype, math.prod(shape) * dtype.itemsize)


def npz(data: Data) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, by name."""
    import zipfile

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        total = sum(entry.file_size for entry in archive.infolist())
        if total > MAX_INFLATED:
            raise DecodeError(f"an .npz file inflates to {total} bytes, more than the {MAX_INFLATED} allowed")
        return {entry.filename.removesuffix(".npy"): npy(archive.read(entry)) for entry in archive.infolist()}


def safetensors(data: Data, unread: bool = False) -> Any:
    """Tensors by name. One that is alone and called ``tensor`` comes without the dict: ``write`` stores it so.

    Such a one is read here where it is as plain as ``write`` makes it, and so are conditions (see ``conditioning``);
    the safetensors package reads all others.
    """
    view = memoryview(data)
    end = _START + int.from_bytes(view[:_START], "little")
    found = _lone_header(bytes(view[_START:end])) if end <= _SMALL else None
    if found is not None and found[2] == len(view) - end:
        lone = Unread(found[0], found[1], view[end:])
        return lone if unread else owned(lone)
    if (conditions := conditioning.read(data)) is not None:
        return conditions
    try:
        from safetensors.torch import load
    except ImportError:
        raise ConfigError("safetensors fields need one more package: pip install 'streampipe[safetensors]'") from None
    tensors = load(bytes(data))  # offsets, shapes and sizes are checked there against the bytes that are there
    return tensors[ALONE] if tensors.keys() == {ALONE} else tensors


@lru_cache(256)
def _lone_header(head: bytes) -> tuple[torch.dtype, tuple[int, ...], int] | None:
    """Type, shape and bytes of a lone tensor whose header is as ``write`` makes it; None for any other header."""
    try:
        found = json.loads(head)
        only = found[ALONE]
        dtype, shape, size = SAFE_TYPES[only["dtype"]], tuple(only["shape"]), only["data_offsets"][1]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return None
    numbers = [*shape, *only["data_offsets"]]
    plain = found.keys() == {ALONE} and only.keys() == {"dtype", "shape", "data_offsets"}
    if not plain or not all(type(each) is int and 0 <= each < 1 << 40 for each in numbers) or not size:
        return None
    wanted = math.prod(shape) * dtype.itemsize
    return (dtype, shape, size) if only["data_offsets"] == [0, wanted] else None


UNREAD: dict[str, Callable[[Data, bool], Any]] = {"npy": npy, "safetensors": safetensors}
"""The formats whose arrays may stay in the bytes that they were found in."""
