"""``decode`` and ``batch`` in one: pixels are written straight into the batch's memory."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from streampipe.context import FILLED_IN, Run, Sample
from streampipe.decoding import Size
from streampipe.decoding.arrays import Unread, bytes_of, owned
from streampipe.memory import empty
from streampipe.stages.batch import Collate, gathered, rows_of_batch
from streampipe.stages.collate import Batch, Pad, unpadded
from streampipe.stages.collate import collate as default_collate
from streampipe.stages.decoder import FieldDecoder
from streampipe.stages.framing import passed
from streampipe.stages.stage import stage
from streampipe.threads import ordered

Row = tuple[Sample, "Block", int]
Placed = tuple[Sample, dict[str, torch.Tensor], "Block", int]


class Block:
    """The memory of one batch's images and arrays: for each such field one tensor, made at its first sample."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.images: dict[str, torch.Tensor] = {}
        self.arrays: dict[str, tuple[torch.Tensor, np.ndarray]] = {}  # and their memory as bytes, row by row
        self.taken = 0
        self._lock = threading.Lock()

    def takes(self, sizes: Mapping[str, Size]) -> bool:
        """Whether there is a row left, and the images that a sample shares with those before have their sizes."""
        if self.taken == self.rows:
            return False
        return all(self.images[name].shape[2:] == size for name, size in sizes.items() if name in self.images)

    def row(self, sizes: Mapping[str, Size]) -> dict[str, torch.Tensor]:
        """Where the images of the next sample go."""
        for name, size in sizes.items():
            if name not in self.images:
                self.images[name] = empty((self.rows, 3, *size), torch.uint8, channels_last=True)
        self.taken += 1
        return {name: self.images[name][self.taken - 1] for name in sizes}

    def copied(self, name: str, number: int, value: Unread) -> Any:
        """A sample's array as the row ``number`` of its batch; for itself, if it is of another kind than those before.

        It is copied as soon as it was found, while its bytes are near. Called from several threads.
        """
        with self._lock:
            if name not in self.arrays:
                made = empty((self.rows, *value.shape), value.dtype)
                self.arrays[name] = made, bytes_of(made).reshape(self.rows, -1)
        tensor, rows = self.arrays[name]
        if tensor.dtype != value.dtype or tensor.shape[1:] != value.shape:
            return owned(value)
        rows[number] = np.frombuffer(value.data, np.uint8)
        return tensor[number]

    def memory(self, name: str) -> torch.Tensor | None:
        """All rows of a field; None if its values are not here."""
        return self.images[name] if name in self.images else self.arrays[name][0] if name in self.arrays else None


@stage(rows="batch", state="nothing", views=True, bytes_out=True)
def decode_batch(
    samples: Iterable[Sample],
    decode: Mapping[str, Any],
    size: Any = None,
    collate: Collate | None = None,
    tail: str = "short",
    pixels: int | None = None,
    pad: Pad | None = None,
    *,
    run: Run = FILLED_IN,
) -> Iterator[Batch]:
    """``decode(**decode)`` and then ``batch(size, ...)``: the same batches, without a tensor per sample between.

    Where a sample fails and is skipped, batches no longer begin where the memory does: rows are then copied. Behind
    ``bucket`` all samples of a batch have one size, that of their bucket.
    """
    size = rows_of_batch(size, run)
    options = dict(decode)
    threads = options.pop("threads")
    decoder = FieldDecoder(run, **options)
    decoder.unread = collate is None

    def attempt(placed: Placed) -> Any:
        sample, rows, block, number = placed
        result = decoder.attempt(sample, rows)
        if not isinstance(result, dict):
            return result
        for name, value in result.items():
            if type(value) is Unread:
                result[name] = block.copied(name, number, value)
        return result, block, number

    rows = passed(ordered(attempt, _placed(samples, size, decoder), threads, run=run), run)
    yield from gathered(rows, size, tail, run, lambda ready: _join(ready, collate, pad))


def _placed(samples: Iterable[Sample], size: int, decoder: FieldDecoder) -> Iterator[Placed]:
    """Each sample with its row in a batch's memory. Runs in one thread: the one that pulls the samples."""
    block: Block | None = None
    for sample in samples:
        sizes = decoder.row_sizes(sample)
        if block is None or not block.takes(sizes):
            block = Block(size)
        yield sample, block.row(sizes), block, block.taken - 1


def _join(ready: list[Row], own: Collate | None, pad: Pad | None) -> Batch:
    samples = [sample for sample, _, _ in ready]
    if own is not None:
        return own(samples)  # type: ignore[no-any-return]
    block = ready[0][1]
    if (not block.images and not block.arrays) or not all(
        other is block and number == i for i, (_, other, number) in enumerate(ready)
    ):
        return default_collate(samples, pad)  # type: ignore[no-any-return]
    memories = ((name, block.memory(name)) for name in samples[0])
    slots = {name: memory for name, memory in memories if memory is not None}
    if not all(_is_row(sample.get(name), memory) for sample in samples for name, memory in slots.items()):
        return default_collate(samples, pad)  # type: ignore[no-any-return]  # some have written no row
    rest: Batch = default_collate(
        [{name: None if name in slots else value for name, value in sample.items()} for sample in samples],
        unpadded(pad, slots),
    )
    return {name: slots[name][: len(ready)] if name in slots else values for name, values in rest.items()}


def _is_row(value: Any, memory: torch.Tensor) -> bool:
    """Whether a value is a row of a batch's memory."""
    return isinstance(value, torch.Tensor) and value.untyped_storage().data_ptr() == memory.untyped_storage().data_ptr()
