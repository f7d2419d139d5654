"""``batch``: so many samples become one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from streampipe.context import FILLED_IN, Run
from streampipe.counters import counters
from streampipe.errors import ConfigError
from streampipe.stages.collate import collate as default_collate
from streampipe.stages.stage import stage
from streampipe.stages.values import check_flag, check_function, check_number
from streampipe.traits import Batch

Collate = Callable[[Sequence[Any]], Any]


def _check(size: Any, pixels: Any, collate: Any, drop_last: Any) -> None:
    if (size is None) == (pixels is None):
        raise ConfigError("batch takes a size, or pixels=, a budget behind bucket(...)")
    for each in size.values() if isinstance(size, Mapping) else () if size is None else (size,):
        check_number("batch", "size", each, 1)
    check_number("batch", "pixels", pixels, 1, optional=True)
    check_function("batch", "collate", collate, optional=True)
    check_flag("batch", "drop_last", drop_last)


def _push(options: Mapping[str, Any]) -> Batch:
    return Batch(options["size"], options["pixels"], options["drop_last"])


@stage(rows="batch", state="nothing", check=_check, pushdown=_push)
def batch(
    samples: Iterable[Any],
    size: int | Mapping[tuple[int, int], int] | None = None,
    collate: Collate | None = None,
    drop_last: bool = False,
    pixels: int | None = None,
    *,
    run: Run = FILLED_IN,
) -> Iterator[Any]:
    """``size`` samples as one dict: tensors stacked, everything else a list. ``collate`` replaces that function.

    The last batch of a consumer may be smaller; ``drop_last`` leaves it out. Behind ``bucket``, ``size`` may be a
    number for each (width, height), or ``pixels`` a budget: so many samples as have that many pixels, at least one.

    >>> list(batch(size=2)([{"n": 1}, {"n": 2}, {"n": 3}]))
    [{'n': [1, 2]}, {'n': [3]}]
    """
    number = rows_of_batch(size, run)
    join = collate or default_collate
    samples = iter(samples)
    while rows := list(islice(samples, number)):
        if len(rows) == number or run.fill or not drop_last:
            yield join(filled(rows, run))


def filled(rows: list[Any], run: Run) -> list[Any]:
    """The rows, and for every one that a planned batch lacks another one of them again; counted."""
    missing = run.fill - len(rows)
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
