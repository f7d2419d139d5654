"""The planned tier: an epoch's batches as lists of places in shards, for one rank, from any step on.

The state of a run is a handful of numbers: the step, and what the order depends on. Nothing is remembered by workers.

A run may go on with another global batch. What is left of its epoch are the draws that no step took, in the order that
the epoch was begun with, cut into batches of the new size; later epochs have the lanes of the new batch. However often
that happens in an epoch, its order is one and the taken draws are its first ones, so the state keeps both only once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from streampipe.counters import counters
from streampipe.errors import ConfigError
from streampipe.plan.cut import Cut
from streampipe.plan.lanes import EpochOrder, Lanes, Shuffle, batch_seed, choose


class Cursor(NamedTuple):
    """A place in a run: the next step of an epoch, and the epoch before which the pass ends (None: it never does)."""

    epoch: int
    step: int
    until: int | None


class Place(NamedTuple):
    """Where a sample is: its number among the kept ones of a shard; in a mixture, of the dataset ``part``.

    ``size``: (height, width), of clips (height, width, frames), that its images are to have, where buckets decided it.
    """

    shard: int
    number: int
    epoch: int
    part: int = 0
    size: tuple[int, ...] | None = None


class Counted(Protocol):
    """What a plan needs of a dataset."""

    samples: int

    @property
    def shards(self) -> Sequence[str]: ...
    @property
    def fingerprint(self) -> str: ...
    def places(self, plan: Any, rank: int, ranks: int, repeat: bool = True) -> Callable[[int, int], list[Any]]: ...
    @property
    def chains(self) -> Sequence[Any] | None: ...
    def parts(self) -> Sequence[Any]: ...


class Weighed(Counted, Protocol):
    """A dataset of which it is known how large its samples are."""

    @property
    def sample_bytes(self) -> float: ...


@dataclass(frozen=True)
class Begun:
    """An epoch that was begun with another global batch: ``draws`` samples, in the order of ``lanes``, in ``steps``."""

    epoch: int
    lanes: Lanes
    draws: int
    steps: int


@dataclass(frozen=True)
class Plan:
    """Everything that decides which samples a rank gets in which batch."""

    dataset: Counted
    lanes: Lanes
    seed: int
    shuffled: bool
    filter: str = ""
    sensible: bool = False  # the window was not given, but chosen at the first start, as the lanes were
    begun: Begun | None = None

    @property
    def batches(self) -> int:
        """Batches of an epoch, the same on every rank; of one begun with another batch see ``batches_in``."""
        return self.lanes.batches

    def cut(self, epoch: int) -> Cut:
        """How that epoch's draws become batches."""
        begun = self._begun_in(epoch)
        if begun is None:
            return self.lanes.cut
        return Cut(self.lanes.samples, self.lanes.size, self.lanes.tail, begun.draws, begun.steps)

    def order(self, epoch: int) -> EpochOrder:
        """The order of that epoch's draws."""
        begun = self._begun_in(epoch)
        return EpochOrder(begun.lanes if begun else self.lanes, batch_seed(self.seed, epoch))

    def _begun_in(self, epoch: int) -> Begun | None:
        return self.begun if self.begun and self.begun.epoch == epoch else None

    @property
    def window(self) -> int:
        """The widest window in which samples are shuffled."""
        own = self.lanes.window if self.shuffled else 0
        return max([own, *(getattr(part, "window", None) or 0 for part in getattr(self.dataset, "mixed", ()))])

    @property
    def known(self) -> Cursor:
        """The first place that this plan knows: what came before it had another global batch, or schedule."""
        return Cursor(self.begun.epoch, self.begun.steps, None) if self.begun else Cursor(0, 0, None)

    def since(self, first: Cursor, at: Cursor) -> int:
        """Steps from one place to a later one, neither before ``known``."""
        return self.length(first.epoch, at.epoch - first.epoch) + at.step - first.step

    @property
    def is_empty(self) -> bool:
        """Whether no epoch has a batch."""
        return self.batches == 0

    def batches_in(self, epoch: int) -> int:
        """Batches of that epoch, the same on every rank, those before a change of the global batch too."""
        return self.batches if self.begun is None else self.cut(epoch).batches

    def length(self, epoch: int, epochs: int) -> int:
        """Batches of so many epochs from ``epoch`` on."""
        begun = self.begun is not None and epoch <= self.begun.epoch < epoch + epochs
        more = self.batches_in(self.begun.epoch) - self.batches if self.begun is not None and begun else 0
        return epochs * self.batches + more

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
        if self.is_empty or (until is not None and epoch >= until) or step < self.batches_in(epoch):
            return cursor if self.is_empty else Cursor(epoch, step, until)
        most = None if until is None else until - epoch
        over = 1  # so many epochs are over, or more
        while (most is None or over < most) and self.length(epoch, 2 * over) <= step:
            over *= 2
        low, high = (over, 2 * over) if most is None else (min(over, most), min(2 * over, most + 1))
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.length(epoch, middle) <= step else (low, middle)
        return Cursor(epoch + low, step - self.length(epoch, low), until)

    @property
    def drops(self) -> dict[tuple[str, str], int]:
        """What stages drop of each epoch, and why, as far as it is decided before anything is read."""
        found: dict[tuple[str, str], int] = {}
        for drops in {id(part): part.drops for part in self.dataset.parts()}.values():
            for at, number in drops.items():
                found[at] = found.get(at, 0) + number
        return found

    def delivered(self, at: Cursor, places: Sequence[Place], rank: int) -> None:
        """The step ``at`` was made of these places: count what there is to count, as what the epoch leaves out."""
        over = 0 if rank else self.cut(at.epoch).left_out
        if over and self.after(at).epoch != at.epoch:
            counters.add("batch", "left out at an epoch's end (drop_last)", over)

    def state(self, cursor: Cursor) -> dict[str, Any]:
        """What ``load`` needs to go on at ``cursor``, as plain JSON."""
        lanes, begun = self.lanes, self._begun_in(cursor.epoch)
        state = {
            "kind": "planned",
            "at": [cursor.epoch, cursor.step],
            "seed": self.seed,
            "batch": self.batch,
            "lanes": [lanes.places, lanes.columns],
            "window": lanes.window if self.shuffled else None,
            "tail": lanes.tail,
            "samples": lanes.samples,
            "dataset": self.dataset.fingerprint,
            "filter": self.filter,
        }
        if begun is not None:
            old = begun.lanes
            state["begun"] = {
                "batch": old.size,
                "lanes": [old.places, old.columns],
                "window": old.window,
                "draws": begun.draws,
                "steps": begun.steps,
            }
        return state

    def load(self, state: Mapping[str, Any]) -> tuple[Plan, Cursor]:
        """The plan that goes on with a state, and where.

        With the global batch that the state was saved with it is the plan of then. With another one it is this plan,
        but for the rest of the epoch: that is the samples which no step took, in the order that they had.

        Raises:
            ConfigError: the state is of another dataset, filter, seed or shuffle; it names both.
        """
        self._check_agrees(state)
        cursor = Cursor(state["at"][0], state["at"][1], None)
        then = self._as_saved(state)
        if cursor.step > (steps := then.batches_in(cursor.epoch)):
            raise ConfigError(
                f"the state is at step {cursor.step} of epoch {cursor.epoch}, which has {steps}: it is "
                f"no state of this run"
            )
        return (then, cursor) if self._is_same(state) else self._from(then, cursor, state)

    def _is_same(self, state: Mapping[str, Any]) -> bool:
        """Whether nothing that a run may change was changed."""
        return bool(state["batch"] == self.batch)

    @property
    def batch(self) -> int | list[int]:
        """The global batch as a state has it: where buckets have their own sizes, a list of them."""
        return self.lanes.size

    def _check_agrees(self, state: Mapping[str, Any]) -> None:
        """Refuse a state of another dataset or order."""
        mine = self.state(Cursor(0, 0, None))
        if ("course" in mine) != ("course" in state):
            raise ConfigError(
                f"the state is of a pipeline {'with' if 'course' in state else 'without'} a schedule, unlike this one: "
                f"restore that; weights that may change at a resume are weights=sp.Schedule(...) from the start"
            )
        for name, what in _MUST_AGREE.items():
            if name == "window" and self.sensible and state.get("window") is not None:
                continue
            if state.get(name) != mine.get(name):
                if name == "dataset" and self.dataset.chains is not None:
                    what = "the fingerprint of the mixture (its parts with their seeds and filters, and its weights)"
                raise ConfigError(
                    f"{what} is {mine.get(name)!r} here and was {state.get(name)!r} when the state was saved: the "
                    f"order would be another one; restore it, or start a new epoch without the state (set_epoch)"
                )

    def _as_saved(self, state: Mapping[str, Any]) -> Plan:
        """The plan that a state was saved with."""
        lanes, begun = _lanes_of(state, self.lanes), state.get("begun")
        return replace(
            self,
            lanes=lanes,
            begun=begun and Begun(state["at"][0], _lanes_of(begun, lanes), begun["draws"], begun["steps"]),
        )

    def _from(self, then: Plan, cursor: Cursor, state: Mapping[str, Any]) -> tuple[Plan, Cursor]:
        """This plan where the plan of another global batch stopped."""
        self._check_alone(then, state)
        cursor = then.after(cursor, 0)  # at the end of an epoch it is the next one's beginning
        if not cursor.step:
            return self, cursor
        draws = then.cut(cursor.epoch).before(cursor.step)
        return replace(self, begun=Begun(cursor.epoch, then.order(cursor.epoch).lanes, draws, cursor.step)), cursor

    def _check_alone(self, then: Plan, state: Mapping[str, Any]) -> None:
        """Refuse a state of one of several workers where the global batch is another one."""
        if state.get("worker", (0, 1))[1] > 1:
            raise ConfigError(
                f"the global batch (batch size times ranks) is {self.batch} here and was {then.batch} when one of "
                f"several workers saved the state, which does not know the steps of the others: restore it, or save "
                f"and load with pipe.loader()"
            )


def _lanes_of(kept: Mapping[str, Any], lanes: Lanes) -> Lanes:
    """Lanes as a state keeps them."""
    places, columns = kept["lanes"]
    return Lanes(lanes.samples, kept["batch"], places, columns, kept["window"] or 0, lanes.tail)


_MUST_AGREE = {
    "buckets": "the set of buckets",
    "packs": "what is packed, and into how many packs,",
    "leftover": "the policy for leftovers",
    "together": "the number of buckets at a step (1; under same=False, one for each rank)",
    "filter": "the filter (where)",  # first: with another one all below differs, too
    "samples": "the number of samples",
    "dataset": "the dataset's fingerprint",
    "seed": "the seed",
    "window": "the shuffle's window",
    "tail": "the tail policy",
}


def make(
    dataset: Weighed,
    batch: int,
    shuffle: Shuffle,
    seed: int,
    tail: str,
    filter: str = "",
) -> Plan:
    """A plan for a new run of batches of ``batch`` samples over all ranks."""
    places, columns = choose(batch, dataset.samples, len(dataset.shards)) if shuffle.is_on else (1, 1)
    window = shuffle.in_lanes(places, places * columns, dataset.sample_bytes)
    lanes = Lanes(dataset.samples, batch, places, columns, window, tail)
    return Plan(dataset, lanes, seed, shuffle.is_on, filter, shuffle.chosen)
