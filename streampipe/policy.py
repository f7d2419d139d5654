"""What to do with a bad sample or shard: stop, or skip it, count it, and stop when it becomes too much."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from streampipe.counters import counters
from streampipe.errors import ConfigError, SampleError, ShardError, StreampipeError, TooManyErrors

log = logging.getLogger("streampipe")


@dataclass
class _Tally:
    good: int = 0
    bad: int = 0
    in_row: int = 0


@dataclass
class Fate:
    """What a stage kept and dropped in all lanes of a consumer, and what there is to say if it kept nothing."""

    kept: bool = False
    dropped: int = 0
    error: StreampipeError | None = None


@dataclass
class ErrorPolicy:
    """``raise`` (the default): the first error ends the run. ``skip``: a bad shard's rest or a bad sample is left out.

    Every skip is counted by its reason, and the 1st, 2nd, 4th, 8th, ... of a reason is logged. Where a place in the
    pipeline (the shards, a stage) skips more than ``max_in_row`` one after the other, or more than ``max_share`` of
    what it saw (judged from 100 skips on), ``TooManyErrors`` is raised anyway: a broken dataset must not look like a
    small one. Only errors of shards and samples can be skipped, never those of set-up, access or disks.

    >>> policy = ErrorPolicy("skip", max_in_row=1)
    >>> policy.failed(SampleError("sample 'a' is bad"), "decode")
    >>> policy.failed(SampleError("sample 'b' is bad"), "decode")
    Traceback (most recent call last):
        ...
    streampipe.errors.TooManyErrors: decode skipped 2 of 2, 2 in a row (allowed: 1): check the data, ...
    """

    mode: str = "raise"
    max_share: float = 0.01
    max_in_row: int = 100
    _tallies: dict[str, _Tally] = field(default_factory=dict, repr=False, compare=False)
    _logged: dict[str, int] = field(default_factory=dict, repr=False, compare=False)
    _account: list[int] = field(default_factory=lambda: [0], repr=False, compare=False)
    _fates: dict[str, Fate] = field(default_factory=dict, repr=False, compare=False)
    handled: Callable[[Exception], bool] | None = field(default=None, repr=False, compare=False)
    """Errors that a decorator of the stage wants to see: they are raised, to it."""

    def __post_init__(self) -> None:
        if self.mode not in ("raise", "skip"):
            raise ConfigError(f"on_error is 'raise', 'skip' or an sp.ErrorPolicy, not {self.mode!r}")

    def fresh(self) -> ErrorPolicy:
        """The same policy with nothing counted yet: every pass over the data starts with one."""
        return ErrorPolicy(self.mode, self.max_share, self.max_in_row)

    def of_stage(self) -> ErrorPolicy:
        """The same policy and counts for one stream of a stage, which has a ``left_out`` of its own."""
        return replace(self, _account=[0])

    def inside(self, handled: Callable[[Exception], bool]) -> ErrorPolicy:
        """The same policy for a decorated stage: errors that the decorator handles are raised, to it."""
        return replace(self, handled=handled)

    def fate(self, place: str) -> Fate:
        """What became of the samples at a stage, in all lanes together."""
        return self._fates.setdefault(place, Fate())

    def judge(self) -> StreampipeError | None:
        """The error of a stage that kept nothing of all that it was given, if there is one."""
        return next((fate.error for fate in self._fates.values() if not fate.kept and fate.error), None)

    @property
    def left_out(self) -> int:
        """Samples of a stage's stream that did not come through: skipped, or dropped on purpose."""
        return self._account[0]

    def dropped(self) -> None:
        """One sample was left out on purpose."""
        self._account[0] += 1

    def passed(self, place: str) -> None:
        """One sample came through at ``place``."""
        tally = self._tallies.get(place)
        if tally is None:
            tally = self._tallies[place] = _Tally()
        tally.good += 1
        tally.in_row = 0

    def failed(self, error: StreampipeError, place: str) -> None:
        """One sample or shard did not come through: raise ``error``, or count it and return."""
        if self.mode == "raise" or not isinstance(error, (SampleError, ShardError)):
            raise error
        if self.handled is not None and self.handled(error):
            raise error
        self._account[0] += 1
        reason = type(error).__name__
        counters.add("skipped", reason)
        seen = self._logged[reason] = self._logged.get(reason, 0) + 1
        if seen & (seen - 1) == 0:
            log.warning("skipped (%s, number %d of its kind): %s", reason, seen, error)
        tally = self._tallies.setdefault(place, _Tally())
        tally.bad += 1
        tally.in_row += 1
        total = tally.good + tally.bad
        too_long = tally.in_row > self.max_in_row
        if too_long or (tally.bad >= 100 and tally.bad > self.max_share * total):
            limit = str(self.max_in_row) if too_long else f"{self.max_share:.2%} of all"
            raise TooManyErrors(
                f"{place} skipped {tally.bad} of {total}, {tally.in_row} in a row (allowed: {limit}): check the data, "
                f"or allow more with on_error=sp.ErrorPolicy('skip', max_share=, max_in_row=); the last was: {error}"
            ) from error
