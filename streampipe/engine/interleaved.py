"""The engine of chains whose batches cannot be decided before they are read: interleaved lanes, each a stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from streampipe.context import Consumer, Run
from streampipe.engine.chain import name_of
from streampipe.engine.engine import NOTHING, Engine, Level
from streampipe.engine.lanes import LanePoint, LaneState, Moved, Shape, Work, usable
from streampipe.engine.state import checked_state
from streampipe.engine.streams import PlannedStream
from streampipe.engine.turns import Turns, too_few
from streampipe.errors import ConfigError
from streampipe.memory import keep_freed
from streampipe.policy import ErrorPolicy
from streampipe.spec import AnyStage, Spec
from streampipe.stages.grouping import limit_of_groups

_MUST_AGREE = {
    "seed": "the seed",
    "pipeline": "the pipeline in front of batch",
    "data": "the dataset's fingerprint",
}


@dataclass(frozen=True)
class LaneEngine(Engine[LanePoint]):
    """A job's lanes.

    Args:
        work: what the lanes run, in which shape.
        level: what is known of the samples.
        reason: why batches are not planned ahead.
        pipeline: the source and the stages that run in the lanes, in words. A state must agree with it.
        several: the same in several lanes, where it is in one because a limit counts there: a state of an older
            release may be of those.
    """

    kind = "lanes"
    spec: Spec
    work: Work
    level: Level
    reason: str
    pipeline: str
    several: Work | None = None

    @property
    def chain(self) -> tuple[AnyStage, ...]:
        """The stages of the lanes, and those on each batch."""
        return (*self.work.head.chain, *self.work.tail.chain)

    @property
    def why(self) -> str:
        """Why batches are not planned ahead."""
        return self.reason

    @property
    def drops(self) -> Mapping[tuple[str, str], int]:
        """What the plan leaves out, where there is one."""
        stream = self.work.stream
        return stream.plan.drops if isinstance(stream, PlannedStream) else {}

    def first(self, epoch: int) -> LanePoint:
        """The beginning of an epoch."""
        return LanePoint(epoch)

    def epoch_of(self, at: LanePoint) -> int:
        """The epoch of the lane that is furthest behind."""
        if len(at.lanes) < self.work.shape.number:
            return min([at.epoch, *(each.epoch for each in at.lanes.values())])
        return min(each.epoch for each in at.lanes.values())

    def items(
        self,
        at: LanePoint,
        until: int | None,
        consumer: Consumer,
        threads: int = 0,
        own: bool = False,
        policy: ErrorPolicy | None = None,
    ) -> Iterator[tuple[Any, Any, bool]]:
        """See ``Engine.items``."""
        self.spec.source.begin()
        keep_freed()
        run = Run(seed=self.spec.seed, consumer=consumer, policy=policy or self.spec.policy.fresh(), threads=threads)
        start = at._replace(turn=at.turn - consumer.worker) if own else at
        for items, moved, more in Turns(self.work, start, until, run):
            for item in items or [NOTHING]:
                yield item, moved, more

    def behind(self, at: LanePoint, moved: Any) -> LanePoint:
        """The place behind an item."""
        assert isinstance(moved, Moved)
        return LanePoint(at.epoch, moved.turn, {**at.lanes, **dict(moved.lanes)})

    def later(self, at: LanePoint, turns: int) -> LanePoint:
        """The place so many turns later."""
        return at._replace(turn=at.turn + turns)

    def stride(self, consumer: Consumer) -> int:
        """How many of a rank's workers take turns: as many as can have whole columns each."""
        columns = self.work.shape.columns_of(consumer.rank, consumer.world_size)
        return usable(consumer.num_workers, len(columns))

    def state(self, at: LanePoint, rank: int, ranks: int) -> dict[str, Any]:
        """The place of this rank's lanes as plain JSON. Lanes at the beginning of the epoch are left out."""
        shape = self.work.shape
        return {
            "kind": self.kind,
            "level": self.level.value,
            "at": [at.epoch, at.turn],
            "lanes": [shape.places, shape.columns],
            "rank": [rank, ranks],
            "standing": {str(lane): list(each) for lane, each in sorted(at.lanes.items())},
            "stream": self.work.stream.numbers,
            **self._facts(),
        }

    def _facts(self) -> dict[str, Any]:
        """What a state must agree with."""
        return {"seed": self.spec.seed, "pipeline": self.pipeline, "data": self.work.stream.data}

    def load(self, states: Sequence[Mapping[str, Any]], rank: int, ranks: int) -> tuple[LaneEngine, LanePoint]:
        """The place that the states of one or all ranks name, on this number of ranks.

        The lanes are those of the state from then on: with another batch, or other readers, they give the same samples
        to other batches.

        Raises:
            ConfigError: they are of other data, stages or seed; or lanes of this rank are in none of them.
        """
        whole = merged(states)
        shape = Shape(*whole["lanes"])
        engine = replace(self, work=self._work_of(whole, shape))
        mine = engine._facts()
        for state in states:
            for name, what in _MUST_AGREE.items():
                if state.get(name) != mine.get(name):
                    raise ConfigError(
                        f"{what} is {mine.get(name)!r} here and was {state.get(name)!r} when the state was saved: the "
                        f"stream would be another one; restore it, or start a new epoch without the state"
                    )
        wanted = [lane for column in shape.columns_of(rank, ranks) for lane in column]
        if not wanted:
            raise ConfigError(
                f"{shape.number} lanes cannot feed {ranks} ranks: use at most {shape.number}, or start a new epoch"
            )
        owned = _owned(whole)
        if missing := [lane for lane in wanted if lane not in owned]:
            of = whole["rank"]
            raise ConfigError(
                f"the state is that of rank {of[0]} of {of[1]} alone; rank {rank} of {ranks} needs {len(missing)} "
                f"lanes of others: load the list of the states of all {of[1]} ranks, or what sp.merge_states gives"
            )
        standing = {int(lane): LaneState(*each) for lane, each in whole["standing"].items()}
        lanes = {lane: standing[lane] for lane in wanted if lane in standing}
        return engine, LanePoint(whole["at"][0], _turn_of(whole, shape, rank, ranks), lanes)

    def _work_of(self, state: Mapping[str, Any], shape: Shape) -> Work:
        """What runs in the lanes of a state."""
        numbers = state.get("stream")
        if numbers is not None:
            return self.work.as_saved(shape, numbers)
        if self.several is not None and shape == self.several.shape:
            return self.several
        if shape != self.work.shape:
            own = self.work.shape
            raise ConfigError(
                f"the state's lanes are {shape.places} x {shape.columns}, those of this job {own.places} x "
                f"{own.columns}, and the state is of an older release, which did not say what lanes were made with: "
                f"go on with the batch, ranks and workers of then, or start a new epoch without the state"
            )
        return self.work

    def length(self, epoch: int, epochs: int) -> int | None:
        """Unknown."""
        return None

    def nothing(self, left_out: int) -> Exception | None:
        return too_few(left_out, self.work.share if self.work.drop_short else None) if left_out else None

    def check(self, finite: bool, ranks: int) -> None:
        """Refuse ranks that would not end together, and a limit that would end an endless pass."""
        if not finite and self.work.continuous:
            refuse_limit(self.work.head.chain)
        if finite and ranks > 1:
            raise ConfigError(
                f"{ranks} ranks would take different numbers of steps, and the last one would wait for ever, because "
                f"{self.why}: give loader(steps_per_epoch=n)"
            )


def refuse_limit(chain: Sequence[AnyStage]) -> None:
    """Refuse a limit on batches of buckets in a pass of several epochs: what waits in pools goes on into the next one.

    Raises:
        ConfigError: there is one.
    """
    limit = limit_of_groups(chain)
    if limit is not None:
        raise ConfigError(
            f"{name_of(limit, parameters=True)} stands behind bucket and batch, whose batches run on over the ends of "
            f"epochs, so it would count the whole pass and not each epoch: put it before bucket, where it counts "
            f"samples, or make passes of one epoch (epochs=1, without steps_per_epoch)"
        )


def merge_states(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The states of all ranks of a job as one, which any number of ranks can load.

    In the indexed level they are the same, so it is any of them.

    Raises:
        ConfigError: they are not of one job and step, or the state of a rank is missing.
    """
    given = states if isinstance(states, Sequence) and not isinstance(states, str) else ()
    found = [checked_state(state) for state in given]
    if not found:
        raise ConfigError("merge_states takes the states of all ranks of a job, not none")
    whole = merged(found) if found[0]["kind"] == "lanes" else dict(found[0])
    if whole.get("rank") is not None and whole["rank"][1] > 1:
        raise ConfigError(
            f"there is only the state of rank {whole['rank'][0]} of {whole['rank'][1]}: give those of all"
        )
    return whole


def merged(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One state of several: that of all ranks, which has no rank of its own; or the only one there is."""
    first = dict(states[0])
    if len(states) == 1:
        return first
    if any(state["kind"] != "lanes" or state.get("rank") is None for state in states):
        raise ConfigError("a list of states is that of all ranks of a job, each once; one of these is of a whole job")
    ranks = first["rank"][1]
    if sorted(state["rank"][0] for state in states) != list(range(ranks)) or any(s["rank"][1] != ranks for s in states):
        have = ", ".join(f"{state['rank'][0]} of {state['rank'][1]}" for state in states)
        raise ConfigError(f"a list of states is that of all ranks of a job, each once; these are of ranks {have}")
    for name in ("lanes", "stream", "at", "epoch", "step", *_MUST_AGREE):
        # ranks may have other turns, see below
        values = [state["at"][0] if name == "at" else state.get(name) for state in states]
        if any(value != values[0] for value in values):
            raise ConfigError(
                f"the states are not of one job and step: their {name} is {', '.join(map(repr, values))}; save those "
                f"of all ranks at the same step"
            )
    every: dict[str, Any] = {}
    for state in states:
        every.update(state["standing"])
    # A rank whose lanes of a column have nothing passes over that turn, so each has turns of its own.
    turns = [state["at"][1] for state in sorted(states, key=lambda state: int(state["rank"][0]))]
    standing = dict(sorted(every.items(), key=lambda item: int(item[0])))
    return {**first, "rank": None, "turns": turns, "standing": standing}


def _turn_of(state: Mapping[str, Any], shape: Shape, rank: int, ranks: int) -> int:
    """Which turn is next on a rank. It says only whose turn it is: every lane goes on where it stands, on any turn."""
    turns = state.get("turns", ())
    if len(turns) == ranks:
        return int(turns[rank])
    same = state["rank"] is None or shape.fits(ranks) or list(state["rank"]) == [rank, ranks]
    return int(state["at"][1]) if same else 0


def _owned(state: Mapping[str, Any]) -> set[int]:
    """The lanes that a state speaks for."""
    shape = Shape(*state["lanes"])
    if state["rank"] is None:
        return set(range(shape.number))
    return {lane for column in shape.columns_of(*state["rank"]) for lane in column}
