"""``decode`` into the rows of the batch that is made behind it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import torch

from streampipe.context import FILLED_IN, Run, Sample
from streampipe.decoding.arrays import Unread, owned
from streampipe.stages.batch import rows_of_batch
from streampipe.stages.decoder import FieldDecoder
from streampipe.stages.framing import passed
from streampipe.stages.rows import Block, Rows
from streampipe.stages.stage import stage
from streampipe.threads import ordered

Placed = tuple[Sample, tuple[str, ...], Block, int]


@stage(rows="each", state="nothing", takes="samples", views=True, bytes_out=True)
def decode_rows(
    samples: Iterable[Sample],
    decode: Mapping[str, Any],
    size: Any,
    arrays: bool,
    replaced: Collection[str] = (),
    *,
    run: Run = FILLED_IN,
) -> Iterator[Sample]:
    """``decode(**decode)``, where ``batch(size)`` follows: pixels, and with ``arrays`` what is in ``.npy`` and
    ``.safetensors`` fields, are in rows of its memory, but for fields that are ``replaced`` before.

    Behind ``bucket`` all samples of a batch have one size, that of their bucket.
    """
    options = dict(decode)
    threads = options.pop("threads")
    decoder = FieldDecoder(run, **options)
    decoder.unread = arrays
    places = Rows(rows_of_batch(size, run))

    def placed() -> Iterator[Placed]:
        for sample in samples:
            images = {name: (3, *edges) for name, edges in decoder.row_sizes(sample).items() if name not in replaced}
            block, number = places.next(images)
            for name, shape in images.items():
                block.begin(name, shape, torch.uint8, channels_last=True)
            yield sample, tuple(images), block, number

    def attempt(each: Placed) -> Any:
        sample, images, block, number = each
        rows = {name: row for name in images if (row := block.row(name, number)) is not None}
        result = decoder.attempt(sample, rows)
        if arrays and isinstance(result, dict) and Unread in map(type, result.values()):
            for name, value in result.items():
                if type(value) is Unread:
                    result[name] = owned(value) if name in replaced else _copied(block, name, number, value)
        return result

    yield from passed(ordered(attempt, placed(), threads, run=run), run)


def _copied(block: Block, name: str, number: int, value: Unread) -> Any:
    """A sample's array as a row; for itself, if it is of another kind than those before.

    It is copied as soon as it was found, while its bytes are near.
    """
    row = block.put(name, number, value.shape, value.dtype, value.data)
    return owned(value) if row is None else row
