"""``shuffle``: a shuffle buffer that is a pure function of the seed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from streampipe.context import FILLED_IN, Mark, Run, Trail, epoch_of
from streampipe.plan.order import traceable, window_bytes
from streampipe.rng import derive
from streampipe.samples import size_of
from streampipe.stages.stage import stage
from streampipe.stages.values import check_number


def _check(size: Any, position: Any) -> None:
    check_number("shuffle", "size", size, 0)
    check_number("shuffle", "position", position, 0)


@stage(state="offset", check=_check)
def shuffle(samples: Iterable[Any], size: int, position: int = 0, *, run: Run = FILLED_IN) -> Iterator[Any]:
    """The samples in a random order in which none moves further than ``size`` places. Epochs are not mixed.

    It holds 256 MB of samples at most, and 1 GB in all lanes of a reader together: large ones are moved less far. The
    order is a function of (seed, epoch, stage, consumer). Put it before ``decode``, where it holds encoded bytes.
    ``position`` resumes: pass how many samples came out before, and samples that start at number
    ``max(0, position - size)`` of the epoch.

    >>> sorted(shuffle(size=3)("abcdef"))
    ['a', 'b', 'c', 'd', 'e', 'f']
    """
    stopped_in, position, before = run.at or (None, position, None)
    for epoch, of_epoch in groupby(_traced(samples, run.trail, before), lambda traced: epoch_of(traced[0])):
        seed = derive(run.seed, run.stage, epoch, run.consumer.number, run.consumer.total)
        start = position if stopped_in in (None, epoch) else 0
        for sample, at, mark in traceable(of_epoch, size, seed, start, size_of, window_bytes(run.lanes)):
            run.trail.mark = [epoch, at, mark]
            yield sample
        position = 0


def _traced(samples: Iterable[Any], trail: Trail, before: Mark) -> Iterator[tuple[Any, Mark, Mark]]:
    """Each sample with the marks before and behind it."""
    for sample in samples:
        behind = trail.mark
        yield sample, before, behind
        before = behind
