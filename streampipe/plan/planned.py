"""The planned tier: an epoch's batches as lists of places in shards, for one rank, from any step on.

The state of a run is a handful of numbers: the step, and what the order depends on. Nothing is remembered by workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, Protocol

from streampipe.counters import counters
from streampipe.errors import ConfigError
from streampipe.plan.lanes import Lanes, choose, sensible_window

VERSION = 1


class Cursor(NamedTuple):
    """A place in a run: the next step of an epoch, and the epoch before which the pass ends (None: it never does)."""

    epoch: int
    step: int
    until: int | None


class Place(NamedTuple):
    """Where a sample is: its number among the kept ones of a shard; in a mixture, of the dataset ``part``.

    ``size``: (height, width) that its images are to have, where buckets decided it.
    """

    shard: int
    number: int
    epoch: int
    part: int = 0
    size: tuple[int, int] | None = None


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


class Weighed(Counted, Protocol):
    """A dataset of which it is known how large its samples are."""

    @property
    def sample_bytes(self) -> float: ...


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

    @property
    def is_empty(self) -> bool:
        """Whether no epoch has a batch."""
        return self.batches == 0

    def batches_in(self, epoch: int) -> int:
        """Batches of that epoch, the same on every rank."""
        return self.batches

    def length(self, epoch: int, epochs: int) -> int:
        """Batches of so many epochs from ``epoch`` on."""
        return sum(map(self.batches_in, range(epoch, epoch + epochs)))

    def steps(self, cursor: Cursor, first: int = 0, stride: int = 1) -> Iterator[Cursor]:
        """Every ``stride``-th step from the ``first`` after ``cursor`` on: a worker's share. Each as a cursor at it."""
        if self.is_empty:
            return
        at = self.after(cursor, first)
        while at.until is None or at.epoch < at.until:
            yield at
            at = self.after(at, stride)

    def after(self, cursor: Cursor, steps: int = 1) -> Cursor:
        """The cursor ``steps`` steps later."""
        epoch, step, until = cursor.epoch, cursor.step + steps, cursor.until
        if self.is_empty:
            return cursor
        while (until is None or epoch < until) and step >= (length := self.batches_in(epoch)):
            epoch, step = epoch + 1, step - length
        return Cursor(epoch, step, until)

    def delivered(self, at: Cursor, places: Sequence[Place], rank: int) -> None:
        """The step ``at`` was made of these places: count what there is to count, as what the epoch leaves out."""
        over = self.lanes.samples % self.lanes.size if self.lanes.tail == "drop" and not rank else 0
        if over and self.after(at).epoch != at.epoch:
            counters.add("batch", "left out at an epoch's end (drop_last)", over)

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
            if state.get(name) != mine.get(name):
                raise ConfigError(
                    f"{what} is {mine.get(name)!r} here and was {state.get(name)!r} when the state was saved: the "
                    f"order would be another one; restore it, or start a new epoch without the state (set_epoch)"
                )
        places, columns = state["lanes"]
        plan = self.with_lanes(places, columns, state["window"] or 0)
        cursor = Cursor(state["epoch"], state["step"], state["until"])
        if cursor.epoch != cursor.until and cursor.step > (steps := plan.batches_in(cursor.epoch)):
            raise ConfigError(
                f"the state is at step {cursor.step} of epoch {cursor.epoch}, which has {steps}: it is "
                f"no state of this run"
            )
        return plan, cursor

    def with_lanes(self, places: int, columns: int, window: int) -> Plan:
        """The same plan with other numbers of lanes, and another window."""
        return replace(self, lanes=replace(self.lanes, places=places, columns=columns, window=window))


_MUST_AGREE = {
    "buckets": "the set of buckets",
    "leftover": "the policy for leftovers",
    "together": "the number of buckets at a step (1; under same=False, one for each rank)",
    "batch": "the global batch (batch size times ranks)",
    "samples": "the number of samples",
    "filter": "the filter (where)",
    "dataset": "the dataset's fingerprint",
    "seed": "the seed",
    "window": "the shuffle's window",
    "tail": "the tail policy",
}


def make(
    dataset: Weighed,
    batch: int,
    window: int | None,
    seed: int,
    tail: str,
    filter: str = "",
    sensible: bool = False,
) -> Plan:
    """A plan for a new run of batches of ``batch`` samples over all ranks.

    ``window`` None is the shards' order; with ``sensible`` it follows from the number of lanes instead.
    """
    places, columns = (1, 1) if window is None else choose(batch, dataset.samples, len(dataset.shards))
    width = (
        0 if window is None else sensible_window(places, places * columns, dataset.sample_bytes) if sensible else window
    )
    lanes = Lanes(dataset.samples, batch, places, columns, width, tail)
    return Plan(dataset, lanes, seed, window is not None, filter, sensible)
