"""``where``: keep the samples whose facts fulfil a condition; no pixel is decoded for it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator

from streampipe.condition import Condition
from streampipe.context import Run, Sample
from streampipe.counters import counters
from streampipe.errors import StageError
from streampipe.index.scan import facts_of
from streampipe.stages.filter import NOTHING_LEFT
from streampipe.stages.stage import stage

log = logging.getLogger("streampipe")


@stage(views=True)
def where(samples: Iterable[Sample], condition: Condition, *, run: Run) -> Iterator[Sample]:
    """The samples for which ``condition`` is true of ``key``, ``width``, ``height`` (as shown) and their json scalars.

    Raises:
        StageError: nothing is left of 10,000 samples (or of all, for a lone consumer); it says why.

    >>> kept = where(condition=Condition("n > 1"))([{"__key__": "a", "json": b'{"n": 1}'}, {"json": b'{"n": 2}'}])
    >>> list(kept)
    [{'json': b'{"n": 2}'}]
    """
    seen = kept = 0
    reasons: Counter[str] = Counter()
    try:
        for sample in samples:
            seen += 1
            facts = facts_of(sample)
            if condition.of_sample(facts):
                kept += 1
                yield sample
            elif not kept and not run.resumed:
                reasons += condition.reasons_of_sample(facts)
                if seen >= NOTHING_LEFT:
                    raise nothing_left(condition.text, seen, reasons)
    finally:
        counters.add(run.stage, "dropped", seen - kept)
    if seen and not kept and not run.resumed:  # a rest may be without any
        if run.consumer.total == 1:
            raise nothing_left(condition.text, seen, reasons)
        log.warning("where %s kept none of the %d samples of this consumer", condition.text, seen)


def nothing_left(text: str, seen: int, reasons: Counter[str]) -> StageError:
    """The error for a condition that dropped everything, with a histogram of why."""
    shown = "; ".join(f"{why} for {times}" for why, times in reasons.most_common(8))
    return StageError(f"where {text} dropped every one of {seen} samples ({shown}); check names and limits")
