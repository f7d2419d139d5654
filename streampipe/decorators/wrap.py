"""What the decorators have in common: one effect, applied to a function, a generator function or a stage.

An effect says what happens around one call (``call``) and around one stream (``iterate``). ``decorate`` wraps it around
whatever it is given, so that the result is of the same kind, keeps its name and docstring, and can be pickled: by name
where it is the object that its module holds under that name, else as wrapper plus what it wraps.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeVar, cast

from streampipe.errors import ConfigError
from streampipe.stages.stage import Stage, StageDefinition, importable

F = TypeVar("F")
Open = Callable[[Iterable[Any]], Iterator[Any]]
"""Starts a stage over an iterable."""


class Effect(Protocol):
    """What a decorator does. It is picklable; ``name`` is set when it is applied."""

    name: str | None

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any: ...
    def iterate(self, start: Open, samples: Iterable[Any]) -> Iterator[Any]: ...


def decorate(effect: Effect, target: Any) -> Any:
    """``target`` with the effect around it; a decorator if there is no target yet."""
    if target is None:
        return functools.partial(decorate, effect)
    if isinstance(target, Stage):
        return Stage(decorate(effect, target.define), target.parameters)
    if not callable(target):
        raise ConfigError(
            f"a decorator goes on a function or a stage, not on a {type(target).__name__}: {target!r:.80}"
        )
    if effect.name is None:
        effect.name = _name_of(target)
    if isinstance(target, StageDefinition):
        return StageDefinition(WrappedGenerator(effect, target), target.views)
    if inspect.isgeneratorfunction(inspect.unwrap(target)):
        return WrappedGenerator(effect, target)
    return WrappedFunction(effect, target)


class _Wrapper:
    """A callable that keeps the metadata of the one it wraps."""

    def __init__(self, effect: Effect, target: Callable[..., Any]) -> None:
        functools.update_wrapper(cast("Any", self), target)
        self.__name__: str = getattr(target, "__name__", type(target).__name__)
        self.__qualname__: str = getattr(target, "__qualname__", self.__name__)
        self.effect = effect
        self.target = target

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)  # type: ignore[arg-type]

    def __reduce__(self) -> Any:
        return self.__qualname__ if importable(self) else (type(self), (self.effect, self.target))

    def __repr__(self) -> str:
        return f"<{type(self.effect).__name__.lower()} {self.__qualname__}>"


class WrappedFunction(_Wrapper):
    """A plain function with an effect around each call."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.effect.call(self.target, args, kwargs)


class WrappedGenerator(_Wrapper):
    """A generator function, or a stage's, with an effect around the stream that it makes."""

    def __call__(self, samples: Iterable[Any], *args: Any, **kwargs: Any) -> Iterator[Any]:
        function = self.target.function if isinstance(self.target, StageDefinition) else self.target
        return self.effect.iterate(lambda source: iter(function(source, *args, **kwargs)), samples)


class Upstream:
    """The samples that a stage pulls, watched: the last one, the error if pulling raised, and the time it took."""

    def __init__(self, samples: Iterable[Any], clock: Callable[[], float] | None = None) -> None:
        self._samples = iter(samples)
        self._clock = clock
        self._again: list[Any] = []
        self.last: Any = None
        self.error: BaseException | None = None
        self.ended = False
        self.seconds = 0.0

    def __iter__(self) -> Upstream:
        return self

    def __next__(self) -> Any:
        if self._again:
            return self._again.pop()
        start = self._clock() if self._clock else 0.0
        try:
            self.last = next(self._samples)
        except StopIteration:
            self.ended = True
            raise
        except BaseException as error:
            self.error = error
            raise
        finally:
            if self._clock:
                self.seconds += self._clock() - start
        return self.last

    def push_back(self) -> None:
        """Give the last sample out once more."""
        self._again.append(self.last)

    def caused(self, error: BaseException) -> bool:
        """Whether an error came out of the source, through the stage, and not from the stage itself."""
        seen: BaseException | None = error
        while seen is not None:
            if seen is self.error:
                return True
            seen = seen.__cause__ or seen.__context__
        return False


def sample_of(args: tuple[Any, ...]) -> Mapping[str, Any] | None:
    """The first argument that is a sample."""
    return next((each for each in args if isinstance(each, Mapping) and "__key__" in each), None)


def _name_of(target: Any) -> str:
    return str(getattr(target, "__qualname__", type(target).__name__)).rpartition("<locals>.")[2]
