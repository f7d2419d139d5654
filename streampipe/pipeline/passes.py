"""One pass of one consumer over a planned pipeline: batches with the cursor behind each.

A planned batch is made on its own: its samples are read, go through the chain together, and come out as one batch. So a
batch needs nothing but its number, and a sample that fails is replaced inside its own batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, takewhile
from typing import Any, NamedTuple

from streampipe.context import Consumer, Run, Sample
from streampipe.counters import counters
from streampipe.errors import ShardError, TooManyErrors
from streampipe.pipeline.chain import AnyStage, name_of, takes_views, through
from streampipe.plan.planned import Cursor, Place, Plan
from streampipe.query.condition import Keep
from streampipe.reading.prefetch import Steps
from streampipe.reading.reader import Reader
from streampipe.stages.grouping import bucket_sizes, find_groups
from streampipe.stages.stage import pushdown_of, traits_of
from streampipe.traits import Batch, Filter, Group, Rows

_FEW_OPEN, _MOST_OPEN = 64, 256  # shards
_MOST_TRIED, _UNLIKE_TRIED = 100, 10  # other steps, for one of which all samples are bad; of any bucket


@dataclass(frozen=True)
class Division:
    """A chain as the planner sees it: what is decided in integers, and what then runs as generators."""

    keep: Keep | None  # the conditions that the index answers
    stages: tuple[AnyStage, ...]
    batch: int | None  # samples of a rank's batch, the largest where buckets have their own; None without a batch
    tail: str = "short"
    bucket: AnyStage | None = None  # the stage whose buckets the index answers
    group: Group | None = None  # and what it says
    sizes: tuple[int, ...] = ()  # samples of a rank's batch of each bucket


def divide(chain: Sequence[AnyStage]) -> Division | str:
    """The chain for the planner, or the reason why its batches cannot be decided before it runs."""
    find_groups(chain)  # refuses what no tier can do
    pushed = list(takewhile(lambda stage: isinstance(pushdown_of(stage), (Filter, Group)), chain))
    rest = tuple(chain[len(pushed) :])
    at = next((i for i, stage in enumerate(rest) if isinstance(pushdown_of(stage), Batch)), len(rest))
    for i, stage in enumerate(rest):
        if i != at and traits_of(stage).rows is not Rows.EACH:
            early = isinstance(pushdown_of(stage), (Filter, Group))
            advice = "; put it first if it needs nothing of the stages before it: then the index answers it" * early
            return f"stage {name_of(stage, parameters=True)} may yield more or fewer samples than it is given{advice}"
    pushes = [pushdown_of(stage) for stage in pushed]
    where = tuple(push.condition for push in pushes if isinstance(push, Filter))
    bucket, group = next(
        ((s, push) for s, push in zip(pushed, pushes, strict=True) if isinstance(push, Group)), (None, None)
    )
    batch = pushdown_of(rest[at]) if at < len(rest) else None
    sizes = () if group is None else bucket_sizes(group, rest)
    size, tail = None, "short"
    if isinstance(batch, Batch):
        size, tail = max(sizes) if sizes else batch.size, batch.tail
    return Division(Keep(where) if where else None, rest, size, tail, bucket, group, sizes)


class Made(NamedTuple):
    """What a step gave (nothing where its only sample was skipped), and the cursor behind it."""

    items: list[Any]
    after: Cursor


def make_batches(
    plan: Plan, division: Division, run: Run, cursor: Cursor, first: int = 0, stride: int = 1
) -> Iterator[Made]:
    """A consumer's steps from ``cursor`` on: the ``first``, and every ``stride``-th after it."""
    run = replace(run, open_shards=open_shards(plan))
    views = takes_views(division.stages)
    chains = plan.dataset.chains
    with closing(read_steps(plan, run, cursor, first, stride, views is not None and chains is None)) as steps:
        for at, places, found in steps:
            samples = _good(places, found, run, chains)
            if division.batch and run.fill != len(places):
                run = replace(run, fill=len(places))
            stages = division.stages
            items = list(through(stages, samples, run, views)) if stages else list(samples)
            if division.batch and not items:
                items = _in_place_of(plan, stages, run, at, places)
            if division.batch and len(items) != 1:
                raise TooManyErrors(
                    f"all {len(places)} samples of batch {at.step} of epoch {at.epoch} were skipped or dropped by "
                    f"stages, and so were those of the batches behind it; report() says why; check the data and the "
                    f"stages' limits, or use on_error='raise' to see the first error"
                )
            plan.delivered(at, places, run.consumer.rank)
            yield Made(items, plan.after(at))


def _in_place_of(plan: Plan, stages: tuple[AnyStage, ...], run: Run, at: Cursor, places: Sequence[Place]) -> list[Any]:
    """A batch for a step of which no sample is good, or nothing: of this rank's next steps, or of the epoch's first.

    All ranks must take the step, and it has nobody to fill its slots from, as where a batch is one sample. Steps of the
    same size come first, so that no image is cut to the shape of another bucket while there is one of this.
    """
    size, total, consumer = places[0].size, plan.batches_in(at.epoch), run.consumer
    views, chains = takes_views(stages), plan.dataset.chains
    find = plan.dataset.places(plan, consumer.rank, consumer.world_size)
    ahead = [(at.step + i) % total for i in range(1, min(total, _MOST_TRIED))]
    alike = (other for step in ahead if (other := find(at.epoch, step))[0].size == size)
    for other in chain(alike, (find(at.epoch, step) for step in ahead[:_UNLIKE_TRIED])):
        resized = [place._replace(size=size) for place in other[: len(places)]]
        steps = Reader(plan.dataset.parts(), _FEW_OPEN).read(
            iter([(at, resized)]), views is not None and chains is None
        )
        with closing(steps):
            samples = (sample for _, _, found in steps for sample in _good(resized, found, run, chains))
            if items := list(through(stages, samples, run, views)):
                counters.add("batch", "batches made of other steps' samples (theirs were all skipped)")
                return items
    return []


def read_batch(plan: Plan, epoch: int, step: int, run: Run, views: bool) -> Iterator[Sample]:
    """The samples of one global batch, those of all ranks."""
    chains = plan.dataset.chains
    alone = replace(run, consumer=Consumer())
    at = Cursor(epoch, step, epoch + 1)
    for _, places, found in read_steps(plan, alone, at, 0, plan.batches, views and chains is None):
        yield from _good(places, found, run, chains)


def read_steps(plan: Plan, run: Run, cursor: Cursor, first: int, stride: int, views: bool) -> Steps[Cursor]:
    """The steps with their places and, in the same order, their samples, or the error of each that failed."""
    consumer = run.consumer
    places = plan.dataset.places(plan, consumer.rank, consumer.world_size)
    steps = ((at, places(at.epoch, at.step)) for at in plan.steps(cursor, first, stride))
    return Reader(plan.dataset.parts(), max(_FEW_OPEN, open_shards(plan))).read(steps, views)


def open_shards(plan: Plan) -> int:
    """How many shards a plan's samples come from at once: draws a to b of a lane are of [a - window, b + window)."""
    if len(plan.dataset.parts()) > 1:
        return _MOST_OPEN
    lanes = plan.lanes
    span = 2 * lanes.window + lanes.size // lanes.places
    return min(_MOST_OPEN, lanes.number * (2 + span * len(plan.dataset.shards) // max(1, lanes.samples)))


def _good(
    places: Sequence[Place], found: Iterable[Sample | ShardError], run: Run, chains: Sequence[Any] | None
) -> Iterator[Sample]:
    """The samples that came, in a mixture through the stages of their part. Errors are up to the error policy."""
    for place, sample in zip(places, found, strict=True):
        if isinstance(sample, ShardError):
            run.policy.failed(sample, "reading")
            counters.add("reading", "samples skipped")
            continue
        run.policy.passed("reading")
        if place.size is not None:
            sample["__size__"] = place.size
        if chains is None:
            yield sample
        else:
            yield from through(chains[place.part], [sample], run, None)
