"""A stage over its items, watched: its errors name the sample, and what its traits say of its rows is checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from streampipe.context import Run, blame
from streampipe.errors import StageError, StreampipeError
from streampipe.stages.stage import Stage, traits_of
from streampipe.traits import Rows

AnyStage = Callable[[Iterable[Any]], Iterable[Any]]


def run_of(stage: AnyStage, run: Run) -> Run:
    """The run for ``guarded``: what a stage leaves out is counted for itself where its rows are checked."""
    checked = traits_of(stage).rows in (Rows.EACH, Rows.FEWER)
    return replace(run, policy=run.policy.of_stage()) if checked else run


def guarded(stage: AnyStage, items: Iterable[Any], run: Run) -> Iterator[Any]:
    """The stage over the items, with a run from ``run_of``. What it raises names the stage and the last sample that it
    was given.

    Raises:
        StageError: it raised; or it yielded more or fewer than its traits say.
    """
    pulled = _Pulled(items)
    rows = traits_of(stage).rows
    try:
        if rows not in (Rows.EACH, Rows.FEWER):
            yield from _started(stage, pulled, run)
            return
        before, yielded = run.policy.left_out, 0
        for item in _started(stage, pulled, run):
            yielded += 1
            if yielded > pulled.number:
                raise _too_many(rows, yielded, pulled.number, run)
            yield item
            del item
        if rows is Rows.EACH and yielded + (left_out := run.policy.left_out - before) != pulled.number:
            raise _not_each(yielded, left_out, pulled.number, run)
    except StreampipeError:
        raise
    except Exception as error:
        raise blame(error, run.stage, None if error is pulled.error else pulled.place) from error


def _started(stage: AnyStage, items: Iterable[Any], run: Run) -> Iterable[Any]:
    return stage(items, run) if isinstance(stage, Stage) else stage(items)


def _too_many(rows: Rows, yielded: int, pulled: int, run: Run) -> StageError:
    return StageError(
        f"stage {run.stage!r} is declared with rows={rows.value!r}, but yielded {yielded} for {pulled} that it was "
        f"given: declare rows='split' if one becomes several, or leave rows= out"
    )


def _not_each(yielded: int, left_out: int, pulled: int, run: Run) -> StageError:
    but = f" and left out {left_out}" if left_out else ""
    return StageError(
        f"stage {run.stage!r} is declared with rows='each', but yielded {yielded}{but} for {pulled} that it was given: "
        f"declare rows='fewer' if it is a filter (or call run.drop() for each sample that it leaves out), rows='batch' "
        f"if several become one, or leave rows= out"
    )


class _Pulled:
    """Items that a stage pulls: how many there were, and where the last one came from; it is not kept alive."""

    __slots__ = ("_items", "_key", "_url", "error", "number")

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = iter(items)
        self._key: Any = None
        self._url: Any = None
        self.number = 0
        self.error: Exception | None = None  # of whatever is in front of the stage

    def __iter__(self) -> _Pulled:
        return self

    def __next__(self) -> Any:
        try:
            item = next(self._items)
        except StopIteration:
            raise
        except Exception as error:
            self.error = error
            raise
        self.number += 1
        if isinstance(item, dict):
            self._key, self._url = item.get("__key__"), item.get("__url__")
        return item

    @property
    def place(self) -> Mapping[str, Any] | None:
        """What a message needs to name the last item."""
        return None if self._key is None else {"__key__": self._key, "__url__": self._url}
