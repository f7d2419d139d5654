"""The life of a loader: which pass comes next, where it begins, how far it is, and what its state says.

A pass has a name, the epoch that ``set_epoch`` would give it. Three kinds of passes:

- finite (``epochs=n``): the pass named e covers epochs e to e + n; the next one is e + n. One that was left before its
  end is over.
- in steps (``steps_per_epoch=n``): the stream is endless, and the pass named e is its next n items. The next pass
  goes on where the stream stands, whether the last one was left or not.
- endless (``epochs=None``): there is one pass. What begins it again goes on where the stream stands.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from streampipe.engine.engine import Engine, Level
from streampipe.engine.state import VERSION, checked_state, was_learnt
from streampipe.errors import ConfigError


def options_of(tail: str | None, fixed: bool) -> dict[str, Any]:
    """What a loader was told that decides about batches, in its states for ``sp.replay``."""
    options = {"tail": tail, "fixed_epoch": fixed}
    return {"loader": {name: value for name, value in options.items() if value}} if tail or fixed else {}


class Life:
    """What happens between the passes over an engine. It runs in the parent and holds nothing but numbers.

    Args:
        epochs: of a finite pass; None for an endless one.
        steps: items of a pass in steps.
        fixed: every pass is the same one.
        tail: of an epoch's last batch, where the loader was told.
        compiled: makes the engine anew where that may change it: with what was learnt meanwhile, or without it.
    """

    def __init__(
        self,
        engine: Engine[Any],
        epochs: int | None,
        steps: int | None,
        rank: int,
        ranks: int,
        fixed: bool = False,
        compiled: Callable[[bool | None], Engine[Any]] | None = None,
        tail: str | None = None,
    ) -> None:
        if fixed and epochs is None and steps is None:
            raise ConfigError("fixed_epoch=True needs passes that end: give stream(epochs=1) or steps_per_epoch=")
        self._whole = engine  # as compiled; a state may need another one until its pass is over
        self._compiled = compiled
        self._learns = False  # a pass is over, so more may be known than when the engine was made
        self.engine = engine
        self.epochs = epochs if steps is None else None
        self.steps = steps
        self.fixed = fixed
        self.options = options_of(tail, fixed)
        self.rank, self.ranks = rank, ranks
        self.name = 0  # of the pass that runs, or comes next
        self.taken = 0  # items of it that were received
        self.received_in_all = 0  # items, of all passes since training began, those before a loaded state too
        self.at: Any = None  # where the stream stands; None: at the beginning of the pass
        self.running = False  # the pass was begun, and has not ended
        self.asked = False  # for an item of that pass: before that it is none, and what begins again is the same one
        self.loaded = False  # the pass that comes next was loaded

    @property
    def until(self) -> int | None:
        """The epoch before which the pass ends."""
        return None if self.epochs is None else self.name + self.epochs

    @property
    def left(self) -> int | None:
        """Items that a pass in steps still has."""
        return None if self.steps is None else self.steps - self.taken

    def begin(self) -> None:
        """A pass begins: the one that comes next. One that runs was left."""
        if self.running and self.asked:
            self._over()
        if self._learns and self._compiled is not None and self._whole.level is not Level.INDEXED:
            self._whole = self.engine = self._compiled(None)
        self._learns = False
        if self.epochs is not None or self.steps is not None:
            self.engine.check(self.epochs is not None, self.ranks)
        if self.at is None:
            self.at = self._beginning()
        self.running, self.asked = True, False

    def asks(self) -> None:
        """An item of the pass that runs is wanted."""
        self.asked, self.loaded = True, False

    def _beginning(self) -> Any:
        """Where the pass begins; one in steps behind as many as all before it have, where that place can be found."""
        if self.steps is not None and self.name:
            found = self.engine.skip(self.engine.first(0), self.name * self.steps)
            if found is not None:
                return found
        return self.engine.first(self.name)

    def received(self, moved: Any, more: bool) -> bool:
        """An item was received; whether the pass has more, as far as that is known."""
        self.at = self.engine.behind(self.at, moved)
        self.taken += 1
        self.received_in_all += 1
        if self.left == 0 or self.engine.ended(self.at, self.until) or not more:
            self._over()
            return False
        return True

    def ended(self) -> None:
        """No item is left, though none was known to be the last."""
        if self.running:
            self._over()

    def _over(self) -> None:
        """The pass that ran is over; the next one comes."""
        self.running = False
        self.taken = 0
        if self.epochs is None and self.steps is None:
            return
        self.name += 0 if self.fixed else self.epochs or 1
        if self.epochs is not None or self.fixed:
            self.at, self.engine = None, self._whole
            self._learns = not self.fixed

    def set_epoch(self, epoch: int) -> bool:
        """The next pass is the one of this name, from its beginning; whether that changes anything.

        Where it is the one that comes next anyway, it stays as it is: at its beginning, or where a loaded state stands.
        """
        if epoch < 0:
            raise ConfigError(f"an epoch is 0 or more, not {epoch}")
        running = self.running and self.asked
        if running and epoch != self.name:
            self._over()  # it was left: the caller goes on to another pass
            running = False
        endless = self.epochs is None and self.steps is None
        coming = self.engine.epoch_of(self.at) if endless and self.at is not None else self.name
        if epoch == coming and not running:
            return False
        if self.loaded:
            warnings.warn(
                f"the loaded state, which stands in epoch {coming}, is given up by set_epoch({epoch}): the pass begins "
                f"with epoch {epoch}; to go on where the state stands, call set_epoch({coming}) or leave it out",
                UserWarning,
                stacklevel=3,
            )
        self._reset(epoch)
        return True

    def _reset(self, epoch: int) -> None:
        self.engine, self.at = self._whole, None
        self.name, self.taken, self.running, self.loaded = epoch, 0, False, False

    def state(self) -> dict[str, Any]:
        """Plain JSON: the pass, how much of it was received, and where the stream goes on."""
        at = self._beginning() if self.at is None else self.at
        endless = self.epochs is None and self.steps is None
        return {
            "streampipe": VERSION,
            "epoch": self.engine.epoch_of(at) if endless else self.name,
            "step": self.taken,
            "epochs": self.epochs,
            "steps": self.steps,
            "batches": self.received_in_all,
            **self.options,
            "ranks": self.ranks,
            **self.engine.state(at, self.rank, self.ranks),
        }

    def load(self, states: Sequence[Mapping[str, Any]]) -> None:
        """The next pass continues where the states of one or all ranks were taken.

        Raises:
            ConfigError: they are no states, or of another dataset, seed, ... than this engine.
        """
        found = [checked_state(state) for state in states]
        first = found[0]
        if (of := first.get("worker", (0, 1)))[1] > 1:
            raise ConfigError(
                f"the state is of worker {of[0]} of {of[1]} of a plain DataLoader, which does not know what its "
                f"siblings took: load it where it was saved, or save and load with pipe.loader()"
            )
        if first["kind"] == "new":
            self._reset(first["epoch"])
            self.received_in_all = first.get("batches", 0)
            return
        whole, learnt = self._whole, was_learnt(first)
        if self._compiled is not None and learnt is not None and learnt is (whole.level is Level.STREAMED):
            whole = self._compiled(learnt)
        if first["kind"] != whole.kind:
            raise ConfigError(
                f"the state was saved by a {first['kind']} pipeline, this one is {whole.kind}"
                f"{': ' + whole.why if whole.why else ''}; load it where it was saved, or start a new epoch"
            )
        self.engine, self.at = whole.load(found, self.rank, self.ranks)
        self.running, self.loaded = False, True
        self.received_in_all = first.get("batches", 0)
        self._name(first)

    def rewind(self, state: Mapping[str, Any], running: bool) -> None:
        """A pass was left behind one of its states: what came later was not given out. ``running``: it had more."""
        self.load([state])
        self.running, self.asked, self.loaded = running, running, False
        if running and self.at is None:
            self.at = self._beginning()

    def _name(self, state: Mapping[str, Any]) -> None:
        """Which pass a state stands in, by the passes of this loader: they may have been of another length."""
        epoch = self.engine.epoch_of(self.at)
        self.name, self.taken = state["epoch"], state["step"]
        if self.steps is not None:
            if state["steps"] is None:
                self.name, self.taken = epoch, 0
            elif self.taken >= self.steps:
                self.name, self.taken = self.name + 1, 0
        elif self.epochs is None:
            self.name, self.taken = epoch, 0
        elif state["steps"] is not None or not self.name <= epoch < self.name + self.epochs:
            self.name = epoch
