"""``unbatch``: batches become samples again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import Any

from streampipe.context import FILLED_IN, Run
from streampipe.decoding.several import Images
from streampipe.errors import StageError
from streampipe.stages.stage import stage


@stage(rows="split", state="offset", takes="batches")
def unbatch(batches: Iterable[Any], *, run: Run = FILLED_IN) -> Iterator[Any]:
    """The samples of each batch: row i of every tensor, item i of every list. Rows are views of the batch's tensors.

    A batch that is a tuple gives tuples.

    Raises:
        StageError: the fields of a batch have different lengths, or one has none.

    >>> list(unbatch([{"n": [1, 2]}, {"n": [3]}]))
    [{'n': 1}, {'n': 2}, {'n': 3}]
    """
    given, before = run.at or (0, None)  # of the batch that comes first
    for batch in batches:
        behind = run.trail.mark
        columns = dict(enumerate(batch)) if isinstance(batch, tuple) else batch
        lengths = {name: _length(name, x, run) for name, x in columns.items() if type(x) is not Images}
        lengths |= {name: len(x[0]) for name, x in columns.items() if type(x) is Images and x}
        if len(set(lengths.values())) > 1:
            raise StageError(f"stage {run.stage!r}: the fields of a batch have different lengths: {lengths}")
        rows = next(iter(lengths.values()), 0)
        for i in range(given, rows):
            run.trail.mark = [i + 1, before] if i + 1 < rows else [0, behind]
            row = {name: _row(values, i) for name, values in columns.items()}
            yield tuple(row.values()) if isinstance(batch, tuple) else row
        given, before = 0, behind


def _length(name: Any, values: Any, run: Run) -> int:
    if isinstance(values, Sized) and getattr(values, "ndim", None) != 0:
        return len(values)
    raise StageError(
        f"stage {run.stage!r}: field {name!r} of a batch is {values!r:.80}, and has no value for each sample; put "
        f"drop({name!r}) in front"
    )


def _row(values: Any, number: int) -> Any:
    """A sample's value; of several images those of the sample."""
    return Images(each[number] for each in values) if type(values) is Images else values[number]
