"""Ray Data: a pipeline's samples as a datasource, cut into shares of its plan; and its stages in ``map_batches``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch

from streampipe.context import Consumer
from streampipe.engine.clock import Clock
from streampipe.engine.plain import PlainPass
from streampipe.errors import ConfigError
from streampipe.pipeline import Pipeline
from streampipe.spec import Spec
from streampipe.stages.values import check_number
from streampipe.stream import from_iterable

try:
    from ray.data import Datasource, ReadTask
    from ray.data.block import BlockAccessor, BlockMetadata
except ImportError as missing:
    raise ImportError("streampipe.compat.ray needs Ray Data: pip install 'streampipe[ray]'") from missing

_ROWS = 64
"""Samples of a block; Ray puts blocks together as it likes them."""


class PipelineSource(Datasource):  # type: ignore[misc]
    """The samples of a pipeline as a datasource: ``ray.data.read_datasource(PipelineSource(pipe))``.

    Each read task is a share of the pipeline's plan, as a worker of a loader would have it: all tasks together give
    every sample of the epoch once, in its random order, with its conditions, buckets and crops. A task that is lost
    with its machine gives the same rows again. Ray keeps the order of tasks where it is told to
    (``DataContext.get_current().execution_options.preserve_order``).

    Args:
        pipe: it ends. Where it has a ``batch``, a batch becomes its rows.
        shares: read tasks; None: as many as Ray asks for (``override_num_blocks=``).
        epoch: which one is read.

    Raises:
        ConfigError: this is no pipeline, or it is endless.

    ``__key__`` and ``__url__`` are columns; ``__position__`` is not. Values are as ``ray.data`` has them: bytes, texts,
    numbers, arrays.
    """

    def __init__(self, pipe: Pipeline, *, shares: int | None = None, epoch: int = 0) -> None:
        if not isinstance(pipe, Pipeline):
            raise ConfigError(f"PipelineSource takes a pipeline, not a {type(pipe).__name__}")
        if pipe.spec.epochs is None:
            raise ConfigError("PipelineSource needs a pipeline that ends: give sp.stream(..., epochs=1)")
        pipe._refuse_rank("Ray Data, which PipelineSource is for,")
        if shares is not None:
            check_number("PipelineSource", "shares", shares, 1)
        check_number("PipelineSource", "epoch", epoch, 0)
        super().__init__()
        self._pipe, self._shares, self._epoch = pipe, shares, epoch

    def get_name(self) -> str:
        """For Ray's messages."""
        return "streampipe"

    def estimate_inmemory_data_size(self) -> int | None:
        """Nothing is known before it is read."""
        return None

    def get_read_tasks(self, parallelism: int, *given: Any, **named: Any) -> list[Any]:
        """One for each share."""
        shares = self._shares or max(1, parallelism)
        about = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        spec = self._pipe.spec
        return [ReadTask(partial(_blocks, spec, share, shares, self._epoch), about) for share in range(shares)]


class Stages:
    """Stages of a pipeline for ``map_batches``: ``dataset.map_batches(Stages(lambda rows: rows.decode(512)))``.

    The rows of a batch become samples, go through the stages, and become rows again; stages may drop samples, or make
    several of one. Random choices follow from the seed, the epoch and the sample's key, as in any pipeline, and so do
    not depend on how Ray cuts batches.

    Args:
        build: given a pipeline, adds stages to it. It goes to Ray's workers with its names.
        key: the column that tells samples apart.
        seed: of random choices.

    Raises:
        ConfigError: later, from Ray's workers: there is no such column.
    """

    def __init__(self, build: Callable[[Pipeline], Pipeline], *, key: str = "__key__", seed: int = 0) -> None:
        self._build, self._key, self._seed = build, key, seed

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The rows of a batch (``batch_format="numpy"``, the default), behind the stages."""
        if self._key not in batch:
            there = ", ".join(batch) or "none"
            raise ConfigError(f"the rows have no column {self._key!r} (there are: {there}); say which is the key: key=")
        keys = [str(each) for each in batch[self._key]]
        samples = [
            {"__key__": key, **{name: _value(values[row]) for name, values in batch.items() if name != "__key__"}}
            for row, key in enumerate(keys)
        ]
        made = list(self._build(from_iterable(samples, seed=self._seed)))
        if made and isinstance(made[0].get("__key__"), str):
            return _columns(made)
        parts = [_of_batch(each) for each in made]
        names = dict.fromkeys(name for part in parts for name in part)
        return {name: _column([value for part in parts for value in part[name]]) for name in names}


def _blocks(spec: Spec, share: int, shares: int, epoch: int) -> Iterator[Any]:
    """A read task: the blocks of a share."""
    clock = Clock()  # of this pass alone
    clock.set(epoch)
    items = iter(PlainPass(spec, Consumer(0, 1, share, shares), clock, None))
    for first in items:
        if isinstance(first.get("__key__"), str):
            yield BlockAccessor.batch_to_block(_columns([first, *islice(items, _ROWS - 1)]))
        else:
            yield BlockAccessor.batch_to_block(_of_batch(first))


def _columns(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Samples as columns; None where one lacks a field."""
    names = dict.fromkeys(name for sample in samples for name in sample if name != "__position__")
    return {name: _column([_plain(name, sample.get(name)) for sample in samples]) for name in names}


def _of_batch(batch: Mapping[str, Any]) -> dict[str, Any]:
    """A batch as columns."""
    return {
        name: _plain(name, values) if isinstance(values, torch.Tensor) else _column([_plain(name, v) for v in values])
        for name, values in batch.items()
        if name != "__position__"
    }


def _column(values: list[Any]) -> np.ndarray:
    """Arrays of one shape as one; else objects, as they are: numpy would cut zeros off the ends of bytes."""
    kinds = {(type(each), np.shape(each), getattr(each, "dtype", None)) for each in values if _is_number(each)}
    if len(kinds) == 1 and all(map(_is_number, values)):
        return np.array(values)
    column = np.empty(len(values), object)
    column[:] = values
    return column


def _is_number(value: Any) -> bool:
    return isinstance(value, (np.ndarray, np.generic, bool, int, float))


def _plain(name: str, value: Any) -> Any:
    """A value as Ray has it."""
    if isinstance(value, torch.Tensor):
        if value.dtype == torch.bfloat16:
            raise ConfigError(f"field {name!r} is bfloat16, which numpy and Ray Data do not have: make it float32")
        return value.numpy()
    return bytes(value) if isinstance(value, (bytearray, memoryview)) else value


def _value(value: Any) -> Any:
    """A value of a row as a sample has it: numbers of numpy as Python's."""
    return value.item() if isinstance(value, np.generic) else value


__all__ = ["PipelineSource", "Stages"]
