"""Checks of a stage's parameters, when it is made: one sentence each, which names stage, parameter and value."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from numbers import Real
from types import FunctionType
from typing import Any

from streampipe.errors import ConfigError
from streampipe.spelling import similar

MISSING = ("error", "keep", "drop")
"""What may become of a sample that lacks what a stage wants of it: the same words wherever that can be."""
TAILS = ("short", "drop", "pad")
"""What may become of a last batch that is not full."""
LEFTOVERS = ("carry", "merge", "drop")
"""What may become of samples that fill no batch of their bucket."""
_FORMER = {("caption", "missing", "empty"): "keep"}
"""Values that were called otherwise, by stage and parameter: an error names today's."""


def check_number(stage: str, name: str, value: Any, least: int, optional: bool = False) -> None:
    """Refuse what is no whole number of at least ``least``.

    >>> check_number("take", "n", -1, 0)
    Traceback (most recent call last):
        ...
    streampipe.errors.ConfigError: take: n is a whole number, 0 or more, not -1
    """
    if optional and value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        none = ", or None" if optional else ""
        raise ConfigError(f"{stage}: {name} is a whole number, {least} or more{none}, not {value!r}")


def check_factor(stage: str, name: str, value: Any, what: str) -> None:
    """Refuse what is no number of 1 or more; True is none, though Python takes it for 1."""
    if isinstance(value, bool) or not isinstance(value, Real) or not float(value) >= 1:
        raise ConfigError(f"{stage}: {name} is {what}, not {value!r:.80}")


def check_flag(stage: str, name: str, value: Any) -> None:
    """Refuse what is neither True nor False."""
    if not isinstance(value, bool):
        raise ConfigError(f"{stage}: {name} is True or False, not {value!r}")


def check_choice(stage: str, name: str, value: Any, allowed: Collection[Any]) -> None:
    """Refuse what is not one of a few values.

    >>> check_choice("decode", "output", "torch", ("tensor", "numpy", "pil"))
    Traceback (most recent call last):
        ...
    streampipe.errors.ConfigError: decode: output is one of 'tensor', 'numpy', 'pil', not 'torch'
    """
    if not isinstance(value, (str, type(None))) or value not in allowed:
        if isinstance(value, str) and (stage, name, value) in _FORMER:
            value = f"{value!r}: say {_FORMER[stage, name, value]!r}"
            raise ConfigError(f"{stage}: {name} is one of {', '.join(map(repr, allowed))}, no longer {value}")
        near = similar(value, allowed)
        raise ConfigError(f"{stage}: {name} is one of {', '.join(map(repr, allowed))}, not {value!r}{near}")


def check_kind(stage: str, name: str, value: Any, kinds: type | tuple[type, ...], what: str) -> None:
    """Refuse what is of another kind, and not None.

    >>> check_kind("stream", "limits", 5, dict, "an sp.Limits")
    Traceback (most recent call last):
        ...
    streampipe.errors.ConfigError: stream: limits is an sp.Limits, or None, not 5
    """
    if value is not None and not isinstance(value, kinds):
        raise ConfigError(f"{stage}: {name} is {what}, or None, not {value!r:.80}")


def check_function(stage: str, name: str, value: Any, optional: bool = False, advice: str = "") -> None:
    """Refuse what cannot be called."""
    if not callable(value) and not (optional and value is None):
        raise ConfigError(f"{stage}: {name} is a function, not {value!r:.80}{advice}")


def check_functions(stage: str, name: str, value: Any, what: str, example: str) -> None:
    """Refuse what are no functions by name, and not None."""
    if value is None:
        return
    if not isinstance(value, Mapping) or not all(isinstance(key, str) and callable(fn) for key, fn in value.items()):
        raise ConfigError(f"{stage}: {name} are {what}, as in {{{example!r}: my_function}}, not {value!r:.80}")


def check_colour(stage: str, name: str, value: Any) -> None:
    """Refuse what is no (red, green, blue).

    >>> check_colour("decode", "background", "white")
    Traceback (most recent call last):
        ...
    streampipe.errors.ConfigError: decode: background is (red, green, blue), 0 to 255 each, as in ..., not 'white'
    """
    levels = value if isinstance(value, (tuple, list)) else ()
    if len(levels) != 3 or not all(isinstance(each, int) and 0 <= each <= 255 for each in levels):
        raise ConfigError(
            f"{stage}: {name} is (red, green, blue), 0 to 255 each, as in (255, 255, 255), not {value!r:.80}"
        )


def check_takes_one(stage: str, fn: Any, what: str) -> None:
    """Refuse a function that cannot be called with one value (and ``rng``, ``out`` where it asks for them).

    >>> check_takes_one("map", lambda a, b: a, "it")
    Traceback (most recent call last):
        ...
    streampipe.errors.ConfigError: map: <lambda> is given it, and cannot take it: missing a required argument: 'b'
    """
    if not isinstance(fn, FunctionType) or hasattr(fn, "__wrapped__"):  # of others the signature may say less
        return
    signature = inspect.signature(fn)
    filled = {name: None for name in ("rng", "out") if name in signature.parameters}
    try:
        signature.bind(None, **filled)
    except TypeError as error:
        raise ConfigError(f"{stage}: {fn.__name__} is given {what}, and cannot take it: {error}") from None


def check_names(stage: str, name: str, value: Any, optional: bool = False) -> None:
    """Refuse what is no tuple or list of names of fields: a lone text would be taken for its letters."""
    if optional and value is None:
        return
    if not isinstance(value, (tuple, list)) or not all(isinstance(each, str) and each for each in value):
        raise ConfigError(
            f"{stage}: {name} is a tuple of names of fields, not {value!r:.80}{_names_advice(stage, value)}"
        )


def _names_advice(stage: str, value: Any) -> str:
    """What was meant by names that are none."""
    first = value[0] if isinstance(value, (tuple, list)) and value else value
    if callable(first):
        return "; filter(fn) keeps the samples for which a function is true"
    if isinstance(first, (list, tuple)) and all(isinstance(each, str) for each in first):
        return f"; write {stage}({', '.join(map(repr, first))})"
    return ""
