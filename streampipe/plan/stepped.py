"""A plan by steps: a mixture whose shares change while a model is trained.

Shares are said by step, and a step counts from the beginning of training. So draws are not cut anew in every epoch:
step s has the draws [s * G, (s + 1) * G), and an epoch has the batches that the draws up to its end fill (as buckets
with ``carry``). All batches are full, and the state is the step, with the leg that it is in (see ``course``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np

from streampipe.counters import counters
from streampipe.errors import ConfigError
from streampipe.plan.course import Course, Leg, Rates, begin, extended
from streampipe.plan.lanes import Lanes
from streampipe.plan.planned import Counted, Cursor, Plan

MIX = "mix"
"""Under what a mixture counts the parts that were used up."""


class Shared(Counted, Protocol):
    """A dataset of several parts: how many samples each has."""

    @property
    def part_samples(self) -> Sequence[int | Fraction]: ...


class Origin(NamedTuple):
    """Where batches of another size stopped: behind ``steps`` steps of ``epoch``, in front of step ``step`` of all,
    which begins with draw number ``draw``.
    """

    epoch: int
    steps: int
    step: int
    draw: int


@dataclass(frozen=True)
class StepPlan(Plan):
    """A plan whose draws are shared by ``course``, which begins with ``rates`` or was changed to them."""

    dataset: Shared
    rates: Rates = None  # type: ignore[assignment]  # a dataclass's later fields need defaults
    course: Course = None  # type: ignore[assignment]
    origin: Origin | None = None

    @property
    def is_empty(self) -> bool:
        """Every epoch has a batch."""
        return not self.lanes.samples

    @cached_property
    def batches(self) -> int:
        """Batches of the first epoch."""
        return self.batches_in(0)

    @property
    def epoch_draws(self) -> int | Fraction:
        """Draws of an epoch: of a batch, at least."""
        return max(self.lanes.samples, self.lanes.size)

    def before(self, epoch: int) -> int:
        """Steps of all epochs before this one."""
        draws = epoch * self.epoch_draws
        if self.origin is None:
            return int(draws // self.lanes.size)
        if epoch <= self.origin.epoch:
            return self.origin.step - self.origin.steps
        return self.origin.step + int((draws - self.origin.draw) // self.lanes.size)

    def batches_in(self, epoch: int) -> int:
        """Batches of that epoch, the same on every rank."""
        return self.before(epoch + 1) - self.before(epoch)

    def length(self, epoch: int, epochs: int) -> int:
        """Batches of so many epochs from ``epoch`` on."""
        return self.before(epoch + epochs) - self.before(epoch)

    def number(self, epoch: int, step: int) -> int:
        """A step of an epoch, counted over all epochs."""
        return self.before(epoch) + step

    @property
    def known_from(self) -> int:
        """The first step that this plan knows: before it there were others, of another size or schedule."""
        return max(self.course.legs[0].first, self.origin.step if self.origin else 0)

    @property
    def known(self) -> Cursor:
        """The place of that step."""
        return self.at(self.known_from, Cursor(0, 0, None))

    def after(self, cursor: Cursor, steps: int = 1) -> Cursor:
        """The cursor ``steps`` steps later."""
        return cursor if self.is_empty else self.at(self.number(cursor.epoch, cursor.step) + steps, cursor)

    def at(self, number: int, cursor: Cursor) -> Cursor:
        """Where the step of a number is; no earlier than in the cursor's epoch, and no later than its end."""
        size, origin = self.lanes.size, self.origin
        draw = number * size if origin is None else origin.draw + (number - origin.step) * size
        epoch = max(cursor.epoch, int(draw // self.epoch_draws))
        while self.before(epoch + 1) <= number:
            epoch += 1
        if cursor.until is not None:
            epoch = max(cursor.epoch, min(epoch, cursor.until))
        return Cursor(epoch, number - self.before(epoch), cursor.until)

    def owner(self, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """For each slot of a global batch its part, and its number among the draws of that part."""
        return self.course.owner(self.number(epoch, step))

    def delivered(self, at: Cursor, places: Any, rank: int) -> None:
        """Count the parts of which this step has the first sample of another round."""
        if rank:
            return
        number = self.number(at.epoch, at.step)
        both = zip(*(self.course.had_before(each) for each in (number, number + 1)), strict=True)
        for k, ((had, has), samples) in enumerate(zip(both, self.dataset.part_samples, strict=True)):
            if rounds := max(0, has - 1) // samples - max(0, had - 1) // samples:
                counters.add(MIX, f"times that part {k} began anew", rounds)

    def state(self, cursor: Cursor) -> dict[str, Any]:
        """What ``load`` needs to go on at ``cursor``, as plain JSON."""
        legs = self.course.behind(self.number(cursor.epoch, cursor.step))
        course = {
            "rates": self.rates.digest,
            "changed": self.course.changed_at,
            "legs": [_leg_to(leg) for leg in legs],
            "origin": None if self.origin is None else list(self.origin),
        }
        return {**super().state(cursor), "course": course}

    def _as_saved(self, state: Mapping[str, Any]) -> Plan:
        """The plan that a state was saved with, up to where it stands."""
        kept, size = state["course"], state["batch"]
        origin = None if kept["origin"] is None else Origin(*kept["origin"])
        legs = tuple(_leg_of(each) for each in kept["legs"])
        lanes = Lanes(self.lanes.samples, size)
        if len(legs[0].had) != len(self.dataset.part_samples):
            raise ConfigError(
                f"the state is of a mixture of {len(legs[0].had)} parts, this one has "
                f"{len(self.dataset.part_samples)}: give the parts that it was saved with"
            )
        course = Course(legs, kept["changed"])
        if kept["rates"] == self.rates.digest:
            changed = kept["changed"]
            course = begin(self.rates, size) if changed is None else extended(legs, self.rates, changed)
        return replace(self, lanes=lanes, origin=origin, course=course)

    def _is_same(self, state: Mapping[str, Any]) -> bool:
        return bool(state["batch"] == self.batch and state["course"]["rates"] == self.rates.digest)

    def _from(self, then: Plan, cursor: Cursor, state: Mapping[str, Any]) -> tuple[Plan, Cursor]:
        """This plan where the plan of another schedule, or of another global batch, stopped."""
        assert isinstance(then, StepPlan)
        if state["batch"] != self.batch:
            self._check_alone(then, state)
        elif state.get("worker", (0, 1))[1] > 1:
            raise ConfigError(
                "the schedule is another one than when one of several workers saved the state, which does not know the "
                "steps of the others: restore it, or save and load with pipe.loader()"
            )
        number = then.number(cursor.epoch, cursor.step)
        size, origin = self.lanes.size, then.origin
        if size != then.lanes.size:
            origin = Origin(cursor.epoch, cursor.step, number, then.course.leg(number).draw_at(number))
        course = then.course.changed(self.rates, size, number)
        return replace(self, course=course, origin=origin), cursor


def make(dataset: Shared, rates: Rates, batch: int, seed: int) -> StepPlan:
    """A plan for a new run of batches of ``batch`` samples over all ranks."""
    lanes = Lanes(dataset.samples, batch)
    return StepPlan(dataset, lanes, seed, False, rates=rates, course=begin(rates, batch))


def _leg_to(leg: Leg) -> dict[str, Any]:
    """A leg as plain JSON."""
    return {
        "steps": [leg.first, leg.last],
        "draw": leg.draw,
        "batch": leg.size,
        "had": list(leg.had),
        "due": list(map(str, leg.due)),
        "shares": [list(map(str, terms)) for terms in leg.terms],
    }


def _leg_of(kept: Mapping[str, Any]) -> Leg:
    due = tuple(map(Fraction, kept["due"]))
    terms = tuple(tuple(map(Fraction, each)) for each in kept["shares"])
    first, last = kept["steps"]
    return Leg(first, last, kept["draw"], kept["batch"], tuple(kept["had"]), due, terms)
