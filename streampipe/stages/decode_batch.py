"""``decode`` and ``batch`` in one: pixels are written straight into the batch's memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from streampipe.context import Mark, Run, Sample
from streampipe.decoding import Size
from streampipe.stages.batch import Collate, check_size, filled
from streampipe.stages.collate import Batch, empty
from streampipe.stages.collate import collate as default_collate
from streampipe.stages.decode import FieldDecoder
from streampipe.stages.decode import decode as decode_stage
from streampipe.stages.framing import passed
from streampipe.stages.stage import stage
from streampipe.threads import ordered

Row = tuple[Sample, "Block | None", int]
Placed = tuple[Sample, dict[str, torch.Tensor], "Block | None", int]


class Block:
    """The memory of one batch's images of one size: for each image field one tensor, made at its first sample."""

    def __init__(self, rows: int, size: Size) -> None:
        self.rows = rows
        self.size = size
        self.images: dict[str, torch.Tensor] = {}
        self.taken = 0
        self.mark: Mark = None  # behind the last sample that was given a row

    def row(self, names: Iterable[str]) -> dict[str, torch.Tensor]:
        """Where the images of the next sample go."""
        for name in names:
            if name not in self.images:
                self.images[name] = empty((self.rows, 3, *self.size), torch.uint8, channels_last=True)
        self.taken += 1
        return {name: self.images[name][self.taken - 1] for name in names}


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

    Where a sample fails and is skipped, batches no longer begin where the memory does: rows are then copied. Where
    samples have sizes of their own (``__size__``), a batch is a run of one size, ``size`` samples at most, and the
    slots of samples that were skipped are filled from it: no batch mixes sizes, and none waits for another run.
    """
    check_size(size)
    bound = decode_stage.signature.bind(samples, **decode)
    bound.apply_defaults()
    options = dict(bound.arguments)
    del options["samples"]
    threads = options.pop("threads")
    decoder = FieldDecoder(run, **options)

    def attempt(placed: Placed) -> Any:
        sample, rows, block, number = placed
        result = decoder.attempt(sample, rows)
        return (result, block, number) if isinstance(result, dict) else result

    of_one_size = decoder.framing.size is None

    def last(ready: list[Row]) -> Iterator[Batch]:
        """The batch of rows that were too few, after which no more come for it."""
        block = ready[0][1]
        wanted = run.fill or (block.taken if block and of_one_size else len(ready))
        if run.fill or wanted == size or not drop_last:
            yield _join(filled(ready, replace(run, fill=wanted)), collate)

    ready: list[Row] = []
    placed = _placed(samples, size, decoder, run)
    for row in passed(ordered(attempt, placed, run.threads if threads is None else threads, trail=run.trail), run):
        block = ready[0][1] if ready else None
        if of_one_size and block and block is not row[1]:
            here, run.trail.mark = run.trail.mark, block.mark
            yield from last(ready)
            run.trail.mark = here
            ready = []
        ready.append(row)
        del row
        if len(ready) == size:
            whole = _join(ready, collate)
            ready = []
            yield whole
            del whole
    if ready:
        yield from last(ready)


def _placed(samples: Iterable[Sample], size: int, decoder: FieldDecoder, run: Run) -> Iterator[Placed]:
    """Each sample with its row in a batch's memory. Runs in one thread: the one that pulls the samples."""
    block: Block | None = None
    for sample in samples:
        target = decoder.framing.target(sample)
        if target is None:
            yield sample, {}, None, 0
            continue
        if block is None or block.taken == size or block.size != target:
            block = Block(size, target)
        block.mark = run.trail.mark
        yield sample, block.row(decoder.image_fields(sample)), block, block.taken - 1


def _join(ready: list[Row], own: Collate | None) -> Batch:
    samples = [sample for sample, _, _ in ready]
    if own is not None:
        return own(samples)  # type: ignore[no-any-return]
    block = ready[0][1]
    if block is None or not all(other is block and number == i for i, (_, other, number) in enumerate(ready)):
        return default_collate(samples)  # type: ignore[no-any-return]
    slots = [name for name in samples[0] if name in block.images]
    rest: Batch = default_collate(
        [{name: None if name in slots else value for name, value in sample.items()} for sample in samples]
    )
    return {name: block.images[name][: len(ready)] if name in slots else values for name, values in rest.items()}
