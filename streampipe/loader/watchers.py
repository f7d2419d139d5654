"""Who is told of each batch that a loader gives out: loggers of metrics, a line or table, the log of samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from streampipe.errors import ConfigError
from streampipe.lineage import Log
from streampipe.report.live import Live, live
from streampipe.report.metrics import HasScalars, Logger, logger_of, metrics
from streampipe.report.summary import Summary


class Watchers:
    """Of one loader. They run in the thread that iterates it.

    Args:
        callbacks: called with metrics and the number of the step, every ``every`` batches.
        progress: ``"line"`` or ``"table"``; None shows nothing.
        log: which samples each batch had; made with the first pass.
    """

    def __init__(
        self,
        callbacks: Sequence[Logger | HasScalars],
        every: int,
        progress: str | None,
        log: Callable[[], Log] | None,
    ) -> None:
        if isinstance(callbacks, str) or not isinstance(callbacks, Iterable):
            raise ConfigError(f"loader: callbacks is a list, as in callbacks=[wandb.log], not {callbacks!r:.80}")
        self._loggers = [logger_of(each) for each in callbacks]
        self._every = every
        self._progress = progress
        self._make_log = log
        self._log: Log | None = None
        self._look: Callable[[], Summary] = Summary
        self._state: Callable[[], Any] = dict
        self._live: Live | None = None

    @property
    def any(self) -> bool:
        """Whether there is anybody."""
        return bool(self._loggers or self._progress or self._make_log)

    def begins(self, total: int | None, look: Callable[[], Summary], state: Callable[[], Any]) -> None:
        """A pass of so many batches begins. ``look`` gives the report's numbers, ``state`` where training stands."""
        self.ends()
        self._look, self._state = look, state
        if self._progress is not None:
            self._live = live(self._progress, self._look, total)
        if self._make_log is not None and self._log is None:
            self._log = self._make_log()

    def asks(self) -> None:
        """A batch comes next."""
        if self._log is not None:
            self._log.begins(self._state)

    def batch(self, number: int, item: Any) -> None:
        """A batch is given out, the ``number``-th since training began."""
        if self._log is not None:
            self._log.batch(number, item)
        if self._live is not None:
            self._live.batch(1)
        if self._loggers and (number + 1) % self._every == 0:
            found = metrics(self._look())
            for log in self._loggers:
                log(found, number + 1)

    def state_taken(self) -> None:
        """A state was taken."""
        if self._log is not None:
            self._log.soon()

    def ends(self) -> None:
        """A pass is over, or was left."""
        if self._live is not None:
            self._live.close()
            self._live = None
        if self._log is not None:
            self._log.write()
        self._look, self._state = Summary, dict  # they are methods of who has this, in a circle
