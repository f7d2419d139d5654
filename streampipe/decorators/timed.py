"""``@timed``: how often something ran and how long it took."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any, overload

from streampipe.counters import counters
from streampipe.decorators.wrap import Effect, F, Open, Upstream, decorate


@overload
def timed(target: F) -> F: ...
@overload
def timed(*, name: str | None = None, step: bool = False) -> Callable[[F], F]: ...
def timed(target: Any = None, *, name: str | None = None, step: bool = False) -> Any:
    """Count the calls of a function and the time they take, for ``pipe.report()``.

    On a stage: the samples that came out, and the time spent in the stage itself, without the time it waited for the
    samples. ``step=True`` marks the training step: the report sets it against the time spent waiting for data.

    >>> @timed
    ... def double(x):
    ...     return 2 * x
    >>> double(4), double.__name__
    (8, 'double')
    """
    return decorate(Timed(name, step), target)


@dataclass
class Timed(Effect):
    """The effect of ``timed``."""

    name: str | None
    step: bool

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One call, counted whether it returns or raises."""
        start = perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            self._count(perf_counter() - start)

    def iterate(self, start: Open, samples: Upstream) -> Iterator[Any]:
        """One stream, counted item by item."""
        samples.clock = perf_counter
        items = start(samples)
        while True:
            began, waited = perf_counter(), samples.seconds
            try:
                item = next(items)
            except StopIteration:
                return
            self._count(perf_counter() - began - (samples.seconds - waited))
            yield item

    def _count(self, seconds: float) -> None:
        name = self.name or "?"
        counters.add(name, "calls")
        counters.add(name, "seconds", seconds)
        if self.step:
            counters.add(name, "step seconds", seconds)
