"""``@on_error``: what an error of a function or stage means for its sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, overload

from streampipe.counters import counters
from streampipe.decorators.skip import SKIP
from streampipe.decorators.wrap import NO_SAMPLE, Effect, F, Open, Upstream, decorate
from streampipe.errors import ConfigError, TooManyErrors

Errors = tuple[type[Exception], ...]
_PROBATION = 100  # calls before a share is judged


@overload
def on_error(
    action: str,
    *,
    value: Any = None,
    errors: type[Exception] | Errors = (Exception,),
    budget: int | float | None = None,
    name: str | None = None,
) -> Callable[[F], F]: ...
@overload
def on_error(action: F) -> F: ...
def on_error(
    action: Any = "skip",
    *,
    value: Any = None,
    errors: type[Exception] | Errors = (Exception,),
    budget: int | float | None = None,
    name: str | None = None,
) -> Any:
    """Handle errors of the kinds ``errors``: ``"skip"`` the sample, give a ``"default"`` ``value``, or ``"raise"``.

    Errors are counted by their type. With ``budget`` (a number, or a share below 1 judged from 100 calls on) more of
    them raise ``TooManyErrors``. A skipping function returns ``sp.SKIP``, for which ``map`` drops the sample. On a
    stage, the sample that it pulled last is dropped (or replaced by the value), and a fresh generator of the stage goes
    on with the rest; errors that come from before the stage pass through.

    >>> @on_error("default", value=0, errors=ValueError)
    ... def number(text):
    ...     return int(text)
    >>> number("7"), number("seven")
    (7, 0)
    """
    if callable(action):
        return decorate(OnError(name, "skip", None, (Exception,), None), action)
    if action not in ("skip", "default", "raise"):
        raise ConfigError(f"on_error does 'skip', 'default' or 'raise', not {action!r}")
    if budget is not None and (budget < 0 or (isinstance(budget, float) and budget >= 1)):
        raise ConfigError(f"budget is a number of errors (int) or a share below 1 (float), not {budget!r}")
    kinds = errors if isinstance(errors, tuple) else (errors,)
    return decorate(OnError(name, action, value, kinds, budget), None)


@dataclass
class OnError(Effect):
    """The effect of ``on_error``."""

    name: str | None
    action: str
    value: Any
    errors: Errors
    budget: int | float | None
    calls: int = 0
    failures: int = 0

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One call."""
        self.calls += 1
        try:
            return function(*args, **kwargs)
        except self.errors as error:
            return self._handled(error, args[0] if args else None)

    def iterate(self, start: Open, samples: Upstream) -> Iterator[Any]:
        """One stream."""
        while True:
            try:
                for item in start(samples):
                    self.calls += 1
                    samples.answered()
                    yield item
                return
            except self.errors as error:
                if samples.caused(error):
                    raise
                failed = samples.failed(error)
                if failed is NO_SAMPLE:  # at its end: there is nothing left to go on with
                    raise
                self.calls += 1
                instead = self._handled(error, failed)
            if instead is SKIP:
                samples.drop()
            else:
                yield instead

    def handles(self, error: Exception) -> bool:
        """Errors of these kinds, whatever the pipeline would do with them."""
        return isinstance(error, self.errors)

    def _handled(self, error: Exception, sample: Any) -> Any:
        """Count the error, and give what comes in place of a result; or raise."""
        name = self.name or "?"
        self.failures += 1
        if self.action == "raise":
            counters.add(name, "errors")
            raise error
        counters.add(name, f"{'skipped' if self.action == 'skip' else 'default'}: {type(error).__name__}")
        if self._over_budget():
            raise TooManyErrors(
                f"{name} failed {self.failures} times in {self.calls} calls, more than its budget of {self.budget} "
                f"allows; the last error was {type(error).__name__}: {error}"
            ) from error
        if self.action == "skip":
            return SKIP
        return self.value(sample) if callable(self.value) else self.value

    def _over_budget(self) -> bool:
        if isinstance(self.budget, float):
            return self.calls >= _PROBATION and self.failures > self.budget * self.calls
        return self.budget is not None and self.failures > self.budget
