"""A stage over its items, watched: its errors name the sample, and what its traits say of its rows is checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from time import perf_counter, thread_time
from typing import Any

from streampipe.context import Run, blame, key_of
from streampipe.counters import counters
from streampipe.errors import StageError, StreampipeError
from streampipe.observe import Flow, Tally
from streampipe.stages.stage import Stage, traits_of
from streampipe.traits import Rows

AnyStage = Callable[[Iterable[Any]], Iterable[Any]]


def run_of(stage: AnyStage, run: Run) -> Run:
    """The run for ``guarded``: what a stage leaves out is counted for itself where its rows are checked."""
    checked = traits_of(stage).rows in (Rows.EACH, Rows.FEWER)
    return replace(run, policy=run.policy.of_stage()) if checked else run


def guarded(stage: AnyStage, items: Iterable[Any], run: Run) -> Iterator[Any]:
    """The stage over the items, with a run from ``run_of``. What it raises names the stage and the last sample that it
    was given; what it yields is counted, and while times are taken, so is its time.

    Raises:
        StageError: it raised; or it yielded more or fewer than its traits say.
    """
    tally, policy, skips = counters.tally(run.stage), run.policy, run.policy.mode != "raise"
    stack, pulled = tally.stack, _Pulled()
    rows = traits_of(stage).rows
    checked = rows in (Rows.EACH, Rows.FEWER)
    before = policy.left_out
    tally.opened(pulled)
    try:
        made = iter(_started(stage, pulled.stream(items), run))
        while (item := _timed(made, tally, pulled) if stack.on else next(made, _END)) is not _END:
            pulled.yielded += 1
            if skips:
                policy.yielded(run.stage)
            if checked and pulled.yielded > pulled.given:
                raise _too_many(rows, pulled.yielded, pulled.given, run)
            yield item
            del item
        if rows is Rows.EACH and pulled.yielded + (left_out := policy.left_out - before) != pulled.given:
            raise _not_each(pulled.yielded, left_out, pulled.given, run)
    except StreampipeError:
        raise
    except Exception as error:
        raise blame(error, run.stage, None if error is pulled.error else pulled.place) from error
    finally:
        tally.closed(pulled)


def watched(items: Iterable[Any], tally: Tally, count: int = 1) -> Iterator[Any]:
    """The items of a source, counted, and while times are taken timed. ``count`` 0: they are counted elsewhere,
    together."""
    made, stack = iter(items), tally.stack
    while (item := _timed(made, tally, None) if stack.on else next(made, _END)) is not _END:
        tally.yielded += count
        yield item
        del item


def _timed(made: Iterator[Any], tally: Tally, pulled: _Pulled | None) -> Any:
    """The next item, or ``_END``, with what it takes; of a source nothing was ``pulled``."""
    stack = tally.stack
    outer, outer_cpu = stack.inner, stack.cpu
    stack.inner = stack.cpu = 0.0
    began, cpu = perf_counter(), thread_time()
    item = next(made, _END)
    seconds, cpu = perf_counter() - began, thread_time() - cpu
    tally.took(began, seconds, cpu, pulled.key if pulled is not None else key_of(item))
    stack.inner, stack.cpu = outer + seconds, outer_cpu + cpu
    return item


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


class _Pulled(Flow):
    """Items that a stage pulls and yields: how many, and where the last one came from; none is kept alive. Nor is the
    stream: it holds this, and in a circle only the garbage collector would end it, at some time and in any thread."""

    __slots__ = ("_url", "error", "key")

    def __init__(self) -> None:
        super().__init__()
        self.key: Any = None
        self._url: Any = None
        self.error: Exception | None = None  # of whatever is in front of the stage

    def stream(self, items: Iterable[Any]) -> Iterator[Any]:
        try:
            for item in items:
                self.given += 1
                if isinstance(item, dict):
                    self.key, self._url = item.get("__key__"), item.get("__url__")
                yield item
                del item
        except Exception as error:
            self.error = error
            raise

    @property
    def place(self) -> Mapping[str, Any] | None:
        """What a message needs to name the last item."""
        return None if self.key is None else {"__key__": self.key, "__url__": self._url}


_END = object()
