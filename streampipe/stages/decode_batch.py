"""``decode`` and ``batch`` in one: pixels are written straight into the batch's memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from streampipe.context import Run, Sample
from streampipe.errors import StreampipeError
from streampipe.stages.batch import Collate, check_size, filled
from streampipe.stages.collate import Batch, empty
from streampipe.stages.collate import collate as default_collate
from streampipe.stages.decode import FieldDecoder
from streampipe.stages.decode import decode as decode_stage
from streampipe.stages.stage import stage
from streampipe.threads import ordered

Row = tuple[Sample, "Block", int]
Placed = tuple[Sample, dict[str, torch.Tensor], "Block", int]


class Block:
    """The memory of one batch's images: for each image field one tensor, made when the first sample is seen."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.images: dict[str, torch.Tensor] = {}

    def row(self, number: int, names: Iterable[str], size: tuple[int, int]) -> dict[str, torch.Tensor]:
        """Where the images of one sample go."""
        for name in names:
            if name not in self.images:
                self.images[name] = empty((self.rows, 3, *size), torch.uint8, channels_last=True)
        return {name: self.images[name][number] for name in names}


@stage(views=True)
def decode_batch(
    samples: Iterable[Sample],
    decode: Mapping[str, Any],
    size: int,
    collate: Collate | None = None,
    drop_last: bool = False,
    *,
    run: Run,
) -> Iterator[Batch]:
    """``decode(**decode)`` and then ``batch(size, ...)``: the same batches, without a tensor per sample between.

    Where a sample fails and is skipped, batches no longer begin where the memory does: rows are then copied.
    """
    check_size(size)
    bound = decode_stage.signature.bind(samples, **decode)
    bound.apply_defaults()
    options = dict(bound.arguments)
    del options["samples"]
    threads = options.pop("threads")
    decoder = FieldDecoder(**options, run=run)

    def attempt(placed: Placed) -> Row | StreampipeError:
        sample, rows, block, number = placed
        try:
            return decoder(sample, rows), block, number
        except StreampipeError as error:
            return error

    ready: list[Row] = []
    placed = _placed(samples, size, decoder)
    for result in ordered(attempt, placed, run.threads if threads is None else threads, trail=run.trail):
        if isinstance(result, StreampipeError):
            run.policy.failed(result, run.stage)
            continue
        run.policy.passed(run.stage)
        ready.append(result)
        del result
        if len(ready) == size:
            whole = _join(ready, collate)
            ready = []
            yield whole
            del whole
    if ready and (run.fill or not drop_last):
        yield _join(filled(ready, run), collate)


def _placed(samples: Iterable[Sample], size: int, decoder: FieldDecoder) -> Iterator[Placed]:
    """Each sample with its row in a batch's memory. Runs in one thread: the one that pulls the samples."""
    block = Block(size)
    for i, sample in enumerate(samples):
        if i % size == 0:
            block = Block(size)
        yield sample, block.row(i % size, decoder.image_fields(sample), decoder.size or (0, 0)), block, i % size


def _join(ready: list[Row], own: Collate | None) -> Batch:
    samples = [sample for sample, _, _ in ready]
    if own is not None:
        return own(samples)  # type: ignore[no-any-return]
    block = ready[0][1]
    if not all(other is block and number == i for i, (_, other, number) in enumerate(ready)):
        return default_collate(samples)  # type: ignore[no-any-return]
    slots = [name for name in samples[0] if name in block.images]
    rest: Batch = default_collate(
        [{name: None if name in slots else value for name, value in sample.items()} for sample in samples]
    )
    return {name: block.images[name][: len(ready)] if name in slots else values for name, values in rest.items()}
