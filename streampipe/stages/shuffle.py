"""``shuffle``: a shuffle buffer that is a pure function of the seed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from streampipe.context import Run
from streampipe.errors import ConfigError
from streampipe.order import windowed
from streampipe.rng import derive
from streampipe.stages.stage import stage


@stage(views=True)
def shuffle(samples: Iterable[Any], size: int, position: int = 0, *, run: Run) -> Iterator[Any]:
    """The samples in a random order in which none moves further than ``size`` places. Epochs are not mixed.

    The order is a function of (seed, epoch, stage, consumer). Put it before ``decode``, where it holds encoded bytes.
    ``position`` resumes: pass how many samples came out before, and samples that start at number
    ``max(0, position - size)`` of the epoch.

    >>> sorted(shuffle(size=3)("abcdef"))
    ['a', 'b', 'c', 'd', 'e', 'f']
    """
    if size < 0:
        raise ConfigError(f"shuffle takes a size of 0 or more samples, not {size}")
    for epoch, of_epoch in groupby(samples, _epoch):
        seed = derive(run.seed, run.stage, epoch, run.consumer.number, run.consumer.total)
        yield from windowed(of_epoch, size, seed, position)
        position = 0


def _epoch(sample: Any) -> int:
    position = sample.get("__position__") if isinstance(sample, dict) else None
    return position.epoch if position else 0
