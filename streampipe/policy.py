"""What to do with a bad sample or shard: stop, or skip it, count it, and stop when it becomes too much."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from streampipe.counters import counters
from streampipe.errors import ConfigError, SampleError, ShardError, StreampipeError, TooManyErrors

log = logging.getLogger("streampipe")


@dataclass
class ErrorPolicy:
    """``raise`` (the default): the first error ends the run. ``skip``: a bad shard's rest or a bad sample is left out.

    Every skip is counted by its reason and the 1st, 2nd, 4th, 8th, ... of a reason is logged. More than ``max_share``
    of all samples (once 100 were skipped), or more than ``max_in_row`` one after the other, raises ``TooManyErrors``
    anyway: a broken dataset must not look like a small one. Only errors of shards and samples can be skipped.

    >>> policy = ErrorPolicy("skip", max_in_row=1)
    >>> policy.failed(SampleError("sample 'a' is bad"))
    >>> policy.failed(SampleError("sample 'b' is bad"))
    Traceback (most recent call last):
        ...
    streampipe.errors.TooManyErrors: skipped 2 of 2, 2 in a row (allowed: 1): check the data, ...
    """

    mode: str = "raise"
    max_share: float = 0.01
    max_in_row: int = 100
    _good: int = field(default=0, repr=False)
    _bad: int = field(default=0, repr=False)
    _in_row: int = field(default=0, repr=False)
    _logged: dict[str, int] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.mode not in ("raise", "skip"):
            raise ConfigError(f"on_error is 'raise' or 'skip' (or an ErrorPolicy), not {self.mode!r}")

    def fresh(self) -> ErrorPolicy:
        """The same policy with nothing counted yet: every pass over the data starts with one."""
        return ErrorPolicy(self.mode, self.max_share, self.max_in_row)

    def passed(self) -> None:
        """One sample came through."""
        self._good += 1
        self._in_row = 0

    def failed(self, error: StreampipeError) -> None:
        """One sample or shard did not: raise ``error``, or count it and return."""
        if self.mode == "raise" or not isinstance(error, (SampleError, ShardError)):
            raise error
        reason = type(error).__name__
        counters.add("skipped", reason)
        self._bad += 1
        self._in_row += 1
        seen = self._logged[reason] = self._logged.get(reason, 0) + 1
        if seen & (seen - 1) == 0:
            log.warning("skipped (%s, number %d of its kind): %s", reason, seen, error)
        total = self._good + self._bad
        if self._in_row > self.max_in_row or (self._bad >= 100 and self._bad > self.max_share * total):
            limit = f"{self.max_in_row}" if self._in_row > self.max_in_row else f"{self.max_share:.0%} of all"
            raise TooManyErrors(
                f"skipped {self._bad} of {total}, {self._in_row} in a row (allowed: {limit}): check the data, or raise "
                f"the limits with on_error=sp.ErrorPolicy('skip', max_share=, max_in_row=); the last one was: {error}"
            ) from error
