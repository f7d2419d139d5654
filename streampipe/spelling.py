"""Names of options that somebody misspelt, or that are called otherwise now: what was meant, to end a message with."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any, TypeVar, cast

from streampipe.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])

RENAMED = {
    ("batch", "drop_last"): "tail='drop'",
    ("bucket", "leftover"): "tail=",
    ("bucket", "spec"): "buckets=",
    ("retry", "wait"): "first_wait=",
    ("retry", "max_wait"): "longest_wait=",
}
"""Options by the names that they had, and what is written now."""


def meant(owner: str, given: Iterable[str], known: Iterable[str]) -> str:
    """For the first given name that is not known: what it is called now, or the known name that it resembles.

    >>> meant("decode", ["cropp"], ["size", "crop"]), meant("batch", ["drop_last"], ["size", "tail"])
    ('; did you mean crop=?', "; it is tail='drop' now")
    """
    known = list(known)
    for name in given:
        if name not in known:
            if (owner, name) in RENAMED:
                return f"; it is {RENAMED[owner, name]} now"
            close = get_close_matches(name, known, 1)
            return f"; did you mean {close[0]}=?" if close else ""
    return ""


def spelt(function: F) -> F:
    """The function; options that it does not have, or lacks, are a ``ConfigError`` that says what was meant.

    >>> @spelt
    ... def cut(image, *, crop="center"):
    ...     return crop
    >>> cut(None, crops="random")
    Traceback (most recent call last):
        ...
    streampipe.errors.ConfigError: cut: got an unexpected keyword argument 'crops'; did you mean crop=?
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checked(*args: Any, **options: Any) -> Any:
        try:
            signature.bind(*args, **options)
        except TypeError as error:
            name = function.__name__
            raise ConfigError(f"{name}: {error}{meant(name, options, signature.parameters)}") from None
        return function(*args, **options)

    return cast("F", checked)
