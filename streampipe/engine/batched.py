"""``mix`` of pipelines that are batched: each step is a batch of one of them, with its own size, buckets and stages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from streampipe.context import Run
from streampipe.engine.chain import describe
from streampipe.engine.division import divide
from streampipe.engine.planning import plan_of
from streampipe.errors import ConfigError
from streampipe.plan.ask import Uncounted
from streampipe.plan.batchwise import BatchPlan, batches_of, make
from streampipe.plan.course import Rates
from streampipe.plan.planned import Plan
from streampipe.plan.schedule import Schedule, constant
from streampipe.reading.protocol import Samples
from streampipe.spec import AnyStage, Job, Spec


class BatchSamples(Samples):
    """The source of a mixture of batches. Every part is planned for itself."""

    batched = True

    def __init__(
        self, parts: Sequence[Spec], weights: Sequence[float] | Schedule | None, repeats: Sequence[int]
    ) -> None:
        self.parts = list(parts)
        self.weights = weights if weights is None or isinstance(weights, Schedule) else list(weights)
        self.repeats = list(repeats)

    def plan_for(self, job: Job, seed: int) -> BatchPlan:
        """The plan of a job: which part gives each step, and the plan of each part.

        Raises:
            ConfigError: a part cannot be planned, or has no batch.
        """
        found = [_planned(each, number, job) for number, each in enumerate(self.parts)]
        plans = [plan for plan, _ in found]
        numbers = [batches_of(plan) * times for plan, times in zip(plans, self.repeats, strict=True)]
        if isinstance(self.weights, Schedule):
            schedule, fixed = self.weights, ""
        else:
            weights = numbers if self.weights is None else [Fraction(str(each)) for each in self.weights]
            schedule, fixed = constant(weights), f"{self.weights!r} {self.repeats}"
        rates = Rates([[(schedule, k)] for k in range(len(plans))])
        return make(plans, [tail for _, tail in found], rates, sum(numbers, Fraction()), seed, fixed)

    def __call__(self, run: Run, epoch: int, views: bool = False, at: Sequence[Any] = ()) -> Iterator[Any]:
        """Refused: nobody knows which part's batch comes next where samples are not counted."""
        raise ConfigError("mix needs parts whose samples are counted; make their indexes with: streampipe index")

    def beside(self) -> None:
        """Nowhere: several datasets meet."""

    def identity(self) -> list[Any]:
        """What its parts are is theirs to say."""
        return [repr(self)]

    def __repr__(self) -> str:
        parts = ", ".join(" ".join(describe(spec.source, spec.chain).split()) for spec in self.parts)
        shares = f"repeats={self.repeats}" if self.weights is None else f"weights={self.weights!r}"
        return f"mix([{parts}], {shares})"


def _planned(spec: Spec, number: int, job: Job) -> tuple[Plan, tuple[AnyStage, ...]]:
    """The plan of a part, and the stages that run on its batches."""
    if spec.source.batched:
        raise ConfigError(
            f"part {number} of the mixture is a mixture of batches itself: give its parts to mix in its place"
        )
    division = divide(spec.chain)
    try:
        if division.head:
            raise Uncounted(division.why)
        plan = plan_of(replace(spec, epochs=None), division, job)  # it goes round as often as its turn comes
    except Uncounted as reason:
        raise ConfigError(f"part {number} of the mixture cannot be planned: {reason}") from None
    if plan.is_empty or not batches_of(plan):
        raise ConfigError(
            f"part {number} of the mixture has {plan.lanes.samples} samples, too few for one batch of it: use a "
            f"smaller batch"
        )
    return plan, division.tail
