"""``map`` of a function that takes ``out=``, into the rows of the batch that is made behind it.

The first value of a batch says what shape and dtype its rows have; it is copied. From then on the function is given the
row of its sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from streampipe.context import FILLED_IN, Run, blame, key_of, where, within
from streampipe.counters import counters
from streampipe.decorators.skip import SKIP
from streampipe.errors import StageError, StreampipeError
from streampipe.memory import fill
from streampipe.stages.batch import rows_of_batch
from streampipe.stages.collate import as_tensor, is_channels_last
from streampipe.stages.fields import find
from streampipe.stages.map import caused, wants
from streampipe.stages.nothing import Drops
from streampipe.stages.rows import Block, Rows
from streampipe.stages.stage import stage
from streampipe.threads import ordered

Placed = tuple[dict[str, Any], Block, int]


@stage(rows="each", state="nothing")
def map_rows(
    samples: Iterable[dict[str, Any]], map: Mapping[str, Any], size: Any, *, run: Run = FILLED_IN
) -> Iterator[dict[str, Any]]:
    """``map(**map)``, where ``batch(size)`` follows: values are in rows of its memory.

    Raises:
        StageError: the function raised, gave no tensor or array, or was given a row and gave other memory back.
    """
    drops = Drops(run, ": the function returned sp.SKIP for all")
    rows = Rows(rows_of_batch(size, run))
    placed = ((sample, *rows.next({})) for sample in samples)
    for result in ordered(_caller(map["fn"], map["field"], run), placed, map["threads"], run=run):
        if isinstance(result, StreampipeError):
            run.policy.failed(result, run.stage)
        elif result is SKIP:
            drops.drop()
        else:
            drops.keep()
            run.policy.passed(run.stage)
            yield result
        del result  # it may not be kept alive while the consumer works
    drops.end()


def _caller(fn: Callable[..., Any], field: str, run: Run) -> Callable[[Placed], Any]:
    """A function of a sample with its row that returns the sample with ``fn``'s value, SKIP or the error."""
    seeded, fn = wants(fn, "rng"), within(fn, run)

    def call(placed: Placed) -> Any:
        sample, block, number = placed
        try:
            name = find(sample, field, run.stage)
            extra = {"rng": run.rng(sample)} if seeded else {}
            row = _row(block, name, number)
            value = _value(fn(sample[name], out=row, **extra), row, sample, run)
            if value is SKIP:
                counters.add(run.stage, "dropped", example=key_of(sample))
                return SKIP
            return {**sample, name: _copied(value, block, name, number) if row is None else row}
        except Exception as error:
            return caused(blame(error, run.stage, sample), error)

    return call


def _row(block: Block, name: str, number: int) -> Any:
    """Where a value goes, as the kind that the first one was; None: nobody knows yet."""
    row = block.row(name, number)
    return row.numpy() if row is not None and block.kinds[name] is np.ndarray else row


def _copied(value: Any, block: Block, name: str, number: int) -> Any:
    """A value that had no row, in one that is made like it; itself, if it is of another kind than those before."""
    tensor = as_tensor(value)
    block.begin(name, tensor.shape, tensor.dtype, is_channels_last(tensor), type(value))
    row = block.row(name, number)
    fits = row is not None and row.shape == tensor.shape and row.dtype == tensor.dtype and not tensor.requires_grad
    if row is None or not fits:
        return value
    fill(row, tensor)
    return _row(block, name, number)


def _value(value: Any, row: Any, sample: Mapping[str, Any], run: Run) -> Any:
    """What a function gave, if it may give that."""
    here = f"stage {run.stage!r}, {where(sample)}"
    if value is SKIP:
        return value
    if row is None:
        if isinstance(value, torch.Tensor) or (isinstance(value, np.ndarray) and value.dtype.kind in "biufc"):
            return value
        raise StageError(
            f"{here}: the function takes out=, and gave a {type(value).__name__} where out was None: it must then make "
            f"the tensor or array itself and return it; or leave its parameter out= away"
        )
    if value is not None and value is not row:
        raise StageError(
            f"{here}: the function was given out=, the row of its batch, and returned something else: it must write "
            f"its value there (a tensor or array of shape {tuple(row.shape)}) and return out or nothing; or leave its "
            f"parameter out= away"
        )
    return row
