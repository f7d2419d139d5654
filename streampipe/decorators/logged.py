"""``@logged``: every call in the log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any, overload

from streampipe.counters import counters
from streampipe.decorators.wrap import Effect, F, Open, Upstream, decorate, sample_of
from streampipe.locks import ProcessLock

log = logging.getLogger("streampipe")
_counting = ProcessLock()  # a function is called in the threads of a pool


@overload
def logged(target: F) -> F: ...
@overload
def logged(*, level: int = logging.INFO, every: int = 1, name: str | None = None) -> Callable[[F], F]: ...
def logged(target: Any = None, *, level: int = logging.INFO, every: int = 1, name: str | None = None) -> Any:
    """Log each call (or each ``every``-th) with its sample and duration to the logger ``streampipe``; errors always.

    A sample is shown by its key, other arguments shortened, bytes by their length. On a stage: each sample it gives.

    >>> @logged(level=logging.DEBUG)
    ... def double(x):
    ...     return 2 * x
    >>> double(4)
    8
    """
    return decorate(Logged(name, level, every), target)


@dataclass
class Logged(Effect):
    """The effect of ``logged``."""

    name: str | None
    level: int
    every: int
    calls: int = 0

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One call."""
        shown = ", ".join([show(each) for each in args] + [f"{name}={show(each)}" for name, each in kwargs.items()])
        start = perf_counter()
        try:
            result = function(*args, **kwargs)
        except Exception as error:
            counters.add(self.name or "?", "errors")
            log.error("%s(%s) raised %s: %s", self.name, shown, type(error).__name__, error)
            raise
        self._log("%s(%s) gave %s in %.1f ms", self.name, shown, show(result), 1e3 * (perf_counter() - start))
        return result

    def iterate(self, start: Open, samples: Upstream) -> Iterator[Any]:
        """One stream."""
        try:
            for item in start(samples):
                self._log("%s gave %s", self.name, show(item))
                yield item
        except Exception as error:
            if not samples.caused(error):
                counters.add(self.name or "?", "errors")
                log.error("%s raised %s after %s: %s", self.name, type(error).__name__, show(samples.last), error)
            raise

    def _log(self, text: str, *values: Any) -> None:
        with _counting:
            number, self.calls = self.calls, self.calls + 1
        if number % self.every == 0:
            log.log(self.level, text, *values)


def show(value: Any) -> str:
    """A value in a few words: a sample by its key, bytes by their length, a tensor by its shape."""
    sample = sample_of((value,))
    if sample is not None:
        return f"sample {sample['__key__']!r}" if isinstance(sample["__key__"], str) else "batch"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"{len(value)} bytes"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{type(value).__name__}{tuple(value.shape)}"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
