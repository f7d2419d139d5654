"""Against stages that drop everything: a pass over nothing is a mistake, and in an endless stream looks like a hang."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from functools import partial

from streampipe.context import Run
from streampipe.errors import StageError

Error = Callable[[int, Counter[str]], StageError]
"""The error for so many samples that were dropped, for these reasons. It can be pickled."""
log = logging.getLogger("streampipe")
NOTHING_LEFT = 10_000
"""Samples after which a stage that has kept none is taken for a mistake."""


class Drops:
    """What a stage has dropped, as long as it has kept nothing. ``advice`` ends the message.

    A rest of a pass that was resumed may be without any; a planned batch of which nothing is left is an error anyway,
    and so is a pool's; one planned sample is not all there are, and nor is one consumer's share.
    """

    def __init__(self, run: Run, advice: str) -> None:
        self._run = run
        self._advice = advice
        self._dropped: int | None = None if run.resumed else 0

    def keep(self) -> None:
        """A sample was kept."""
        if self._dropped is not None and self._run.in_lane:
            self._run.policy.fate(self._run.stage).kept = True
        self._dropped = None

    def drop(self) -> None:
        """A sample was dropped. Where one was kept, the run is told and that is all.

        Raises:
            StageError: as were 10,000 before it.
        """
        self._run.drop()
        if self._dropped is not None:
            self._dropped += 1
            if self._dropped >= NOTHING_LEFT:
                raise self._error(self._others + self._dropped, Counter())

    def end(self) -> None:
        """The samples are at their end.

        Raises:
            StageError: all of them were dropped.
            TooManyErrors: all of them were skipped, or most.
        """
        run = self._run
        if run.consumer.total == 1 and not run.in_lane and not run.fill and not run.open_shards and not run.resumed:
            run.policy.end(run.stage)  # a plan's stages end with each of its batches, a lane's with each epoch
        if self._dropped is None or not self._dropped:
            return
        if self._run.in_lane and self._others + self._dropped < 2:
            self._run.policy.fate(self._run.stage).dropped += self._dropped
        elif self._run.in_lane or (self._dropped >= 2 and not self._run.fill):
            none_left(self._run, self._dropped, self._error, Counter())

    @property
    def _others(self) -> int:
        """Those that the stage has dropped in other lanes."""
        return self._run.policy.fate(self._run.stage).dropped if self._run.in_lane else 0

    @property
    def _error(self) -> Error:
        return partial(_every_one, self._run.stage, self._advice)


def _every_one(stage: str, advice: str, dropped: int, reasons: Counter[str]) -> StageError:
    return StageError(f"stage {stage!r} dropped every one of {dropped} samples{advice}")


def none_left(run: Run, dropped: int, error: Error, reasons: Counter[str]) -> None:
    """A stream has ended of which a stage kept nothing: an error if it was all there is, else for others to judge."""
    if run.in_lane:
        fate = run.policy.fate(run.stage)
        fate.dropped += dropped
        fate.reasons += reasons
        fate.error = error
    elif run.consumer.total == 1:
        raise error(dropped, reasons)
    else:
        log.warning("stage %r kept none of the %d samples of this consumer", run.stage, dropped)
