"""What to do with a bad sample or shard: stop, or skip it, count it, and stop when it becomes too much."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from streampipe.counters import counters
from streampipe.errors import ConfigError, SampleError, ShardError, StreampipeError, TooManyErrors
from streampipe.kinds import checked_class
from streampipe.locks import ProcessLock

log = logging.getLogger("streampipe")


@dataclass(frozen=True)
class Budget:
    """How many errors ``@on_error`` may handle at one place of a pass: a number, or a share below 1."""

    name: str
    most: int | float

    @property
    def place(self) -> str:
        """Under which it is counted."""
        return f"on_error({self.name})"

    def is_over(self, good: int, bad: int, at_end: bool = False) -> bool:
        """Whether it is more. A share is judged from 100 calls and 10 errors on."""
        if isinstance(self.most, int):
            return bad > self.most
        return bad >= _FEW and (at_end or good + bad >= _JUDGED) and bad > self.most * (good + bad)


Counts = dict[str, tuple[int, int, "Budget | None"]]
"""How many came through and how many did not, by the place in the pipeline, and its budget: what can be sent."""
_JUDGED = 100
"""Skips from which on the share of what was skipped is judged while a pass goes on."""
_MOST = 0.5
"""The share of all that may be skipped at the end of a pass."""
_FEW = 10
"""Skips below which that share says nothing, unless it is all."""
_handling = ProcessLock()  # ``@on_error`` handles errors in the threads of a pool


@dataclass
class _Tally:
    good: int = 0
    bad: int = 0
    in_row: int = 0
    seen: int = 0  # how many had come through when the last item was yielded
    sent: tuple[int, int] = (0, 0)
    last: str = ""
    budget: Budget | None = None


@dataclass
class Fate:
    """What a stage kept, and how many it dropped for which reasons, in all lanes together; and the error if it kept
    nothing, which is made of these two.
    """

    kept: bool = False
    dropped: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    error: Callable[[int, Counter[str]], StreampipeError] | None = None


@checked_class
@dataclass
class ErrorPolicy:
    """``raise`` (the default): the first error ends the run. ``skip``: a bad shard's rest or a bad sample is left out.

    Every skip is counted by its reason, and the 1st, 2nd, 4th, 8th, ... of a reason is logged. Where a place in the
    pipeline (the shards, a stage) skips more than ``max_in_row`` one after the other, or more than ``max_share`` of
    what it saw (judged from 100 skips on), ``TooManyErrors`` is raised anyway: a broken dataset must not look like a
    small one. At the end of a pass it is raised where all was skipped, however little there was, or at least ten and
    more than half; a larger ``max_share`` allows more. Only errors of shards and samples can be skipped, never those
    of set-up, access or disks.

    Several processes that read one pass each have a policy; ``take`` and ``merge`` bring their numbers together.

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
        if not 0 <= self.max_share <= 1 or self.max_in_row < 0:
            raise ConfigError(
                f"ErrorPolicy: max_share is from 0 to 1 and max_in_row 0 or more, not {self.max_share} and "
                f"{self.max_in_row}"
            )

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

    @property
    def fates(self) -> dict[str, Fate]:
        """That of every stage, for the policy of another consumer to merge."""
        return self._fates

    def judge(self) -> StreampipeError | None:
        """The error of a stage that kept nothing of all that it was given, if there is one."""
        found = (fate for fate in self._fates.values() if not fate.kept)
        return next((fate.error(fate.dropped, fate.reasons) for fate in found if fate.error is not None), None)

    @property
    def left_out(self) -> int:
        """Samples of a stage's stream that did not come through: skipped, or dropped on purpose."""
        return self._account[0]

    def dropped(self) -> None:
        """One sample was left out on purpose."""
        self._account[0] += 1

    def passed(self, place: str, number: int = 1) -> None:
        """A sample came through at ``place``, or so many."""
        if not number:
            return
        tally = self._tallies.get(place)
        if tally is None:
            tally = self._tallies[place] = _Tally()
        tally.good += number
        tally.in_row = 0

    def yielded(self, place: str) -> None:
        """The stage at ``place`` yielded an item: a sample came through, unless it said so itself (``passed``)."""
        if self.mode == "raise":
            return
        tally = self._tallies.get(place)
        if tally is None:
            tally = self._tallies[place] = _Tally()
        if tally.good == tally.seen:
            tally.good += 1
            tally.in_row = 0
        tally.seen = tally.good

    def failed(self, error: StreampipeError, place: str) -> None:
        """One sample or shard did not come through: raise ``error``, or count it and return."""
        if self.mode == "raise" or not isinstance(error, (SampleError, ShardError)):
            raise error
        if self.handled is not None and self.handled(error):
            raise error
        self._account[0] += 1
        reason = type(error).__name__
        counters.add("skipped", reason, 1, error)
        seen = self._logged[reason] = self._logged.get(reason, 0) + 1
        if seen & (seen - 1) == 0:
            log.warning("skipped (%s, number %d of its kind): %s", reason, seen, error)
        tally = self._tallies.setdefault(place, _Tally())
        tally.bad += 1
        tally.in_row += 1
        tally.last = str(error)
        if tally.in_row > self.max_in_row:
            raise self._too_many(place, str(self.max_in_row)) from error
        self._judge(place, error)

    def handled_well(self, budget: Budget) -> None:
        """A call that ``@on_error`` watches went well."""
        with _handling:
            self._of(budget).good += 1

    def handled_error(self, error: Exception, budget: Budget) -> None:
        """``@on_error`` handles an error, whatever the mode is.

        Raises:
            TooManyErrors: that is more than its budget allows.
        """
        with _handling:
            tally = self._of(budget)
            tally.bad += 1
            tally.last = f"{type(error).__name__}: {error}"
            self._judge(budget.place, error)

    def _of(self, budget: Budget) -> _Tally:
        return self._tallies.get(budget.place) or self._tallies.setdefault(budget.place, _Tally(budget=budget))

    def take(self) -> Counts:
        """What was counted since it was last taken, for the policy of another process to merge."""
        found = {}
        for place, tally in self._tallies.items():
            now = tally.good, tally.bad
            if now != tally.sent:
                found[place] = now[0] - tally.sent[0], now[1] - tally.sent[1], tally.budget
                tally.sent = now
        return found

    def merge(self, counts: Counts, fates: Mapping[str, Fate] | None = None) -> None:
        """Add what another consumer took, and what became of samples at its stages.

        Raises:
            TooManyErrors: together it is too much.
        """
        for place, fate in (fates or {}).items():
            mine = self.fate(place)
            mine.dropped += fate.dropped
            mine.reasons += fate.reasons
            mine.error = mine.error or fate.error
            mine.kept = mine.kept or fate.kept
        for place, (good, bad, budget) in counts.items():
            tally = self._tallies.setdefault(place, _Tally(budget=budget))
            tally.good += good
            tally.bad += bad
            if bad:
                self._judge(place)

    def end(self, *places: str) -> None:
        """Judge a pass that has ended, at some places or all, by what was counted of all of it.

        Raises:
            TooManyErrors: all was skipped, or at least ten and more than half.
        """
        most = max(_MOST, self.max_share)
        for place in places or tuple(self._tallies):
            tally = self._tallies.get(place, _Tally())
            if tally.budget is not None:
                if tally.budget.is_over(tally.good, tally.bad, at_end=True):
                    raise self._too_many(place, "")
                continue
            enough = tally.bad >= _FEW or not tally.good
            if enough and tally.bad > most * (tally.good + tally.bad):
                raise self._too_many(place, f"{most:.0%} at the end")

    def _judge(self, place: str, error: Exception | None = None) -> None:
        """Judge what was skipped or handled, once that is many."""
        tally = self._tallies[place]
        if tally.budget is not None:
            if tally.budget.is_over(tally.good, tally.bad):
                raise self._too_many(place, "") from error
        elif tally.bad >= _JUDGED and tally.bad > self.max_share * (tally.good + tally.bad):
            raise self._too_many(place, f"{self.max_share:.2%} of all") from error

    def _too_many(self, place: str, allowed: str) -> TooManyErrors:
        tally = self._tallies[place]
        if tally.budget is not None:
            last = f"; the last error was {tally.last}" if tally.last else ""
            return TooManyErrors(
                f"{tally.budget.name} failed {tally.bad} times in {tally.good + tally.bad} calls, more than its budget "
                f"of {tally.budget.most} allows{last}"
            )
        last = f"; the last was: {tally.last}" if tally.last else ""
        return TooManyErrors(
            f"{place} skipped {tally.bad} of {tally.good + tally.bad}, {tally.in_row} in a row (allowed: {allowed}): "
            f"check the data, or allow more with on_error=sp.ErrorPolicy('skip', max_share=, max_in_row=){last}"
        )
