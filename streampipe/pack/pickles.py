"""Fields of other tools that are pickles, made into formats that cannot run code: once, where it was asked for.

No name that the data gives is imported or called, but those few that arrays and tensors are made of: torch's own
``weights_only`` for ``.pth`` and ``.pt``, an unpickler of plain values and numpy's arrays for ``.pkl`` and the like.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
import torch

from streampipe.errors import DecodeError, StageError
from streampipe.write.encode import encode_field

_TORCH = frozenset(("pth", "pt"))
_PICKLES = frozenset(("pkl", "pickle", "pyd"))
_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray", "numpy._core.numeric", "numpy.core.numeric", "numpy")
_NAMES = frozenset(("_reconstruct", "ndarray", "dtype", "_frombuffer"))


class _Plain(pickle.Unpickler):
    """Makes plain values and arrays, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if module in _MODULES and name in _NAMES:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it calls {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to objects that it does not hold")


def unpickled(fields: dict[str, bytes]) -> dict[str, bytes]:
    """The fields of a sample, pickles among them as ``npy``, ``safetensors``, ``txt`` or ``json``.

    Raises:
        DecodeError: one holds anything but plain values, arrays and tensors; it was not run.

    >>> unpickled({"a.pyd": pickle.dumps([1, "x"]), "txt": b"..."})
    {'a.json': b'[1, "x"]', 'txt': b'...'}
    """
    found: dict[str, bytes] = {}
    for name, data in fields.items():
        stem, _, kind = name.rpartition(".")
        new, value = name, data
        if kind in _TORCH | _PICKLES:
            try:
                new, value = encode_field(stem or "value", _value(kind, data))
            except (StageError, DecodeError) as error:
                raise DecodeError(f"field {name!r}: {error}") from error
        if new in found or (new != name and new in fields):
            raise DecodeError(f"field {name!r} would become {new!r}, which is there already")
        found[new] = value
    return found


def _value(kind: str, data: bytes) -> Any:
    try:
        if kind in _TORCH:
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        value = _Plain(io.BytesIO(data)).load()
    except Exception as error:  # UnpicklingError, EOFError, ValueError, RuntimeError, ...
        why = str(error).strip().partition("\n")[0]
        raise DecodeError(
            f"it holds more than plain values, arrays and tensors, or is damaged, and was not run ({why})"
        ) from error
    if isinstance(value, np.ndarray) and value.dtype.hasobject:
        raise DecodeError("it is an array of Python's objects")
    return value
