"""What stands between two stages of a chain: samples, or batches of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from streampipe.errors import ConfigError
from streampipe.stages.stage import traits_of
from streampipe.traits import Rows, Takes


def behind(chain: Iterable[Any], first: Takes = Takes.SAMPLES) -> Takes:
    """What the last stage of a chain yields; ``ANY`` where nobody can know. ``first``: what the source gives.

    >>> from streampipe.stages import batch, map, unbatch
    >>> behind([batch(size=2)]), behind([batch(size=2), unbatch()]), behind([map(fn=len), reversed])
    (<Takes.BATCHES: 'batches'>, <Takes.SAMPLES: 'samples'>, <Takes.ANY: 'any'>)
    """
    found = first
    for stage in chain:
        traits = traits_of(stage)
        if traits.rows is Rows.BATCH:
            found = Takes.BATCHES
        elif traits.rows is Rows.SPLIT and found is not Takes.SAMPLES:
            found = Takes.SAMPLES if traits.takes is Takes.BATCHES else Takes.ANY
        elif traits.rows is Rows.ANY:
            found = Takes.ANY
    return found


def check_takes(stage: Any, given: Takes) -> None:
    """Refuse a stage where it is given what it cannot take.

    Raises:
        ConfigError: it says where the stage belongs.
    """
    takes = traits_of(stage).takes
    if Takes.ANY in (takes, given) or takes is given:
        return
    name = getattr(stage, "name", stage)
    if takes is Takes.BATCHES:
        raise ConfigError(f"{name} takes batches apart, and there are none here: put it behind batch(...)")
    if traits_of(stage).rows is Rows.BATCH:
        raise ConfigError(
            f"{name} stands behind a stage that makes batches already, and would make batches of batches: leave one of "
            f"them out, or put unbatch() between them"
        )
    raise ConfigError(
        f"{name} works on samples, and stands behind batch: put it in front of batch, or unbatch() between them"
    )
