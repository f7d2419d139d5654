"""``@stage``: a generator function with parameters becomes a stage."""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from streampipe.context import Run
from streampipe.errors import ConfigError, StreampipeError
from streampipe.index.beside import Beside
from streampipe.spelling import meant
from streampipe.traits import Fields, Keeps, Pushdown, Rows, Takes, Traits

P = ParamSpec("P")
E = TypeVar("E", bound=Enum)


class Stage:
    """A generator function with all its parameters but the first bound: call it on any iterable.

    It holds nothing but the function and the parameters, so it can be pickled when they can. ``parameters`` are those
    that were given, ``options`` all of them, with the defaults filled in.
    """

    def __init__(self, define: StageDefinition[...], parameters: Mapping[str, Any]) -> None:
        self.define = define
        self.parameters = dict(parameters)
        self.options = {**define.defaults, **parameters}
        fn = self.parameters.get("fn")
        self.name: str = define.__name__
        self.label = self.name if fn is None else f"{self.name}({getattr(fn, '__name__', type(fn).__name__)})"

    @property
    def traits(self) -> Traits:
        """What the stage is."""
        return self.define.traits

    def __call__(self, samples: Iterable[Any], run: Run | None = None) -> Iterator[Any]:
        extra = {"run": run or Run(stage=self.label)} if self.define.wants_run else {}
        return self.define.function(samples, **self.parameters, **extra)

    def __repr__(self) -> str:
        given = {name: value for name, value in self.parameters.items() if not isinstance(value, Beside)}
        shown = ", ".join(f"{name}={_show(value)}" for name, value in given.items())
        return f"{self.name}({shown})"


class StageDefinition(Generic[P]):
    """What ``@stage`` makes of a generator function. With parameters alone it gives a ``Stage``; with an iterable first
    it is the plain generator function that it was.
    """

    def __init__(
        self, function: Callable[..., Iterator[Any]], traits: Traits, check: Callable[..., object] | None = None
    ) -> None:
        functools.update_wrapper(self, function)
        self.traits = traits
        self.check = check
        self.__name__: str
        self.__qualname__: str
        self.function = function
        signature = inspect.signature(function)
        parameters = list(signature.parameters.values())
        if not parameters:
            raise ConfigError(f"stage {function.__qualname__} needs a first parameter: the samples")
        named = any(parameter.name == "run" for parameter in parameters[1:])
        self.wants_run = named or getattr(function, "wants_run", False)  # a decorator wants it for itself
        self.signature = signature.replace(parameters=[each for each in parameters if each.name != "run"])
        empty = inspect.Parameter.empty
        own = list(self.signature.parameters.values())[1:]
        self.defaults = {each.name: each.default for each in own if each.default is not empty}

    @overload
    def __call__(self, samples: Iterable[Any], /, *args: P.args, **parameters: P.kwargs) -> Iterator[Any]: ...
    @overload
    def __call__(self, *args: P.args, **parameters: P.kwargs) -> Stage: ...
    def __call__(self, /, *samples: Any, **parameters: Any) -> Any:  # type: ignore[misc]  # P's positions are names here
        if len(samples) > 1 or (samples and not isinstance(samples[0], Iterable)):
            raise ConfigError(
                f"stage {self.__name__} takes its parameters by name, as in {self.__name__}("
                f"{', '.join(f'{name}=...' for name in list(self.signature.parameters)[1:])})"
            )
        try:
            self.signature.bind(*(samples or (None,)), **parameters)
        except TypeError as error:
            hint = meant(self.__name__, parameters, self.signature.parameters)
            raise ConfigError(f"stage {self.__name__}{self.signature}: {error}{hint}") from None
        bound = Stage(self, parameters)
        if self.check is not None:
            self._checked(bound.options)
        return bound(samples[0]) if samples else bound

    def _checked(self, options: Mapping[str, Any]) -> None:
        assert self.check is not None
        try:
            self.check(**options)
        except StreampipeError:
            raise
        except (TypeError, ValueError, AttributeError) as error:  # of a kind that the check never thought of
            raise ConfigError(
                f"stage {self.__name__}: an option is of a wrong kind ({error}); see its help()"
            ) from error

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __reduce__(self) -> Any:
        # By name where that finds this object: the function itself can no longer be found under its name.
        return self.__qualname__ if importable(self) else (StageDefinition, (self.function, self.traits, self.check))

    def __repr__(self) -> str:
        return f"<stage {self.__name__}{self.signature}>"


Generate = Callable[Concatenate[Any, P], Iterator[Any]]


@overload
def stage(function: Generate[P], /) -> StageDefinition[P]: ...
@overload
def stage(
    *,
    rows: str | Rows = Rows.ANY,
    state: str | Keeps = Keeps.OPAQUE,
    takes: str | Takes = Takes.ANY,
    views: bool = False,
    check: Callable[..., object] | None = None,
    bytes_out: bool = False,
    pushdown: Callable[[Mapping[str, Any]], Pushdown | None] | None = None,
    own_size: Callable[[Mapping[str, Any]], Any] | None = None,
    fields: Sequence[str] | Callable[[Mapping[str, Any]], Fields | None] | None = None,
) -> Callable[[Generate[P]], StageDefinition[P]]: ...
def stage(
    function: Callable[..., Iterator[Any]] | None = None,
    /,
    *,
    rows: str | Rows = Rows.ANY,
    state: str | Keeps = Keeps.OPAQUE,
    takes: str | Takes = Takes.ANY,
    views: bool = False,
    check: Callable[..., object] | None = None,
    bytes_out: bool = False,
    pushdown: Callable[[Mapping[str, Any]], Pushdown | None] | None = None,
    own_size: Callable[[Mapping[str, Any]], Any] | None = None,
    fields: Sequence[str] | Callable[[Mapping[str, Any]], Fields | None] | None = None,
) -> Any:
    """Turn a generator function into a stage: its first parameter is the samples, the others are the stage's own.

    A parameter named ``run`` is filled in by the pipeline with a ``Run`` (seed, consumer, ``run.rng(sample)``). Give it
    a default (``run: sp.Run = sp.Run()``), so that type checkers don't ask for it.

    Args:
        rows: what the stage yields for what it is given: ``"each"`` (one for each, in order), ``"fewer"`` (a filter),
            ``"batch"`` (several become one), ``"split"`` (one becomes several), or ``"any"``. A pipeline of stages with
            ``"each"`` in front of ``batch`` stays planned: the stage is then started anew for every batch. The promise
            is checked while it runs; a sample that is left out on purpose is told of by ``run.drop()``.
        state: what the stage keeps between the samples that it yields: ``"nothing"``, ``"offset"`` (numbers, which it
            puts in front of ``run.trail.mark`` and finds in ``run.at`` on a resume), or ``"opaque"``: on a resume its
            stream is replayed from the beginning of the epoch. So it is with ``"nothing"`` where one becomes several.
        takes: ``"samples"`` or ``"batches"`` where it makes sense for one of them only: in another place of a chain the
            pipeline then refuses it; ``"any"``.
        views: the stage never looks into fields, or can use memoryviews: it is then given fields that were not
            copied out of the shard yet, where these would be bytes otherwise.
        check: called with all parameters by name, defaults filled in, when the stage is made; it raises where they make
            no sense: then, not at the first sample.
        fields: the names of the fields that the stage looks at, where it leaves all others as they are. If ``select``
            follows, a source of columns reads no others than these and those that are selected. None: it may look at
            any.
        bytes_out, pushdown, own_size: the library's own; see ``streampipe.traits.Traits``.

    >>> @stage(rows="split", state="nothing")
    ... def several(samples, times: int = 2):
    ...     for sample in samples:
    ...         for _ in range(times):
    ...             yield sample
    >>> several(times=3)
    several(times=3)
    >>> list(several(times=3)("ab"))
    ['a', 'a', 'a', 'b', 'b', 'b']
    >>> list(several("ab"))
    ['a', 'a', 'b', 'b']
    """
    traits = Traits(_member(Rows, "rows", rows), _member(Keeps, "state", state), views, bytes_out, pushdown, own_size)
    traits = replace(traits, takes=_member(Takes, "takes", takes), fields=_looking_at(fields))
    if traits.rows is Rows.SPLIT and traits.state is Keeps.NOTHING:
        traits = replace(traits, state=Keeps.OPAQUE)  # started anew behind the first of several, it would lose the rest
    if function is not None and not callable(function):
        raise ConfigError(f"stage goes on a generator function, not on {function!r:.80}")
    if function is None:
        return functools.partial(StageDefinition, traits=traits, check=check)
    return StageDefinition(function, traits, check)


def traits_of(stage: Any) -> Traits:
    """What a stage is; of any other function from an iterable to an iterable nothing is known."""
    return stage.traits if isinstance(stage, (Stage, StageDefinition)) else Traits()


def pushdown_of(stage: Any) -> Pushdown | None:
    """What the planner may decide instead of a stage, or None."""
    push = traits_of(stage).pushdown
    return None if push is None else push(stage.options)


def fields_of(stage: Any) -> Fields | None:
    """Which fields a stage looks at; None: any."""
    fields = traits_of(stage).fields
    return None if fields is None else fields(stage.options)


class _These:
    """The same fields whatever the options are."""

    def __init__(self, fields: Fields) -> None:
        self.fields = fields

    def __call__(self, options: Mapping[str, Any]) -> Fields:
        return self.fields


def _looking_at(
    fields: Sequence[str] | Callable[[Mapping[str, Any]], Fields | None] | None,
) -> Callable[[Mapping[str, Any]], Fields | None] | None:
    if fields is None or callable(fields):
        return fields
    if isinstance(fields, str) or not all(isinstance(name, str) for name in fields):
        raise ConfigError(f"stage: fields is a list of names, as in fields=['image'], not {fields!r}")
    return _These(Fields(tuple(fields)))


def importable(thing: Any) -> bool:
    """Whether a thing is what its module holds under its name, so that it can be pickled by that name."""
    found: Any = sys.modules.get(thing.__module__)
    for part in thing.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is thing


def _member(kind: type[E], name: str, value: str | E) -> E:
    try:
        return kind(value)
    except ValueError:
        allowed = ", ".join(repr(each.value) for each in kind)
        raise ConfigError(f"stage: {name} is one of {allowed}, not {value!r}") from None


def _show(value: Any) -> str:
    if callable(value):
        return getattr(value, "__name__", None) or repr(value)
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
