"""``decode`` and ``batch`` in one: pixels are written straight into the batch's memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from streampipe.context import FILLED_IN, Run, Sample
from streampipe.decoding import Size
from streampipe.memory import empty
from streampipe.stages.batch import Collate, filled, rows_of_batch
from streampipe.stages.collate import Batch, Pad, unpadded
from streampipe.stages.collate import collate as default_collate
from streampipe.stages.decode import FieldDecoder
from streampipe.stages.framing import passed
from streampipe.stages.stage import stage
from streampipe.threads import ordered

Row = tuple[Sample, "Block | None", int]
Placed = tuple[Sample, dict[str, torch.Tensor], "Block | None", int]


class Block:
    """The memory of one batch's images: for each image field one tensor, made at its first sample."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.images: dict[str, torch.Tensor] = {}
        self.taken = 0

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

    def attempt(placed: Placed) -> Any:
        sample, rows, block, number = placed
        result = decoder.attempt(sample, rows)
        return (result, block, number) if isinstance(result, dict) else result

    ready: list[Row] = []
    placed = _placed(samples, size, decoder)
    for row in passed(ordered(attempt, placed, threads, run=run), run):
        ready.append(row)
        del row
        if len(ready) == size:
            whole = _join(ready, collate, pad)
            ready = []
            yield whole
            del whole
    if ready and (run.fill or tail != "drop"):
        yield _join(filled(ready, size if run.fill or tail == "pad" else 0, run), collate, pad)


def _placed(samples: Iterable[Sample], size: int, decoder: FieldDecoder) -> Iterator[Placed]:
    """Each sample with its row in a batch's memory. Runs in one thread: the one that pulls the samples."""
    block: Block | None = None
    for sample in samples:
        sizes = decoder.row_sizes(sample)
        if not sizes:
            yield sample, {}, None, 0
            continue
        if block is None or not block.takes(sizes):
            block = Block(size)
        yield sample, block.row(sizes), block, block.taken - 1


def _join(ready: list[Row], own: Collate | None, pad: Pad | None) -> Batch:
    samples = [sample for sample, _, _ in ready]
    if own is not None:
        return own(samples)  # type: ignore[no-any-return]
    block = ready[0][1]
    if block is None or not all(other is block and number == i for i, (_, other, number) in enumerate(ready)):
        return default_collate(samples, pad)  # type: ignore[no-any-return]
    if any(name in block.images and not isinstance(value, torch.Tensor) for s in samples for name, value in s.items()):
        return default_collate(samples, pad)  # type: ignore[no-any-return]  # what is no image has written no row
    slots = [name for name in samples[0] if name in block.images]
    rest: Batch = default_collate(
        [{name: None if name in slots else value for name, value in sample.items()} for sample in samples],
        unpadded(pad, slots),
    )
    return {name: block.images[name][: len(ready)] if name in slots else values for name, values in rest.items()}
