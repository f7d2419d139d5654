"""``@stage``: a generator function with parameters becomes a stage."""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, overload

from streampipe.context import Run
from streampipe.errors import ConfigError
from streampipe.index.beside import Beside


class Stage:
    """A generator function with all its parameters but the first bound: call it on any iterable.

    It holds nothing but the function and the parameters, so it can be pickled when they can.
    """

    def __init__(self, define: StageDefinition, parameters: Mapping[str, Any]) -> None:
        self.define = define
        self.parameters = dict(parameters)
        fn = self.parameters.get("fn")
        self.name: str = define.__name__
        self.label = self.name if fn is None else f"{self.name}({getattr(fn, '__name__', type(fn).__name__)})"

    def __call__(self, samples: Iterable[Any], run: Run | None = None) -> Iterator[Any]:
        extra = {"run": run or Run(stage=self.label)} if self.define.wants_run else {}
        return self.define.function(samples, **self.parameters, **extra)

    def __repr__(self) -> str:
        given = {name: value for name, value in self.parameters.items() if not isinstance(value, Beside)}
        shown = ", ".join(f"{name}={_show(value)}" for name, value in given.items())
        return f"{self.name}({shown})"


class StageDefinition:
    """What ``@stage`` makes of a generator function. With parameters alone it gives a ``Stage``; with an iterable first
    it is the plain generator function that it was.
    """

    def __init__(
        self, function: Callable[..., Iterator[Any]], views: bool = False, check: Callable[..., Any] | None = None
    ) -> None:
        functools.update_wrapper(self, function)
        self.views = views
        self.check = check
        self.__name__: str
        self.__qualname__: str
        self.function = function
        signature = inspect.signature(function)
        parameters = list(signature.parameters.values())
        if not parameters:
            raise ConfigError(f"stage {function.__qualname__} needs a first parameter: the samples")
        self.wants_run = any(parameter.name == "run" for parameter in parameters[1:])
        self.signature = signature.replace(parameters=[each for each in parameters if each.name != "run"])

    def __call__(self, *samples: Iterable[Any], **parameters: Any) -> Any:
        if len(samples) > 1 or (samples and not isinstance(samples[0], Iterable)):
            raise ConfigError(
                f"stage {self.__name__} takes its parameters by name, as in {self.__name__}("
                f"{', '.join(f'{name}=...' for name in list(self.signature.parameters)[1:])})"
            )
        try:
            self.signature.bind(*(samples or (None,)), **parameters)
        except TypeError as error:
            raise ConfigError(f"stage {self.__name__}{self.signature}: {error}") from None
        if self.check is not None:
            self.check(**parameters)
        bound = Stage(self, parameters)
        return bound(samples[0]) if samples else bound

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __reduce__(self) -> Any:
        # By name where that finds this object: the function itself can no longer be found under its name.
        return self.__qualname__ if importable(self) else (StageDefinition, (self.function, self.views, self.check))

    def __repr__(self) -> str:
        return f"<stage {self.__name__}{self.signature}>"


@overload
def stage(
    function: Callable[..., Iterator[Any]], *, views: bool = False, check: Callable[..., Any] | None = None
) -> StageDefinition: ...
@overload
def stage(
    *, views: bool = False, check: Callable[..., Any] | None = None
) -> Callable[[Callable[..., Iterator[Any]]], StageDefinition]: ...
def stage(
    function: Callable[..., Iterator[Any]] | None = None,
    *,
    views: bool = False,
    check: Callable[..., Any] | None = None,
) -> Any:
    """Turn a generator function into a stage: its first parameter is the samples, the others are the stage's own.

    A parameter named ``run`` is filled in by the pipeline with a ``Run`` (seed, consumer, ``run.rng(sample)``).
    ``views=True`` says that the stage never looks into fields, or can use memoryviews: it is then given fields that
    were not copied out of the shard yet, where these would be bytes otherwise. ``check`` is called with the parameters
    when the stage is made, and raises where they make no sense: then, not at the first sample.

    >>> @stage
    ... def repeat(samples, times: int = 2):
    ...     for sample in samples:
    ...         for _ in range(times):
    ...             yield sample
    >>> repeat(times=3)
    repeat(times=3)
    >>> list(repeat(times=3)("ab"))
    ['a', 'a', 'a', 'b', 'b', 'b']
    >>> list(repeat("ab"))
    ['a', 'a', 'b', 'b']
    """
    if function is None:
        return functools.partial(StageDefinition, views=views, check=check)
    return StageDefinition(function, views, check)


def is_stage(stage: Any, name: str) -> bool:
    """Whether a stage is the library's own of that name."""
    return isinstance(stage, Stage) and stage.define.__module__ == f"streampipe.stages.{name}"


def importable(thing: Any) -> bool:
    """Whether a thing is what its module holds under its name, so that it can be pickled by that name."""
    found: Any = sys.modules.get(thing.__module__)
    for part in thing.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is thing


def _show(value: Any) -> str:
    if callable(value):
        return getattr(value, "__name__", None) or repr(value)
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
