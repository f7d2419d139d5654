"""``unbatch``: batches become samples again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from streampipe.context import FILLED_IN, Run
from streampipe.errors import StageError
from streampipe.stages.stage import stage


@stage(rows="split", state="offset", takes="batches")
def unbatch(batches: Iterable[Any], *, run: Run = FILLED_IN) -> Iterator[Any]:
    """The samples of each batch: row i of every tensor, item i of every list. Rows are views of the batch's tensors.

    A batch that is a tuple gives tuples.

    Raises:
        StageError: the fields of a batch have different lengths.

    >>> list(unbatch([{"n": [1, 2]}, {"n": [3]}]))
    [{'n': 1}, {'n': 2}, {'n': 3}]
    """
    given, before = run.at or (0, None)  # of the batch that comes first
    for batch in batches:
        behind = run.trail.mark
        columns = dict(enumerate(batch)) if isinstance(batch, tuple) else batch
        lengths = {name: len(values) for name, values in columns.items()}
        if len(set(lengths.values())) > 1:
            raise StageError(f"stage {run.stage!r}: the fields of a batch have different lengths: {lengths}")
        rows = next(iter(lengths.values()), 0)
        for i in range(given, rows):
            run.trail.mark = [i + 1, before] if i + 1 < rows else [0, behind]
            row = {name: values[i] for name, values in columns.items()}
            yield tuple(row.values()) if isinstance(batch, tuple) else row
        given, before = 0, behind
