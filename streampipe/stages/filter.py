"""``filter``: keep the samples for which a function is true."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from streampipe.context import FILLED_IN, Run, blame, key_of, within
from streampipe.counters import counters
from streampipe.stages.nothing import Drops
from streampipe.stages.stage import stage
from streampipe.stages.values import check_function, check_takes_one


def _check(fn: Any) -> None:
    condition = "; where('width >= 512') takes a condition" if isinstance(fn, str) else ""
    check_function("filter", "fn", fn, advice=condition)
    check_takes_one("filter", fn, "the sample")


@stage(rows="fewer", state="nothing", check=_check)
def filter(samples: Iterable[Any], fn: Callable[[Any], Any], *, run: Run = FILLED_IN) -> Iterator[Any]:
    """The samples for which ``fn(sample)`` is true. What is dropped is counted under the stage's name.

    Raises:
        StageError: ``fn`` raised; or it dropped everything (10,000 samples, or all there are for a lone consumer):
            a pass over nothing is a mistake, and in an endless stream it would look like a hang.

    >>> list(filter(fn=lambda s: s["n"] > 1)([{"n": 1}, {"n": 2}]))
    [{'n': 2}]
    """
    fn, drops = within(fn, run), Drops(run, "; check the condition against one sample")
    for sample in samples:
        try:
            keep = fn(sample)
        except Exception as error:
            run.policy.failed(blame(error, run.stage, sample if isinstance(sample, dict) else None), run.stage)
            continue
        if keep:
            drops.keep()
            yield sample
        else:
            counters.add(run.stage, "dropped", example=key_of(sample))
            drops.drop()
    drops.end()
