"""Batches of several plans by turns: each step is a whole batch of one part, as the part's own plan has it.

So parts may differ in all that a batch has: its size, its buckets, its filter, its stages. Which part a step belongs to
is decided as it is for samples (see ``course``), with one draw a step; the j-th step of a part is the j-th of its plan,
epoch after epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any, NamedTuple

from streampipe.errors import ConfigError
from streampipe.plan.bucket_plan import BucketPlan
from streampipe.plan.course import Rates, begin
from streampipe.plan.dataset import Dataset
from streampipe.plan.lanes import Lanes
from streampipe.plan.planned import Cursor, Place, Plan
from streampipe.plan.stepped import Origin, StepPlan
from streampipe.rng import derive


class Batches:
    """What the plans of several parts give together.

    ``tails``: the stages of each part that run on its batches. ``fixed``: what decides the shares and may not change.
    """

    chains = None

    def __init__(self, plans: Sequence[Plan], tails: Sequence[tuple[Any, ...]], fixed: str) -> None:
        self.plans = tuple(plans)
        self.samples = sum(plan.lanes.samples for plan in plans)  # of an epoch of each part, together
        self.tails = tuple(tails)
        self.fixed = fixed

    @property
    def shards(self) -> list[str]:
        """The first of each part."""
        return [plan.dataset.shards[0] for plan in self.plans]

    @property
    def fingerprint(self) -> str:
        """A digest of the parts' plans, but for their batches, which may change."""
        each = (f"{plan.dataset.fingerprint} {plan.seed} {plan.filter}" for plan in self.plans)
        return f"{derive('batches of parts', self.fixed, *each):016x}"

    @property
    def mixed(self) -> tuple[Plan, ...]:
        """The parts, each with its own window."""
        return self.plans

    @cached_property
    def part_samples(self) -> tuple[Fraction, ...]:
        """How many draws, which here are batches, an epoch of each part has, on average."""
        return tuple(map(batches_of, self.plans))

    def parts(self) -> tuple[Dataset, ...]:
        """The datasets that a place's ``part`` counts: those of the first part, then those of the next."""
        return tuple(dataset for plan in self.plans for dataset in plan.dataset.parts())

    @cached_property
    def offsets(self) -> list[int]:
        """The number of each part's first dataset."""
        ends = [0]
        for plan in self.plans:
            ends.append(ends[-1] + len(plan.dataset.parts()))
        return ends

    def places(self, plan: BatchPlan, rank: int, ranks: int, repeat: bool = True) -> Callable[[int, int], list[Place]]:
        """A rank's places, step by step."""
        find = [each.dataset.places(each, rank, ranks, repeat) for each in self.plans]

        def found(epoch: int, step: int) -> list[Place]:
            turn = plan.turn(Cursor(epoch, step, None))
            first = self.offsets[turn.part]
            return [place._replace(part=place.part + first) for place in find[turn.part](turn.at.epoch, turn.at.step)]

        return found


def batches_of(plan: Plan) -> Fraction:
    """Batches of an epoch; on average, where an epoch's rest is carried into the next."""
    if isinstance(plan, StepPlan):
        return plan.epoch_draws / Fraction(plan.lanes.size)
    if not isinstance(plan, BucketPlan):
        return Fraction(plan.batches)
    groups = replace(plan.groups, origin=None)
    if groups.leftover != "carry":
        return Fraction(groups.steps_before(1))
    return sum((Fraction(n, size) for n, size in zip(groups.samples, groups.sizes, strict=True)), Fraction()) / (
        groups.together
    )


class Turn(NamedTuple):
    """A step of a part: its number, and where the step stands in its plan."""

    part: int
    at: Cursor


class Start(NamedTuple):
    """Where a part's plan began: behind ``had`` of its steps, at ``at``."""

    had: int
    at: Cursor


@dataclass(frozen=True)
class BatchPlan(StepPlan):
    """A plan whose steps are those of other plans. ``lanes`` are of one draw a step."""

    dataset: Batches
    starts: tuple[Start, ...] = ()
    loaded_at: int = 0  # before this step some part had other batches
    steps_of_epoch: Fraction = Fraction()

    @property
    def epoch_draws(self) -> Fraction:
        """Steps of an epoch: as many as an epoch of each part has, together."""
        return self.steps_of_epoch

    @property
    def known_from(self) -> int:
        """The first step that this plan knows."""
        return max(super().known_from, self.loaded_at)

    def turn(self, at: Cursor) -> Turn:
        """Whose turn a step is."""
        parts, numbers = self.owner(at.epoch, at.step)
        part = int(parts[0])
        return Turn(part, self._place(part, int(numbers[0])))

    def _place(self, part: int, number: int) -> Cursor:
        start = self.starts[part]
        return self.dataset.plans[part].after(start.at, number - start.had)

    def own(self, part: int, places: Sequence[Place]) -> list[Place]:
        """Places of a step of a part, as its own plan has them."""
        first = self.dataset.offsets[part]
        return [place._replace(part=place.part - first) for place in places]

    def delivered(self, at: Cursor, places: Sequence[Place], rank: int) -> None:
        """Count what the part counts, and whether it begins anew."""
        turn = self.turn(at)
        self.dataset.plans[turn.part].delivered(turn.at, self.own(turn.part, places), rank)
        super().delivered(at, places, rank)

    def state(self, cursor: Cursor) -> dict[str, Any]:
        """What ``load`` needs to go on at ``cursor``, as plain JSON: of each part too."""
        had = self.course.had_before(self.number(cursor.epoch, cursor.step))
        parts = [plan.state(self._place(k, had[k])) for k, plan in enumerate(self.dataset.plans)]
        return {**super().state(cursor), "parts": parts, "steps_of_epoch": str(self.steps_of_epoch)}

    def load(self, state: Mapping[str, Any]) -> tuple[Plan, Cursor]:
        """The plan that goes on with a state, and where; each part as it would alone.

        Raises:
            ConfigError: the state is of other parts; it names what differs.
        """
        found, cursor = super().load(state)
        assert isinstance(found, BatchPlan)
        if len(state["parts"]) != len(self.dataset.plans):
            raise ConfigError(f"the state is of {len(state['parts'])} parts, and the mixture has {len(self.starts)}")
        had = found.course.had_before(found.number(cursor.epoch, cursor.step))
        worker = {name: state[name] for name in ("worker",) if name in state}
        plans, places = list[Plan](), list[Cursor]()
        for k, plan in enumerate(self.dataset.plans):
            of_part, at = plan.load({**state["parts"][k], **worker})
            plans.append(of_part)
            places.append(at)
        known = list(map(_start, plans, places, had))
        loaded_at = 0 if all(known) else found.number(cursor.epoch, cursor.step)
        starts = [start or Start(had[k], at) for k, (start, at) in enumerate(zip(known, places, strict=True))]
        dataset = Batches(plans, self.dataset.tails, self.dataset.fixed)
        return replace(found, dataset=dataset, starts=tuple(starts), loaded_at=loaded_at), cursor

    def _as_saved(self, state: Mapping[str, Any]) -> Plan:
        """The plan that a state was saved with, but for the batches of its parts."""
        then = super()._as_saved(state)
        assert isinstance(then, BatchPlan)
        return replace(then, steps_of_epoch=Fraction(state["steps_of_epoch"]))

    def _is_same(self, state: Mapping[str, Any]) -> bool:
        batches = [part["batch"] for part in state["parts"]]
        return super()._is_same(state) and batches == [plan.batch for plan in self.dataset.plans]

    def _from(self, then: Plan, cursor: Cursor, state: Mapping[str, Any]) -> tuple[Plan, Cursor]:
        """This plan where the plan of another schedule, or of parts with other batches, stopped."""
        found, cursor = super()._from(then, cursor, state)
        assert isinstance(then, BatchPlan)
        assert isinstance(found, BatchPlan)
        if [part["batch"] for part in state["parts"]] == [plan.batch for plan in self.dataset.plans]:
            return found, cursor
        number, old = then.number(cursor.epoch, cursor.step), then.origin
        steps = number if old is None else old.draw + number - old.step
        done = steps / then.steps_of_epoch  # epochs: as much of this one is left as there was
        origin = Origin(cursor.epoch, cursor.step, number, int(done * self.steps_of_epoch))
        return replace(found, origin=origin), cursor


def _start(plan: Plan, at: Cursor, had: int) -> Start | None:
    """From where on a part's steps follow from its plan, of which it had ``had`` before ``at``; None: from there on."""
    first = plan.known
    since = plan.since(first, at)
    return Start(had - since, first) if first != Cursor(0, 0, None) or since == had else None


def make(
    plans: Sequence[Plan],
    tails: Sequence[tuple[Any, ...]],
    rates: Rates,
    steps_of_epoch: Fraction,
    seed: int,
    fixed: str,
) -> BatchPlan:
    """A plan for a new run over the batches of other plans."""
    dataset = Batches(plans, tails, fixed)
    lanes = Lanes(dataset.samples, 1)
    starts = (Start(0, Cursor(0, 0, None)),) * len(plans)
    course = begin(rates, 1)
    return BatchPlan(
        dataset, lanes, seed, False, rates=rates, course=course, starts=starts, steps_of_epoch=steps_of_epoch
    )
