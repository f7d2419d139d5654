"""What a pipeline does, in words: two that read alike write the same shards."""

from __future__ import annotations

import functools
import hashlib
import re
import types
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from streampipe.decorators.wrap import WrappedFunction, WrappedGenerator
from streampipe.stages.stage import Stage, StageDefinition


def describe(value: Any) -> str:
    """A stage, function, module or parameter, by what it does: names, code, parameters and weights; no addresses.

    Of a function, its own code counts, with its defaults and what it closes over; not the code that it calls.

    >>> from streampipe import stages
    >>> describe(stages.take(n=3))
    'take(n=3)'
    >>> describe(len), describe({"a": [1, "x"]}), describe(np.arange(3))
    ('builtins.len', "{'a': [1, 'x']}", 'int64 (3,) 4f8c5ccc')
    """
    if id(value) in _inside:
        return "itself"
    _inside.append(id(value))
    try:
        own = getattr(value, "fingerprint", None)
        if callable(own) and not isinstance(value, type):
            return describe(own())
        for kind, words in _WORDS:
            if isinstance(value, kind):
                return str(words(value))
        if getattr(type(value), "__repr__", None) is object.__repr__:
            return f"{_name(type(value))}({describe(vars(value)) if hasattr(value, '__dict__') else ''})"
        return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
    finally:
        _inside.pop()


_inside: list[int] = []
"""What is being described: things may hold themselves."""


def _stage(stage: Stage) -> str:
    shown = ", ".join(f"{name}={describe(value)}" for name, value in stage.parameters.items())
    return f"{describe(stage.define)}({shown})"


def _function(function: types.FunctionType) -> str:
    module = function.__module__ or ""  # code that was run by exec may have none
    if module.partition(".")[0] == __name__.partition(".")[0]:
        return function.__qualname__  # the library's own code may get better, and shards that are there go on
    parts = [_name(function), _code(function.__code__)]
    parts += [describe(each) for each in function.__defaults__ or ()]
    parts += [f"{name}={describe(each)}" for name, each in (function.__kwdefaults__ or {}).items()]
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            inner = cell.cell_contents
        except ValueError:  # not filled yet
            continue
        parts.append(f"{name}={describe(inner)}")
    return " ".join(parts)


def _code(code: types.CodeType) -> str:
    text = f"{code.co_code!r} {code.co_names} {[_constant(each) for each in code.co_consts]}"
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=4).hexdigest()


def _constant(value: Any) -> str:
    if isinstance(value, types.CodeType):
        return _code(value)
    if isinstance(value, (tuple, frozenset)):  # a set's order is another one in every process
        items = [_constant(each) for each in value]
        return repr(items if isinstance(value, tuple) else sorted(items))
    return repr(value)


def _name(thing: Any) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"


def _tensor(tensor: torch.Tensor) -> str:
    plain = tensor.detach().cpu().contiguous()
    raw = plain.reshape(-1).view(torch.uint8).numpy() if plain.numel() else np.empty(0, np.uint8)
    return f"{plain.dtype} {tuple(plain.shape)} {_crc32(raw)}"


def _array(array: Any) -> str:
    return f"{array.dtype} {array.shape} {_crc32(array)}"


def _crc32(array: Any) -> str:
    return f"{zlib.crc32(np.ascontiguousarray(array).tobytes()):08x}"


def _module(module: Any) -> str:
    program = isinstance(module, torch.export.ExportedProgram)
    crc = zlib.crc32(str(module.graph if program else module).encode())
    for name, tensor in (module.state_dict if program else module.state_dict()).items():
        crc = zlib.crc32(f"{name} {describe(tensor)}".encode(), crc)
    return f"{_name(type(module))} {crc:08x}"


def _wrapped(wrapped: Any) -> str:
    """A decorated function: what the decorator says of itself, else its name; not what it counted or kept."""
    effect = wrapped.effect
    shown = describe(effect) if hasattr(effect, "fingerprint") else type(effect).__name__.lower()
    return f"{shown} {describe(wrapped.target)}"


def _partial(call: functools.partial[Any]) -> str:
    parts = [*map(describe, call.args), *(f"{name}={describe(each)}" for name, each in call.keywords.items())]
    return f"{describe(call.func)}({', '.join(parts)})"


def _mapping(mapping: Mapping[Any, Any]) -> str:
    return "{" + ", ".join(f"{describe(name)}: {describe(each)}" for name, each in mapping.items()) + "}"


def _sequence(items: Any) -> str:
    shown = ", ".join(map(describe, items))
    return f"[{shown}]" if isinstance(items, list) else f"({shown})"


_WORDS: list[tuple[Any, Any]] = [
    (Stage, _stage),
    (StageDefinition, lambda define: describe(define.function)),
    ((WrappedFunction, WrappedGenerator), _wrapped),
    ((torch.nn.Module, torch.export.ExportedProgram), _module),
    (str, repr),
    ((bytes, bytearray, memoryview), lambda data: f"{len(data)} bytes {zlib.crc32(data):08x}"),
    (torch.dtype, str),
    (torch.Tensor, _tensor),
    ((np.ndarray, np.generic), _array),
    (functools.partial, _partial),
    (types.FunctionType, _function),
    (types.MethodType, lambda method: f"{describe(method.__self__)}.{method.__name__}"),
    ((type, types.BuiltinFunctionType), _name),
    (types.ModuleType, lambda module: module.__name__),
    (Mapping, _mapping),
    ((list, tuple), _sequence),
    ((set, frozenset), lambda items: f"{{{', '.join(sorted(map(describe, items)))}}}"),
]
