"""``map`` of a function that takes ``out=``, and ``batch``, in one: values are written where the batch has them.

The first value of a batch says what shape and dtype its rows have; it is copied. From then on the function is given the
row of its sample. Where a sample is left out, the batch no longer begins where the memory does: rows are then copied.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from streampipe.context import FILLED_IN, Run, Sample, blame, key_of, where, within
from streampipe.counters import counters
from streampipe.decorators.skip import SKIP
from streampipe.errors import StageError, StreampipeError
from streampipe.memory import empty, fill
from streampipe.stages.batch import Collate, gathered, rows_of_batch
from streampipe.stages.collate import Batch, Pad, as_tensor, is_channels_last, unpadded
from streampipe.stages.collate import collate as default_collate
from streampipe.stages.fields import find
from streampipe.stages.map import caused, wants
from streampipe.stages.nothing import Drops
from streampipe.stages.stage import stage
from streampipe.threads import ordered

_UNKNOWN_TO_NUMPY = frozenset((torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2))
_BITS = {1: torch.int8, 2: torch.int16}


class Block:
    """The memory of one batch's values, made like its first one."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.taken = 0
        self.values: torch.Tensor | None = None
        self._as_array = False
        self._lock = threading.Lock()

    def begin(self, like: Any) -> None:
        """Make the memory, if it is not there yet, for values like this one."""
        with self._lock:
            if self.values is None:
                first = as_tensor(like)
                shape = self.rows, *first.shape
                self._as_array = isinstance(like, np.ndarray)
                self.values = empty(shape, first.dtype, channels_last=is_channels_last(first))

    def row(self, number: int) -> Any:
        """Where a value goes, as the kind that the first one was; None: nobody knows yet.

        It ends where the row does: torch would make an ``out=`` larger for a larger value, over the rows behind it.
        """
        if self.values is None:
            return None
        row = self.values[number]
        bits = row.view(_BITS[row.element_size()]) if row.dtype in _UNKNOWN_TO_NUMPY else row
        array = bits.numpy()
        return array if self._as_array else torch.from_numpy(array).view(row.dtype)


class _Row(NamedTuple):
    """A sample without its value, the field's name, the value, and its row, which holds it if ``written``."""

    sample: Sample
    name: str
    value: Any
    block: Block
    number: int


@stage(rows="batch", state="nothing")
def map_batch(
    samples: Iterable[Sample],
    map: Mapping[str, Any],
    size: Any = None,
    collate: Collate | None = None,
    tail: str = "short",
    pixels: int | None = None,
    pad: Pad | None = None,
    *,
    run: Run = FILLED_IN,
) -> Iterator[Batch]:
    """``map(**map)`` and then ``batch(size, tail=tail)``: the same batches, without a copy of every value.

    Raises:
        StageError: the function raised, gave no tensor or array, or was given a row and gave other memory back.
    """
    size = rows_of_batch(size, run)
    fn, field, threads = map["fn"], map["field"], map["threads"]
    seeded, fn = wants(fn, "rng"), within(fn, run)

    def attempt(placed: tuple[Sample, Block, int]) -> Any:
        sample, block, number = placed
        try:
            name = find(sample, field, run.stage)
            extra = {"rng": run.rng(sample)} if seeded else {}
            row = block.row(number)
            value = _value(fn(sample[name], out=row, **extra), row, sample, run)
            if row is None and value is not SKIP:
                block.begin(value)
            if value is SKIP:
                counters.add(run.stage, "dropped", example=key_of(sample))
                return SKIP
            return _Row(sample, name, value, block, number)
        except Exception as error:
            return caused(blame(error, run.stage, sample), error)

    rows = _kept(ordered(attempt, _placed(samples, size), threads, run=run), run)
    yield from gathered(rows, size, tail, run, lambda ready: _join(ready, pad))


def _kept(rows: Iterable[Any], run: Run) -> Iterator[_Row]:
    """The rows that are neither errors, which are up to the error policy, nor dropped."""
    drops = Drops(run, ": the function returned sp.SKIP for all")
    for row in rows:
        if isinstance(row, StreampipeError):
            run.policy.failed(row, run.stage)
        elif row is SKIP:
            drops.drop()
        else:
            drops.keep()
            run.policy.passed(run.stage)
            yield row
        del row
    drops.end()


def _placed(samples: Iterable[Sample], size: int) -> Iterator[tuple[Sample, Block, int]]:
    """Each sample with its row in a batch's memory. Runs in one thread: the one that pulls the samples."""
    block = Block(size)
    for sample in samples:
        if block.taken == size:
            block = Block(size)
        block.taken += 1
        yield sample, block, block.taken - 1


def _value(value: Any, row: Any, sample: Sample, run: Run) -> Any:
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


def _join(ready: list[_Row], pad: Pad | None) -> Batch:
    name, block = ready[0].name, ready[0].block
    aligned = all(row.block is block and row.number == i and row.name == name for i, row in enumerate(ready))
    values = block.values
    if not aligned or values is None or any(not _fits(row.value, values) for row in ready):
        return default_collate([{**row.sample, row.name: row.value} for row in ready], pad)  # type: ignore[no-any-return]
    for row in ready:
        value = as_tensor(row.value)
        if value.data_ptr() != values[row.number].data_ptr():
            fill(values[row.number], value)
    rest: Batch = default_collate([{**row.sample, name: None} for row in ready], unpadded(pad, (name,)))
    return {**rest, name: values[: len(ready)]}


def _fits(value: Any, values: torch.Tensor) -> bool:
    found: torch.Tensor = as_tensor(value)
    return found.shape == values.shape[1:] and found.dtype == values.dtype
