"""The stages of a pipeline put one behind the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from streampipe import stages
from streampipe.context import Mark, Run, blame
from streampipe.errors import ConfigError, StreampipeError
from streampipe.shards import to_bytes
from streampipe.stages.fuse import fuse
from streampipe.stages.stage import Stage

AnyStage = Callable[[Iterable[Any]], Iterable[Any]]

_COUNT = ("shuffle", "take", "unbatch")
"""Stages that need numbers of their own to go on: they put them in front of the mark."""


def through(
    chain: Sequence[AnyStage], items: Iterable[Any], run: Run, views: int | None, at: Sequence[Mark] = ()
) -> Iterator[Any]:
    """The chain over the items. ``views``: the stage before which views of shards must have become bytes. ``at``: the
    marks behind the stages that count where the pass goes on, from ``unwind``.
    """
    marks = iter(at)
    seen: dict[str, int] = {}
    for i, stage in enumerate(fuse(chain)):
        if i == views:
            items = map(to_bytes, items)
        name = name_of(stage)
        number = seen[name] = seen.get(name, 0) + 1
        mark = next(marks, None) if _counts(stage) else None
        items = _guarded(stage, items, run.in_stage(name if number == 1 else f"{name}#{number}", mark))
    return iter(items)


def unwind(chain: Sequence[AnyStage], mark: Mark) -> tuple[Mark, list[Mark]]:
    """From the mark behind a chain, that of its source, and those behind each stage that counts, in order."""
    behind: list[Mark] = []
    for stage in reversed(chain):
        if _counts(stage):
            behind.insert(0, mark)
            mark = mark[-1] if mark is not None else None
            if not isinstance(mark, (list, tuple, type(None))):
                raise ConfigError(f"the state's mark ends at {mark!r} before stage {name_of(stage)}: it is damaged")
    return mark, behind


def _counts(stage: AnyStage) -> bool:
    return isinstance(stage, Stage) and stage.define.__module__ in [f"streampipe.stages.{name}" for name in _COUNT]


def name_of(stage: AnyStage, parameters: bool = False) -> str:
    """A stage's name for messages: ``map(augment)``; with ``parameters`` as it would be written."""
    if not isinstance(stage, Stage):
        return getattr(stage, "__name__", None) or type(stage).__name__
    return repr(stage) if parameters else stage.label


def takes_views(chain: tuple[AnyStage, ...]) -> int | None:
    """Where fields must have become bytes: the number of the first stage that cannot use memoryviews of a shard.

    None if that is the first stage, or if nothing in front of it would gain from views.
    """
    for i, stage in enumerate(chain):
        if isinstance(stage, Stage) and stage.name == "decode":
            return len(chain)  # decode leaves no view behind
        if not (isinstance(stage, Stage) and stage.define.views):
            return i or None
    return None


def _guarded(stage: AnyStage, items: Iterable[Any], run: Run) -> Iterator[Any]:
    """The stage over the items. What it raises names the stage and the last sample that it was given."""
    last = _Last(items) if not isinstance(stage, Stage) or stage.name not in stages.__all__ else None
    try:
        source = items if last is None else last
        yield from stage(source, run) if isinstance(stage, Stage) else stage(source)
    except StreampipeError:
        raise
    except Exception as error:
        sample = last.item if last is not None and isinstance(last.item, Mapping) else None
        raise blame(error, run.stage, sample) from error


class _Last:
    """An iterator that remembers what it gave out last."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = iter(items)
        self.item: Any = None

    def __iter__(self) -> _Last:
        return self

    def __next__(self) -> Any:
        self.item = next(self._items)
        return self.item
