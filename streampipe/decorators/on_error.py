"""``@on_error``: what an error of a function or stage means for its sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, overload

from streampipe.context import Run
from streampipe.counters import counters
from streampipe.decorators.skip import SKIP
from streampipe.decorators.wrap import NO_SAMPLE, Effect, F, Open, Upstream, decorate
from streampipe.errors import ConfigError
from streampipe.policy import Budget, ErrorPolicy

Errors = tuple[type[Exception], ...]


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
    them raise ``TooManyErrors``. In a pipeline that is a budget for each pass, and for all of its workers together, as
    the limits of ``sp.ErrorPolicy`` are; workers share what they counted when the pass ends.

    A skipping function returns ``sp.SKIP``, for which ``map`` drops the sample. On a stage, the sample that it pulled
    last is dropped (or replaced by the value), and a fresh generator of the stage goes on with the rest; errors that
    come from before the stage pass through.

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
    policy: ErrorPolicy | None = None
    """Of the pass, which counts what is spent; a function that is called outside of one has its own."""

    def within(self, run: Run) -> OnError:
        """The same, counted in a pass."""
        return self if self.budget is None else replace(self, policy=run.policy)

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One call."""
        if self.policy is None:
            self.policy = ErrorPolicy("skip")
        try:
            found = function(*args, **kwargs)
        except self.errors as error:
            return self._handled(error, args[0] if args else None, self.policy)
        if self.budget is not None:
            self.policy.handled_well(self._allowed)
        return found

    def iterate(self, start: Open, samples: Upstream) -> Iterator[Any]:
        """One stream."""
        while True:
            try:
                for item in start(samples):
                    if self.budget is not None:
                        samples.policy.handled_well(self._allowed)
                    samples.answered()
                    yield item
                return
            except self.errors as error:
                if samples.caused(error):
                    raise
                failed = samples.failed(error)
                if failed is NO_SAMPLE:  # at its end: there is nothing left to go on with
                    raise
                instead = self._handled(error, failed, samples.policy)
            if instead is SKIP:
                samples.drop()
            else:
                yield instead

    def handles(self, error: Exception) -> bool:
        """Errors of these kinds, whatever the pipeline would do with them."""
        return isinstance(error, self.errors)

    @property
    def _allowed(self) -> Budget:
        return Budget(self.name or "?", self.budget or 0)

    def _handled(self, error: Exception, sample: Any, policy: ErrorPolicy) -> Any:
        """Count the error, and give what comes in place of a result; or raise."""
        name = self.name or "?"
        if self.action == "raise":
            counters.add(name, "errors")
            raise error
        counters.add(name, f"{'skipped' if self.action == 'skip' else 'default'}: {type(error).__name__}")
        if self.budget is not None:
            policy.handled_error(error, self._allowed)
        if self.action == "skip":
            return SKIP
        return self.value(sample) if callable(self.value) else self.value
