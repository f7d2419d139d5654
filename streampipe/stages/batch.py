"""``batch``: so many samples become one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from streampipe.context import Run
from streampipe.counters import counters
from streampipe.errors import ConfigError
from streampipe.stages.collate import collate as default_collate
from streampipe.stages.stage import stage

Collate = Callable[[Sequence[Any]], Any]


@stage
def batch(
    samples: Iterable[Any],
    size: int | Mapping[tuple[int, int], int] | None = None,
    collate: Collate | None = None,
    drop_last: bool = False,
    pixels: int | None = None,
    *,
    run: Run,
) -> Iterator[Any]:
    """``size`` samples as one dict: tensors stacked, everything else a list. ``collate`` replaces that function.

    The last batch of a consumer may be smaller; ``drop_last`` leaves it out. Behind ``bucket``, ``size`` may be a
    number for each (height, width), or ``pixels`` a budget: so many samples as have that many pixels, at least one.

    >>> list(batch(size=2)([{"n": 1}, {"n": 2}, {"n": 3}]))
    [{'n': [1, 2]}, {'n': [3]}]
    """
    number = check_size(size)
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


def check_size(size: Any) -> int:
    """A batch has at least one sample, and sizes by bucket need buckets."""
    if not isinstance(size, int) or size < 1:
        raise ConfigError(
            f"batch takes a size of 1 or more samples, or, behind bucket(...), one for each (height, width) or "
            f"pixels=, not {size}"
        )
    return size
