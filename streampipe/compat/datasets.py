"""Hugging Face ``datasets``: a pipeline as an ``IterableDataset``, and a dataset as a source; each keeps its place."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from streampipe.context import Consumer
from streampipe.engine.clock import Clock
from streampipe.engine.plain import PlainPass
from streampipe.errors import ConfigError
from streampipe.pipeline import Pipeline
from streampipe.reading.rows import fields_of
from streampipe.stages.values import check_number

try:
    import datasets
    from datasets.iterable_dataset import _BaseExamplesIterable
except ImportError as missing:
    raise ImportError("streampipe.compat.datasets needs one more package: pip install datasets") from missing


_ROWS = 16  # read at once


def from_streampipe(pipe: Pipeline, *, shares: int = 1) -> Any:
    """The samples of a pipeline as a ``datasets.IterableDataset``, for ``map``, ``interleave_datasets`` or a Trainer.

    Its ``state_dict`` says which sample comes next, and ``load_state_dict`` goes on there, without reading again what
    came before where the pipeline can do so. ``set_epoch(e)`` and ``shuffle`` give another epoch of the pipeline; give
    the shuffle's window to ``sp.stream(shuffle=)``, and ``shuffle(buffer_size=1)``, for ``datasets`` loses its buffer.

    Args:
        pipe: it yields samples: no ``batch`` in it. Its ranks are left to ``split_dataset_by_node``.
        shares: parts that can be read side by side (``num_shards`` of the dataset): as many as ranks times workers of
            the DataLoader, or a multiple of it.

    Raises:
        ConfigError: this is no pipeline, or it is endless.

    ``__key__`` and ``__url__`` stay, as in webdataset's datasets; ``__position__`` does not.
    """
    if not isinstance(pipe, Pipeline):
        raise ConfigError(f"from_streampipe takes a pipeline, not a {type(pipe).__name__}")
    if pipe.spec.epochs is None:
        raise ConfigError("from_streampipe needs a pipeline that ends: give sp.stream(..., epochs=1)")
    pipe._refuse_rank("datasets.distributed.split_dataset_by_node")
    check_number("from_streampipe", "shares", shares, 1)
    return datasets.IterableDataset(_Shares(pipe, shares, range(shares), 0))


class _Shares(_BaseExamplesIterable):  # type: ignore[misc]
    """Some of the shares of a pipeline, one after the other. What ``datasets`` calls shards are shares here."""

    def __init__(self, pipe: Pipeline, shares: int, mine: Sequence[int], epoch: int) -> None:
        super().__init__()
        self._pipe, self._shares, self._mine, self._epoch = pipe, shares, mine, epoch

    @property
    def num_shards(self) -> int:
        return len(self._mine)

    def _init_state_dict(self) -> dict[str, Any]:
        self._state_dict: dict[str, Any] = {"share": 0, "place": None, "type": type(self).__name__}
        return self._state_dict

    def __iter__(self) -> Iterator[Any]:
        state: dict[str, Any] | None = self._state_dict
        for number in range(state["share"] if state else 0, len(self._mine)):
            run = self._pass(self._mine[number], state["place"] if state else None)
            for sample in run:
                if state:
                    over = run.complete
                    state["share"], state["place"] = (number + 1, None) if over else (number, run.state())
                yield sample["__key__"], {name: each for name, each in sample.items() if name != "__position__"}
            if state:
                state["share"], state["place"] = number + 1, None

    def _pass(self, share: int, place: Any) -> PlainPass:
        clock = Clock()  # of this pass alone: which epoch it is, datasets says
        clock.set(self._epoch)
        return PlainPass(self._pipe.spec, Consumer(0, 1, share, self._shares), clock, place)

    def shuffle_data_sources(self, generator: np.random.Generator) -> _Shares:
        """Another epoch, drawn by the generator, which is the same in all processes."""
        epoch = int(copy.deepcopy(generator).integers(1, 1 << 31))
        return _Shares(self._pipe, self._shares, self._mine, epoch)

    def shard_data_sources(self, num_shards: int, index: int, contiguous: bool = True) -> _Shares:
        """One of so many parts of the shares."""
        found = self.split_shard_indices_by_worker(num_shards, index, contiguous=contiguous)
        return _Shares(self._pipe, self._shares, [self._mine[each] for each in found], self._epoch)

    def reshard_data_sources(self) -> _Shares:
        """The same: the number of shares was given."""
        return self


class DatasetSource:
    """A ``datasets.IterableDataset`` as a source: ``sp.stream(DatasetSource(table), shuffle=True)``.

    Its shards are the pipeline's, so it is shuffled, divided among ranks and workers, and resumed as any other source
    that is read forward. Images are not decoded by ``datasets``: they come as bytes, for ``decode``. A column
    ``__key__`` of texts is the key, else shard and number.

    Args:
        table: not shuffled and not split by ``datasets``. ``Dataset.to_iterable_dataset(num_shards=n)`` makes one of a
            dataset on disk.

    Raises:
        ConfigError: this is no ``IterableDataset``.
    """

    def __init__(self, table: Any) -> None:
        if not isinstance(table, datasets.IterableDataset):
            raise ConfigError(
                f"DatasetSource takes a datasets.IterableDataset, not a {type(table).__name__}: load_dataset(..., "
                f"streaming=True), or dataset.to_iterable_dataset(num_shards=n)"
            )
        for name, feature in (table.features or {}).items():
            if isinstance(feature, datasets.Image):
                table = table.cast_column(name, datasets.Image(decode=False))
        self.table = table
        self.shards: Sequence[str] = [f"{table.info.builder_name or 'datasets'}#{i}" for i in range(table.num_shards)]

    def read(self, shard: int, first: int = 0) -> Iterator[dict[str, Any]]:
        """The samples of a shard, from a number on."""
        table = self.table.shard(num_shards=len(self.shards), index=shard)
        for number, row in enumerate(_rows(table.skip(first) if first else table), first):
            key = row.pop("__key__", None)
            place = f"{self.shards[shard]}, row {number}"
            row = {name: value for name, value in row.items() if not name.startswith("__")}
            yield {"__key__": key if isinstance(key, str) else f"{shard:05d}/{number:08d}", **fields_of(row, place)}


def _rows(table: Any) -> Iterator[dict[str, Any]]:
    """The rows of a dataset. Iterated itself, in a worker of a DataLoader, it would give a part of them alone."""
    for batch in table.iter(batch_size=_ROWS):
        names = list(batch)
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(names, values, strict=True))


__all__ = ["DatasetSource", "from_streampipe"]
