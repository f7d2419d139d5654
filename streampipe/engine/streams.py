"""Where a lane's samples come from: whole shards read forward, or the places that a plan has for the lane's slots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from streampipe.context import Run, Sample
from streampipe.engine.batches import good, open_shards, reader_of
from streampipe.engine.lanes import Shape
from streampipe.errors import ConfigError
from streampipe.plan.planned import Place, Plan
from streampipe.reading.reader import OpenShards

_OPEN = 4  # shards of a lane, at least


@dataclass(frozen=True)
class PlannedStream:
    """The samples of a plan in lanes: lane (a, c) has the slots q mod A = a of the batches t mod T = c, in order.

    For a shuffled plan these are the plan's own lanes. Together the lanes have each sample of the epoch once, and if no
    stage drops or adds any, the batches are those of the plan.

    Args:
        together: the lanes follow from the data, so one reader may have all of them open.
    """

    plan: Plan
    shape: Shape
    together: bool = True
    leaves_marks: ClassVar[bool] = True

    @property
    def data(self) -> str:
        """What a state of the lanes must agree with."""
        plan = self.plan
        return f"{plan.dataset.fingerprint} {plan.filter} {plan.lanes.window if plan.shuffled else None}"

    @property
    def numbers(self) -> dict[str, Any]:
        """What the lanes were made with: a mark counts the plan's batches, and the samples of a lane in each."""
        lanes = self.plan.lanes
        window = lanes.window if self.plan.shuffled else None
        return {"batch": lanes.size, "lanes": [lanes.places, lanes.columns], "window": window}

    def as_saved(self, places: int, columns: int, numbers: Mapping[str, Any]) -> PlannedStream:
        """The stream that a state was saved with: its lanes have the samples that they had, whatever takes them now.

        Raises:
            ConfigError: there is none with such numbers.
        """
        if "batch" not in numbers:
            return self  # of samples that nobody counted: its data differ
        plan, size, window = self.plan, numbers["batch"], numbers.get("window")
        if size % places:
            raise ConfigError(f"the state's {places} lanes of a batch do not divide its batch of {size}: it is damaged")
        width = window if plan.sensible and plan.shuffled and window is not None else plan.lanes.window
        lanes = replace(plan.lanes, size=size, places=numbers["lanes"][0], columns=numbers["lanes"][1], window=width)
        return replace(self, plan=replace(plan, lanes=lanes), shape=Shape(places, columns))

    @property
    def most_open(self) -> int:
        """How many shards a reader keeps open for all of its lanes."""
        return max(_OPEN * self.shape.number, open_shards(self.plan))

    def reading(self, lanes: int) -> AbstractContextManager[None]:
        """Nothing to tell anybody: samples are asked for by place."""
        return nullcontext()

    def __call__(self, run: Run, epoch: int, views: bool = False, at: Sequence[Any] = ()) -> Iterator[Sample]:
        """An epoch of a lane, from the batch and slot of a mark on."""
        plan, shape, chains = self.plan, self.shape, self.plan.dataset.chains
        place, column = divmod(run.consumer.number, shape.columns)
        step, done = _checked(at) if at else (column, 0)
        find = plan.dataset.places(plan, place, shape.places, repeat=False)

        def steps() -> Iterator[tuple[int, Sequence[Place]]]:
            for t in range(step, plan.batches, shape.columns):
                places = find(epoch, t)
                yield t, places[done:] if t == step else places

        # Lanes may be in one shard: it is opened once for all of them.
        shared = run.shared.setdefault("open shards", OpenShards(self.most_open))
        reader = reader_of(plan, max(_OPEN, open_shards(plan) // shape.number), shared, run.lanes)
        with closing(reader.read(steps(), views and chains is None)) as found:
            for t, places, samples in found:
                first = done if t == step else 0
                for number, (where, one) in enumerate(zip(places, samples, strict=True), first + 1):
                    for sample in good([where], [one], run, chains):
                        run.trail.mark = (epoch, t, number)
                        yield sample


def _checked(at: Sequence[Any]) -> tuple[int, int]:
    if len(at) != 2 or not all(isinstance(each, int) for each in at):
        raise ConfigError(f"the state's mark {list(at)} is of another kind of stream; start a new epoch without it")
    return at[0], at[1]
