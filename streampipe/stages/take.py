"""``take``: the first n samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from streampipe.context import FILLED_IN, Run
from streampipe.stages.stage import stage
from streampipe.stages.values import check_number
from streampipe.traits import Limit


def _check(n: Any) -> None:
    check_number("take", "n", n, 0)


def _push(options: Mapping[str, Any]) -> Limit:
    return Limit(0, options["n"])


@stage(rows="fewer", state="offset", views=True, check=_check, pushdown=_push)
def take(samples: Iterable[Any], n: int, *, run: Run = FILLED_IN) -> Iterator[Any]:
    """The first ``n`` of the pass. With several consumers (ranks, workers) each takes its share, ``n`` in all.

    >>> list(take(n=2)("abc"))
    ['a', 'b']
    """
    consumer = run.consumer
    share = n // consumer.total + (consumer.number < n % consumer.total)
    given = run.at[0] if run.at else 0
    for number, sample in enumerate(islice(samples, share - given), given + 1):
        run.trail.mark = [number, run.trail.mark]
        yield sample
