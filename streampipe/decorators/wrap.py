"""What the decorators have in common: one effect, applied to a function, a generator function or a stage.

An effect says what happens around one call (``call``) and around one stream (``iterate``). ``decorate`` wraps it around
whatever it is given, so that the result is of the same kind, keeps its name and docstring, and can be pickled: by name
where it is the object that its module holds under that name, else as wrapper plus what it wraps.
"""

from __future__ import annotations

import copy
import functools
import inspect
import traceback
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar, cast

from streampipe.context import Mark, OfPass, Run, Trail, within
from streampipe.errors import ConfigError
from streampipe.stages.stage import Stage, StageDefinition, importable, traits_of
from streampipe.traits import Rows, Traits

F = TypeVar("F")
Open = Callable[[Iterable[Any]], Iterator[Any]]
"""Starts a stage over an iterable."""


class Effect:
    """What a decorator does. It is picklable; ``name`` is set when it is applied."""

    name: str | None
    one_by_one = False
    """Whether a stage is started for each sample; it must not mind if none comes out, as behind a resume."""

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One call of a function."""
        raise NotImplementedError

    def iterate(self, start: Open, samples: Upstream) -> Iterator[Any]:
        """One stream of a stage."""
        raise NotImplementedError

    def within(self, run: Run) -> Effect:
        """The same for a function that is called in a pass."""
        return self

    def handles(self, error: Exception) -> bool:
        """Whether an error of a stage's sample must come here, though the pipeline's policy would skip the sample."""
        return False

    def check(self, traits: Traits) -> None:
        """Refuse a stage that this cannot go around."""


def decorate(effect: Effect, target: Any) -> Any:
    """``target`` with the effect around it; a decorator if there is no target yet.

    A stage keeps its traits, check and signature, so that it has the same place in every chain.
    """
    if target is None:
        return functools.partial(decorate, effect)
    if isinstance(target, Stage):
        return Stage(decorate(effect, target.define), target.parameters)
    if not callable(target):
        raise ConfigError(
            f"a decorator goes on a function or a stage, not on a {type(target).__name__}: {target!r:.80}"
        )
    effect = copy.copy(effect)  # each thing that is decorated has a name, and counts, of its own
    effect.name = effect.name or _name_of(target)
    if isinstance(target, StageDefinition):
        effect.check(target.traits)
        return StageDefinition(WrappedGenerator(effect, target), target.traits, target.check)
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


class WrappedFunction(_Wrapper, OfPass):
    """A plain function with an effect around each call."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.effect.call(self.target, args, kwargs)

    def within(self, run: Run) -> WrappedFunction:
        """The same, called in a pass."""
        return WrappedFunction(self.effect.within(run), within(self.target, run))


class WrappedGenerator(_Wrapper):
    """A generator function, or a stage's, with an effect around the stream that it makes."""

    def __init__(self, effect: Effect, target: Callable[..., Any]) -> None:
        super().__init__(effect, target)
        is_stage = isinstance(target, StageDefinition)
        self._function: Callable[..., Any] = target.function if is_stage else target  # type: ignore[attr-defined]
        self._passes_run = target.wants_run if is_stage else _has_run(target)  # type: ignore[attr-defined]
        self._each = traits_of(target).rows is Rows.EACH
        self.wants_run = True  # to tell it what was left out

    def __call__(self, samples: Iterable[Any], *args: Any, run: Run | None = None, **kwargs: Any) -> Iterator[Any]:
        extra = {}
        if run is not None and self._passes_run:
            policy = run.policy.inside(self.effect.handles)
            extra = {"run": replace(run, policy=policy, resumed=run.resumed or self.effect.one_by_one)}
        upstream = Upstream(samples, run, self._each, kwargs)
        return self.effect.iterate(lambda source: iter(self._function(source, *args, **kwargs, **extra)), upstream)


def _has_run(function: Any) -> bool:
    return getattr(function, "wants_run", False) or "run" in inspect.signature(function).parameters


class Upstream:
    """The samples that a stage pulls, watched: the last one, the error if pulling raised, and the time it took.

    A stage that works ahead (in threads) fails on a sample that is not the last it pulled. One that yields one for each
    answers them in order, so the sample is known: the first that was not answered. The trail is then at its mark, also
    where samples are given again.
    """

    def __init__(self, samples: Iterable[Any], run: Run | None, each: bool, parameters: Mapping[str, Any]) -> None:
        self.parameters = parameters  # of the stage
        self.clock: Callable[[], float] | None = None
        self.last: Any = None
        self.error: BaseException | None = None
        self.ended = False
        self.seconds = 0.0
        self._samples = iter(samples)
        self.policy, self._trail = (run.policy, run.trail) if run else (Run().policy, Trail())
        self._mark: Mark = None  # behind the last one
        self._each = each
        self._waiting: deque[tuple[Any, Mark]] = deque()  # pulled, and not answered yet
        self._again: deque[tuple[Any, Mark]] = deque()
        self._left_out = self.policy.left_out  # as far as it was taken out of what waits

    def __iter__(self) -> Upstream:
        return self

    def __next__(self) -> Any:
        self._settle()
        if self._again:
            self.last, self._mark = self._again.popleft()
            self._trail.mark = self._mark
        else:
            self.last = self._pull()
            self._mark = self._trail.mark
        if self._each:
            self._waiting.append((self.last, self._mark))
        return self.last

    def _pull(self) -> Any:
        start = self.clock() if self.clock else 0.0
        try:
            return next(self._samples)
        except StopIteration:
            self.ended = True
            raise
        except BaseException as error:
            self.error = error
            raise
        finally:
            if self.clock:
                self.seconds += self.clock() - start

    @property
    def left_out(self) -> int:
        """How many samples the stage has left out, by the policy or on purpose."""
        return self.policy.left_out

    def answered(self) -> None:
        """The stage yielded an item."""
        self._settle()
        if self._waiting:
            _, self._trail.mark = self._waiting.popleft()

    def drop(self) -> None:
        """A sample is left out."""
        self.policy.dropped()
        self._left_out += 1

    def failed(self, error: Exception) -> Any:
        """The sample on which the stage failed; those that it pulled after that one are given again. ``NO_SAMPLE``: it
        failed at its end.

        What the failed stage held is let go: its threads end here, not in whatever thread collects garbage.
        """
        traceback.clear_frames(error.__traceback__)
        self._settle()
        if not self._each:
            return NO_SAMPLE if self.ended else self.last
        if not self._waiting:
            return NO_SAMPLE
        sample, self._mark = self._waiting.popleft()
        self._trail.mark = self._mark
        self._again.extendleft(reversed(self._waiting))
        self._waiting.clear()
        return sample

    def push_back(self, sample: Any) -> None:
        """Give a sample once more."""
        self._again.appendleft((sample, self._mark))

    def caused(self, error: BaseException) -> bool:
        """Whether an error came out of the source, through the stage, and not from the stage itself."""
        seen: BaseException | None = error
        while seen is not None:
            if seen is self.error:
                return True
            seen = seen.__cause__ or seen.__context__
        return False

    def _settle(self) -> None:
        """What was left out is answered."""
        while self._left_out < self.policy.left_out:
            self._left_out += 1
            if self._waiting:
                self._waiting.popleft()


NO_SAMPLE = object()


def sample_of(args: tuple[Any, ...]) -> Mapping[str, Any] | None:
    """The first argument that is a sample."""
    return next((each for each in args if isinstance(each, Mapping) and "__key__" in each), None)


def _name_of(target: Any) -> str:
    return str(getattr(target, "__qualname__", type(target).__name__)).rpartition("<locals>.")[2]
