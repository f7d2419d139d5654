"""One pass over a loader: its iterator."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from streampipe.engine.engine import is_nothing
from streampipe.engine.life import Life
from streampipe.errors import ConfigError
from streampipe.loader.feed import Received
from streampipe.loader.recorder import Recorder
from streampipe.loader.watchers import Watchers
from streampipe.policy import ErrorPolicy
from streampipe.stages.batch import LEFT_OUT
from streampipe.stages.grouping import check_decoded


class Flows(Protocol):
    """A loader, as far as a pass looks at it."""

    _recorder: Recorder
    _judge: ErrorPolicy

    def _received(self) -> Iterator[Received]:
        """What comes from here on."""

    def _forget(self) -> None:
        """What comes has ended."""

    def _stop(self) -> None:
        """End what makes items ahead."""


class Pass:
    """The iterator of one pass."""

    def __init__(
        self, loader: Flows, life: Life, watchers: Watchers | None = None, refusal: ConfigError | None = None
    ) -> None:
        self._loader = loader
        self._watchers = watchers
        self._refusal = refusal
        self._life = life
        self.name = life.name
        self.valid = True
        self.over = False  # all items were received, and it was asked for one more
        self.complete = False  # all items were received
        self._given = 0
        self._left_out = loader._recorder.counts.get("batch", LEFT_OUT)
        self._resumed = life.taken > 0 or life.at != life.engine.first(life.name)

    def __iter__(self) -> Pass:
        return self

    def close(self) -> None:
        """Leave the pass: what runs in the background for it ends. With steps_per_epoch the next pass goes on there."""
        if self.valid and not self.over:
            self.over = True
            self._ends()
            if self._life.epochs is not None:
                self._loader._stop()

    def __del__(self, ends: Callable[[], bool] = sys.is_finalizing) -> None:
        if not ends():  # when Python itself ends, what runs in the background ends with it, and modules are gone
            self.close()

    def _ends(self) -> None:
        if self._watchers is not None:
            self._watchers.ends()

    def __next__(self) -> Any:
        if self._refusal is not None:
            raise self._refusal
        if not self.valid:
            raise ConfigError(
                "this iterator of the loader has ended: since then a newer one was begun, or load_state_dict or "
                "set_epoch was called; use a newer one, and a loader for each of the loops that run at the same time"
            )
        life = self._life
        if not self.over:
            self._loader._recorder.asks()
        life.asks()
        if self.over or (self.complete and life.steps is not None):
            self.over = True
            self._ends()
            raise StopIteration
        watchers = self._watchers
        if watchers is not None:
            watchers.asks()
        while True:
            try:
                found = next(self._loader._received(), None)
            except BaseException:
                self._loader._forget()
                self._ends()
                raise
            if found is None:
                return self._at_end()
            if self.complete:
                continue  # only counts follow
            nothing = is_nothing(found.item)
            if nothing:
                life.at = life.engine.behind(life.at, found.moved)
                if not found.more:
                    self.complete = True
                    life.ended()
                continue
            self.complete = not life.received(found.moved, found.more)
            self._given += 1
            if self._given == 1:
                for chain in life.engine.spec.chains:
                    check_decoded(chain, found.item)
            if watchers is not None:
                watchers.batch(life.received_in_all - 1, found.item)
            return found.item

    def _at_end(self) -> Any:
        """The stream has ended. A resumed pass of which nothing was left is over at once: the next one follows."""
        life = self._life
        self._loader._stop()
        try:
            self._judge()
        except BaseException:
            self._ends()
            raise
        if not self.complete:
            life.ended()
        if self._resumed and not self._given:
            self._resumed = False
            self.complete = False
            life.begin()
            self.name = life.name
            return self.__next__()
        self.over = True
        self._ends()
        raise StopIteration

    def _judge(self) -> None:
        """Refuse a stream that has ended and must not have, or of which too much was skipped, or all."""
        life, loader = self._life, self._loader
        if life.until is None:
            raise ConfigError(
                f"rank {life.rank} of {life.ranks} is given no samples, so the endless pass has no more steps; check "
                f"filters and damaged shards (report() counts what was skipped), and that there are as many samples as "
                f"ranks"
            )
        if self._resumed:
            return
        loader._judge.end()
        left_out = loader._recorder.counts.get("batch", LEFT_OUT) - self._left_out
        dropped = loader._judge.judge() if life.ranks == 1 else None
        if not self._given and (error := dropped or life.engine.nothing(int(left_out))) is not None:
            raise error
