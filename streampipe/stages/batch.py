"""``batch``: so many samples become one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from streampipe.context import FILLED_IN, Run
from streampipe.counters import counters
from streampipe.errors import ConfigError
from streampipe.stages.collate import Pad
from streampipe.stages.collate import collate as default_collate
from streampipe.stages.stage import Stage, stage
from streampipe.stages.values import TAILS, check_choice, check_function, check_kind, check_number
from streampipe.traits import Batch

T = TypeVar("T")
Collate = Callable[[Sequence[Any]], Any]
LEFT_OUT = "left out at an epoch's end"  # of what is counted of a batch: its samples


def _check(size: Any, pixels: Any, collate: Any, tail: Any, pad: Any) -> None:
    if (size is None) == (pixels is None):
        raise ConfigError("batch takes a size, or pixels=, a budget behind bucket(...)")
    for each in size.values() if isinstance(size, Mapping) else () if size is None else (size,):
        check_number("batch", "size", each, 1)
    check_number("batch", "pixels", pixels, 1, optional=True)
    check_function("batch", "collate", collate, optional=True)
    check_choice("batch", "tail", tail, TAILS)
    check_kind("batch", "pad", pad, Mapping, "a value by field, as in {'tokens': 0}")
    for name, value in (pad or {}).items():
        if not isinstance(name, str) or not isinstance(value, (bool, int, float)):
            raise ConfigError(f"batch: pad is a number by field, as in {{'tokens': 0}}, not {pad!r:.80}")
    if pad and collate is not None:
        raise ConfigError("batch takes pad= or collate=, not both: a collate of your own pads as it likes")


def _push(options: Mapping[str, Any]) -> Batch:
    return Batch(options["size"], options["pixels"], options["tail"])


@stage(rows="batch", state="nothing", takes="samples", check=_check, pushdown=_push)
def batch(
    samples: Iterable[Any],
    size: int | Mapping[Any, int] | None = None,
    *,
    pixels: int | None = None,
    collate: Collate | None = None,
    tail: str = "short",
    pad: Pad | None = None,
    run: Run = FILLED_IN,
) -> Iterator[Any]:
    """``size`` samples as one dict: tensors stacked, numbers as a tensor, everything else a list.

    Args:
        size: samples of a batch; behind ``bucket`` it may be a number for each (height, width), or of clips for each
            (height, width, frames) or number of frames.
        pixels: behind ``bucket``, a budget in place of a size: so many samples as have that many pixels, at least one.
        collate: a function from the samples to the batch, in place of ``streampipe.stages.collate``.
        tail: what becomes of the samples at an epoch's end (where samples are not counted: of a worker's stream) that
            fill no batch: a ``"short"`` batch, ``"drop"`` them, or ``"pad"``: a full batch in which some come again.
            ``loader(tail=)`` comes before it. In front of stages that change the number of samples each lane of the
            stream has an end of its own; ``report()`` says how many samples filled no batch.
        pad: fields whose tensors (or lists of numbers) may be of unequal length, each with the value that the shorter
            ones of a batch are filled up with at their end: ``{"tokens": 0, "mask": 0}``.

    >>> list(batch(size=2)([{"n": 1}, {"n": 2}, {"n": 3}]))
    [{'n': tensor([1, 2])}, {'n': tensor([3])}]
    """
    number = rows_of_batch(size, run)
    join = collate or partial(default_collate, pad=pad)
    samples = iter(samples)
    while rows := list(islice(samples, number)):
        if len(rows) == number or run.fill or tail != "drop":
            yield join(filled(rows, number if run.fill or tail == "pad" else 0, run))
        else:
            counters.add("batch", LEFT_OUT, len(rows))


def joins_lists(made: Any) -> bool:
    """Whether a stage is ``batch`` as it comes: of samples of bytes it makes lists."""
    return isinstance(made, Stage) and made.define is batch and made.options["collate"] is made.options["pad"] is None


def gathered(rows: Iterable[T], size: int, tail: str, run: Run, join: Callable[[list[T]], Any]) -> Iterator[Any]:
    """``size`` rows joined, and what is left at the end as ``tail`` says. No row and no batch is held longer than it is
    used, so its memory is free for the next.
    """
    ready: list[T] = []
    for row in rows:
        ready.append(row)
        del row
        if len(ready) == size:
            whole = join(ready)
            ready = []
            yield whole
            del whole
    if ready and (run.fill or tail != "drop"):
        yield join(filled(ready, size if run.fill or tail == "pad" else 0, run))
    elif ready:
        counters.add("batch", LEFT_OUT, len(ready))


def filled(rows: list[Any], number: int, run: Run) -> list[Any]:
    """The rows, and for every one that a full batch lacks another one of them again; counted."""
    missing = number - len(rows)
    if missing <= 0:
        return rows
    counters.add(run.stage, "slots filled", missing)
    return rows + [rows[i % len(rows)] for i in range(missing)]


def rows_of_batch(size: Any, run: Run) -> int:
    """How many samples a batch has: what its plan or its bucket says, else the stage's own size."""
    if run.fill:
        return run.fill
    if not isinstance(size, int):
        raise ConfigError(
            "batch was given sizes by bucket, or pixels=, but no bucket(...) stands before it: give it one size"
        )
    return size
