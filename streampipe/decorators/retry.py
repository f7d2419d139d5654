"""``@retry``: once more, a little later."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, overload

from streampipe.backoff import pause
from streampipe.counters import counters
from streampipe.decorators.wrap import NO_SAMPLE, Effect, F, Open, Upstream, decorate
from streampipe.errors import ConfigError
from streampipe.kinds import checked

Errors = tuple[type[Exception], ...]


@overload
def retry(target: F) -> F: ...
@overload
def retry(
    *,
    tries: int = 3,
    errors: type[Exception] | Errors = (OSError,),
    first_wait: float = 0.1,
    factor: float = 2.0,
    longest_wait: float = 30.0,
    sleep: Callable[[float], object] = time.sleep,
    name: str | None = None,
) -> Callable[[F], F]: ...
@checked
def retry(
    target: Any = None,
    *,
    tries: int = 3,
    errors: type[Exception] | Errors = (OSError,),
    first_wait: float = 0.1,
    factor: float = 2.0,
    longest_wait: float = 30.0,
    sleep: Callable[[float], object] = time.sleep,
    name: str | None = None,
) -> Any:
    """Call again after an error of ``errors``, up to ``tries`` calls in all; then the last error is raised.

    Before the n-th retry it waits a random time up to ``first_wait * factor**(n-1)`` seconds, at most ``longest_wait``
    ("full jitter": clients that failed together do not come back together). On a stage, the sample that failed is given
    to a fresh generator of the stage once more: for stages that hold no samples between.

    >>> attempts = iter([OSError("busy"), 7])
    >>> @retry(first_wait=0)
    ... def fetch():
    ...     result = next(attempts)
    ...     if isinstance(result, Exception):
    ...         raise result
    ...     return result
    >>> fetch()
    7
    """
    if tries < 1 or first_wait < 0 or factor < 1 or longest_wait < 0:
        raise ConfigError(
            f"retry takes tries of 1 or more, waits of 0 or more and a factor of 1 or more, not tries={tries}, "
            f"first_wait={first_wait}, longest_wait={longest_wait}, factor={factor}"
        )
    kinds = errors if isinstance(errors, tuple) else (errors,)
    return decorate(Retry(name, tries, kinds, first_wait, factor, longest_wait, sleep), target)


@dataclass
class Retry(Effect):
    """The effect of ``retry``."""

    name: str | None
    tries: int
    errors: Errors
    first_wait: float
    factor: float
    longest_wait: float
    sleep: Callable[[float], object]

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One call, and its retries."""
        tried = 0
        while True:
            try:
                return function(*args, **kwargs)
            except self.errors as error:
                tried += 1
                self._pause(tried, error)

    def iterate(self, start: Open, samples: Upstream) -> Iterator[Any]:
        """One stream; each sample has its own tries."""
        tried, before = 0, NO_SAMPLE
        while True:
            try:
                for item in start(samples):
                    tried, before = 0, NO_SAMPLE
                    samples.answered()
                    yield item
                return
            except self.errors as error:
                if samples.caused(error):
                    raise
                failed = samples.failed(error)
                if failed is NO_SAMPLE:  # at its end: there is nothing to try again
                    raise
                tried = tried + 1 if failed is before else 1
                before = failed
                self._pause(tried, error)
                samples.push_back(failed)

    def _pause(self, tried: int, error: Exception) -> None:
        """Wait before the next try, or raise the error if there is none left."""
        name = self.name or "?"
        if tried >= self.tries or isinstance(error, StopIteration):
            counters.add(name, "gave up")
            if sys.version_info >= (3, 11):
                error.add_note(
                    f"{name} was tried {tried} times; raise tries= or first_wait= if the cause goes away by itself"
                )
            raise error
        counters.add(name, "retries")
        self.sleep(pause(tried, self.first_wait, self.longest_wait, self.factor))
