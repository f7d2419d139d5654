"""``take``: the first n samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from streampipe.context import FILLED_IN, Run
from streampipe.counters import counters
from streampipe.stages.stage import stage
from streampipe.stages.values import check_number
from streampipe.traits import Limit


def _check(n: Any) -> None:
    check_number("take", "n", n, 0)


def _push(options: Mapping[str, Any]) -> Limit:
    return Limit(0, options["n"])


@stage(rows="fewer", state="offset", views=True, check=_check, pushdown=_push)
def take(samples: Iterable[Any], n: int, *, run: Run = FILLED_IN) -> Iterator[Any]:
    """The first ``n`` of an epoch.

    They are ``n`` over all ranks and workers where samples are counted and only ``where`` stands before it. Behind a
    stage that may drop or add samples, and in streams, that is so in one process alone, in passes that end
    (``epochs=n``, without ``steps_per_epoch``). With several ranks or workers, or without end, each lane takes its
    share of ``n``, and fewer if it has no more; ``report()`` says how many.

    >>> list(take(n=2)("abc"))
    ['a', 'b']
    """
    consumer = run.consumer
    share = n // consumer.total + (consumer.number < n % consumer.total)
    given = run.at[0] if run.at else 0
    number = given
    for number, sample in enumerate(islice(samples, share - given), given + 1):
        run.trail.mark = [number, run.trail.mark]
        yield sample
    if consumer.total > 1 and number < share:
        counters.add(run.stage, "not taken, because a lane had fewer than its share", share - number)
