"""The planned tier: an epoch's batches as lists of places in shards, for one rank, from any step on.

The state of a run is a handful of numbers: the step, and what the order depends on. Nothing is remembered by workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, Protocol

from streampipe.errors import ConfigError
from streampipe.lanes import Lanes, choose, sensible_window

VERSION = 1


class Cursor(NamedTuple):
    """A place in a run: the next step of an epoch, and the epoch before which the pass ends (None: it never does)."""

    epoch: int
    step: int
    until: int | None


class Place(NamedTuple):
    """Where a sample is: its number among the kept ones of a shard; in a mixture, of the dataset ``part``."""

    shard: int
    number: int
    epoch: int
    part: int = 0


class Counted(Protocol):
    """What a plan needs of a dataset."""

    samples: int

    @property
    def shards(self) -> Sequence[str]: ...
    @property
    def fingerprint(self) -> str: ...
    def places(self, plan: Any, rank: int, ranks: int) -> Callable[[int, int], list[Any]]: ...
    @property
    def chains(self) -> Sequence[Any] | None: ...
    def parts(self) -> Sequence[Any]: ...


@dataclass(frozen=True)
class Plan:
    """Everything that decides which samples a rank gets in which batch."""

    dataset: Counted
    lanes: Lanes
    seed: int
    shuffled: bool
    filter: str = ""
    sensible: bool = False  # the window was not given, but chosen at the first start, as the lanes were

    @cached_property
    def batches(self) -> int:
        """Batches of an epoch, the same on every rank."""
        return self.lanes.batches

    def steps(self, cursor: Cursor, first: int = 0, stride: int = 1) -> Iterator[Cursor]:
        """Every ``stride``-th step from the ``first`` after ``cursor`` on: a worker's share. Each as a cursor at it."""
        batches = self.batches
        if batches == 0:
            return
        step, epoch, until = cursor.step + first, cursor.epoch, cursor.until
        while True:
            epoch, step = epoch + step // batches, step % batches
            if until is not None and epoch >= until:
                return
            yield Cursor(epoch, step, until)
            step += stride

    def after(self, cursor: Cursor, steps: int = 1) -> Cursor:
        """The cursor ``steps`` steps later."""
        if cursor.step + steps < (batches := self.batches) or batches == 0:
            return Cursor(cursor.epoch, cursor.step + (steps if batches else 0), cursor.until)
        epochs, step = divmod(cursor.step + steps, batches)
        return Cursor(cursor.epoch + epochs, step, cursor.until)

    def remaining(self, cursor: Cursor) -> int | None:
        """Steps from ``cursor`` to the end of the pass; None for an endless one."""
        if cursor.until is None:
            return None
        return max(0, (cursor.until - cursor.epoch) * self.batches - cursor.step)

    def state(self, cursor: Cursor) -> dict[str, Any]:
        """What ``load`` needs to go on at ``cursor``, as plain JSON."""
        lanes = self.lanes
        return {
            "streampipe": VERSION,
            "tier": "planned",
            "epoch": cursor.epoch,
            "step": cursor.step,
            "until": cursor.until,
            "seed": self.seed,
            "batch": lanes.size,
            "lanes": [lanes.places, lanes.columns],
            "window": lanes.window if self.shuffled else None,
            "tail": lanes.tail,
            "samples": lanes.samples,
            "dataset": self.dataset.fingerprint,
            "filter": self.filter,
        }

    def load(self, state: Mapping[str, Any]) -> tuple[Plan, Cursor]:
        """The plan that a state was saved with, and where it goes on.

        Raises:
            ConfigError: the state is of another dataset, filter, batch size, seed, shuffle or version; it names both.
        """
        if state.get("streampipe") != VERSION or state.get("tier") != "planned":
            raise ConfigError(
                f"this state is of tier {state.get('tier')!r} and version {state.get('streampipe')!r}, the pipeline is "
                f"planned and reads version {VERSION}: load it where it was saved, or start a new epoch"
            )
        mine = self.state(Cursor(0, 0, None))
        for name, what in _MUST_AGREE.items():
            if name == "window" and self.sensible and state.get("window") is not None:
                continue
            if state.get(name) != mine[name]:
                raise ConfigError(
                    f"{what} is {mine[name]!r} here and was {state.get(name)!r} when the state was saved: the order "
                    f"would be another one; restore it, or start a new epoch without the state (set_epoch)"
                )
        places, columns = state["lanes"]
        window = state["window"] or 0
        plan = replace(self, lanes=replace(self.lanes, places=places, columns=columns, window=window))
        return plan, Cursor(state["epoch"], state["step"], state["until"])


_MUST_AGREE = {
    "batch": "the global batch (batch size times ranks)",
    "samples": "the number of samples",
    "filter": "the filter (where)",
    "dataset": "the dataset's fingerprint",
    "seed": "the seed",
    "window": "the shuffle's window",
    "tail": "the tail policy",
}


def make(
    dataset: Counted,
    batch: int,
    ranks: int,
    window: int | None,
    seed: int,
    tail: str,
    filter: str = "",
    sensible: bool = False,
) -> Plan:
    """A plan for a new run of batches of ``batch`` samples over all ranks.

    ``window`` None is the shards' order; with ``sensible`` it follows from the number of lanes instead.
    """
    places, columns = (1, 1) if window is None else choose(batch, dataset.samples, len(dataset.shards), ranks)
    width = 0 if window is None else sensible_window(places) if sensible else window
    lanes = Lanes(dataset.samples, batch, places, columns, width, tail)
    return Plan(dataset, lanes, seed, window is not None, filter, sensible)
