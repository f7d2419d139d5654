"""``filter``: keep the samples for which a function is true."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from streampipe.context import Run, blame
from streampipe.counters import counters
from streampipe.errors import StageError
from streampipe.stages.stage import stage

log = logging.getLogger("streampipe")
NOTHING_LEFT = 10_000
"""Samples after which a filter that has kept none is taken for a mistake."""


@stage
def filter(samples: Iterable[Any], fn: Callable[[Any], Any], *, run: Run) -> Iterator[Any]:
    """The samples for which ``fn(sample)`` is true. What is dropped is counted under the stage's name.

    Raises:
        StageError: ``fn`` raised; or it dropped everything (10,000 samples, or all there are for a lone consumer):
            a pass over nothing is a mistake, and in an endless stream it would look like a hang.

    >>> list(filter(fn=lambda s: s["n"] > 1)([{"n": 1}, {"n": 2}]))
    [{'n': 2}]
    """
    seen = kept = 0
    try:
        for sample in samples:
            seen += 1
            try:
                keep = fn(sample)
            except Exception as error:
                run.policy.failed(blame(error, run.stage, sample if isinstance(sample, dict) else None), run.stage)
                continue
            if keep:
                kept += 1
                yield sample
            elif not kept and seen >= NOTHING_LEFT and not run.resumed:
                raise _nothing_left(run.stage, seen)
    finally:
        counters.add(run.stage, "dropped", seen - kept)
    if seen and not kept and not run.resumed:  # a rest may be without any
        if run.consumer.total == 1:
            raise _nothing_left(run.stage, seen)
        log.warning("stage %r kept none of the %d samples of this consumer", run.stage, seen)


def _nothing_left(name: str, seen: int) -> StageError:
    return StageError(f"stage {name!r} dropped every one of {seen} samples; check the condition against one sample")
