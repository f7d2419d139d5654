"""The engine of chains whose batches are decided in integers: a step is a number, and so is all the state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from streampipe.context import Consumer, Run
from streampipe.engine.batches import make_batches
from streampipe.engine.division import Division
from streampipe.engine.engine import Engine, Level
from streampipe.errors import ConfigError
from streampipe.plan.planned import Cursor, Plan
from streampipe.policy import ErrorPolicy
from streampipe.spec import AnyStage, Spec


@dataclass(frozen=True)
class IndexedEngine(Engine[Cursor]):
    """Each step's samples are known places; a rank's consumers take the steps in turn, whatever their number."""

    kind: ClassVar[str] = "planned"
    spec: Spec
    plan: Plan
    division: Division
    level: Level = Level.INDEXED

    @property
    def chain(self) -> tuple[AnyStage, ...]:
        """The stages that run on each batch."""
        return self.division.tail

    @property
    def why(self) -> str:
        """Batches are planned ahead."""
        return ""

    @property
    def drops(self) -> Mapping[tuple[str, str], int]:
        """What the plan leaves out."""
        return self.plan.drops

    def first(self, epoch: int) -> Cursor:
        """The beginning of an epoch."""
        return Cursor(epoch, 0, None)

    def epoch_of(self, at: Cursor) -> int:
        """The epoch that a place is in."""
        return at.epoch

    def items(
        self,
        at: Cursor,
        until: int | None,
        consumer: Consumer,
        threads: int = 0,
        own: bool = False,
        policy: ErrorPolicy | None = None,
    ) -> Iterator[tuple[Any, Any, bool]]:
        """See ``Engine.items``."""
        self.spec.source.begin()
        stride = consumer.num_workers
        run = Run(seed=self.spec.seed, consumer=consumer, policy=policy or self.spec.policy.fresh(), threads=threads)
        cursor = at._replace(until=until)
        first = 0 if own else consumer.worker
        for item, after in make_batches(self.plan, self.division, run, cursor, first, stride):
            mine = after if stride == 1 else self.plan.after(after, stride - 1)
            yield item, Cursor(after.epoch, after.step, None), not self.ended(mine, until)
            del item

    def behind(self, at: Cursor, moved: Any) -> Cursor:
        """The place behind an item."""
        assert isinstance(moved, Cursor)
        return moved

    def later(self, at: Cursor, turns: int) -> Cursor:
        """The place so many turns later."""
        return self.plan.after(at, turns)

    def stride(self, consumer: Consumer) -> int:
        """All workers take turns."""
        return consumer.num_workers

    def state(self, at: Cursor, rank: int, ranks: int) -> dict[str, Any]:
        """The place as plain JSON; the same on every rank."""
        return {**self.plan.state(at), "level": self.level.value}

    def load(self, states: Sequence[Mapping[str, Any]], rank: int, ranks: int) -> tuple[IndexedEngine, Cursor]:
        """The place that a state names; one state of any rank is enough."""
        plan, cursor = self.plan.load(states[0])
        return replace(self, plan=plan), plan.after(cursor, 0)

    def length(self, epoch: int, epochs: int) -> int | None:
        """Items of a rank in so many epochs from ``epoch`` on."""
        return self.plan.length(epoch, epochs)

    def skip(self, at: Cursor, items: int) -> Cursor | None:
        """The place so many items later."""
        return self.plan.after(at, items)

    def check(self, finite: bool, ranks: int) -> None:
        """Refuse a pass without a batch."""
        lanes = self.plan.lanes
        if self.plan.is_empty and lanes.samples:
            raise ConfigError(
                f"an epoch has {lanes.samples} samples, fewer than one global batch of {lanes.size}, and its last "
                f"batch is left out: there would be no step; use a smaller batch, or tail='short'"
            )
