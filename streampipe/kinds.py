"""Options of a wrong kind: refused where they are given, by what the signature says of them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from numbers import Real
from os import PathLike
from typing import Any, TypeVar, cast

from streampipe.errors import ConfigError
from streampipe.spelling import spelt

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=type)


def _is_whole(value: object) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)  # numpy's numbers too


_KINDS: dict[str, tuple[str, Callable[[object], bool]]] = {
    "bool": ("True or False", lambda value: isinstance(value, bool)),
    "int": ("a whole number", _is_whole),
    "float": ("a number", lambda value: isinstance(value, Real) and not isinstance(value, bool)),
    "str": ("a text", lambda value: isinstance(value, str)),
    "PathLike[str]": ("a path", lambda value: isinstance(value, PathLike)),
    "os.PathLike[str]": ("a path", lambda value: isinstance(value, PathLike)),
    "None": ("None", lambda value: value is None),
}
"""By the words of an annotation: what it is called, and whether a value is one. Other annotations are not judged."""


def checked(function: F, name: str | None = None) -> F:
    """The function, ``spelt``; what is given for a number, a text, a path or a flag and is none is a ``ConfigError``.

    >>> @checked
    ... def cut(image, edge: int | None = None, *, margin: float = 0.5):
    ...     return edge
    >>> cut(None, "512")
    Traceback (most recent call last):
        ...
    streampipe.errors.ConfigError: cut: edge is a whole number or None, not '512'
    """
    signature = inspect.signature(function)
    judged = {each.name: _words(each) for each in signature.parameters.values()}
    judged = {key: words for key, words in judged.items() if words}

    @functools.wraps(function)
    def judge(*args: Any, **options: Any) -> Any:
        for key, value in signature.bind(*args, **options).arguments.items():
            words = judged.get(key)
            if words and not any(_KINDS[word][1](value) for word in words):
                said = " or ".join(_KINDS[word][0] for word in words)
                raise ConfigError(f"{name or function.__name__}: {key} is {said}, not {value!r:.80}")
        return function(*args, **options)

    return spelt(cast("F", judge), name)


def checked_class(made: C) -> C:
    """The class, whose constructor is ``checked``."""
    made.__init__ = checked(made.__init__, made.__name__)  # type: ignore[misc]
    return made


def _words(parameter: inspect.Parameter) -> tuple[str, ...]:
    """The words of a parameter's annotation, if all of them are known here."""
    if not isinstance(parameter.annotation, str) or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        return ()
    words = tuple(part.strip() for part in parameter.annotation.split("|"))
    return words if all(word in _KINDS for word in words) else ()
