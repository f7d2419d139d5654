"""``skip``: all but the first n samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from streampipe.context import FILLED_IN, Run
from streampipe.stages.stage import stage
from streampipe.stages.values import check_number
from streampipe.traits import Limit


def _check(n: Any) -> None:
    check_number("skip", "n", n, 0)


def _push(options: Mapping[str, Any]) -> Limit:
    return Limit(options["n"], None)


@stage(rows="fewer", state="offset", views=True, check=_check, pushdown=_push)
def skip(samples: Iterable[Any], n: int, *, run: Run = FILLED_IN) -> Iterator[Any]:
    """All but the first ``n`` of an epoch. Where it stands behind a stage that may drop or add samples, each lane skips
    its share if there are several ranks or workers, or the pass has no end: see ``take``.

    ``skip(n)`` and ``take(n)`` of the same pipeline have all samples together, each once.

    >>> list(skip(n=2)("abc"))
    ['c']
    """
    consumer = run.consumer
    share = n // consumer.total + (consumer.number < n % consumer.total)
    seen = run.at[0] if run.at else 0
    for sample in samples:
        seen += 1
        if seen > share:
            run.trail.mark = [share, run.trail.mark]
            yield sample
