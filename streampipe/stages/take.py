"""``take``: the first n samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from streampipe.context import Run
from streampipe.errors import ConfigError
from streampipe.stages.stage import stage


@stage(views=True)
def take(samples: Iterable[Any], n: int, *, run: Run) -> Iterator[Any]:
    """The first ``n`` of the pass. With several consumers (ranks, workers) each takes its share, ``n`` in all.

    >>> list(take(n=2)("abc"))
    ['a', 'b']
    """
    if n < 0:
        raise ConfigError(f"take takes 0 or more samples, not {n}")
    consumer = run.consumer
    share = n // consumer.total + (consumer.number < n % consumer.total)
    given = run.at[0] if run.at else 0
    for number, sample in enumerate(islice(samples, share - given), given + 1):
        run.trail.mark = [number, run.trail.mark]
        yield sample
