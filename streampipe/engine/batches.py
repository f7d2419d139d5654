"""One pass of one consumer over a planned pipeline: batches with the cursor behind each.

A planned batch is made on its own: its samples are read, go through the chain together, and come out as one batch. So a
batch needs nothing but its number, and a sample that fails is replaced inside its own batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import chain, islice
from typing import Any, NamedTuple

from streampipe.context import Consumer, Run, Sample, Trail
from streampipe.counters import counters
from streampipe.engine.chain import keeps_nothing, name_of, repeatable, takes_views, through
from streampipe.engine.division import Division
from streampipe.engine.engine import NOTHING
from streampipe.errors import SampleError, ShardError, StageError, TooManyErrors
from streampipe.memory import keep_freed
from streampipe.observe import Tally
from streampipe.plan.batchwise import BatchPlan
from streampipe.plan.compound import told
from streampipe.plan.planned import Cursor, Place, Plan
from streampipe.reading.prefetch import Steps
from streampipe.reading.reader import OpenShards, Reader
from streampipe.reading.sliced import OfStep
from streampipe.spec import AnyStage
from streampipe.stages.batch import joins_lists
from streampipe.stages.guard import watched

_FEW_OPEN, _MOST_OPEN, _MOST_KNOWN = 64, 256, 1024  # shards; the last are those whose index is held
_STEPS_OF_A_CHAIN = 1024
_MOST_LINKS = 64  # chains that are kept for batches of other sizes and parts
_MOST_TRIED, _UNLIKE_TRIED = 100, 10  # other steps, for one of which all samples are bad; of any bucket


class Made(NamedTuple):
    """What a step gave (``NOTHING`` where a lone rank's only sample was skipped), and the cursor behind it."""

    item: Any
    after: Cursor


def make_batches(
    plan: Plan, division: Division, run: Run, cursor: Cursor, first: int = 0, stride: int = 1
) -> Iterator[Made]:
    """A consumer's steps from ``cursor`` on: the ``first``, and every ``stride``-th after it."""
    keep_freed()
    run = replace(run, open_shards=open_shards(plan))
    stages, chains = division.tail, plan.dataset.chains
    batched = division.joins or isinstance(plan, BatchPlan)
    views = None if isinstance(plan, BatchPlan) else takes_views(stages)
    equal = batched or run.consumer.world_size > 1  # each step must give an item
    reading = counters.tally("reading")
    links: dict[tuple[int, int], Callable[[Iterable[Any]], Iterator[Any]]] = {}  # by part, and samples of a batch
    with closing(read_steps(plan, run, cursor, first, stride, views is not None and chains is None)) as steps:
        if stages and not equal and chains is None and keeps_nothing(stages):
            yield from _one_chain(plan, stages, run, views, steps)
            return
        for at, places, found in steps:
            turn = _turn(plan, division, at, places)
            if batched and run.fill != len(places):
                run = replace(run, fill=len(places))
            over = links.get((turn.part, len(places)))
            if over is None:
                over = repeatable(turn.stages, run, views)
                links = {**(links if len(links) < _MOST_LINKS else {}), (turn.part, len(places)): over}
            items = _by_column(turn, found, run, reading) if batched else None
            if items is None:
                samples = good(turn.places, found, run, turn.chains, reading)
                if reading.stack.on:
                    samples = watched(samples, reading, count=0)
                items = list(over(samples)) if turn.stages else list(samples)
            if equal and not items:
                items = _in_place_of(turn.plan, turn.stages, run, turn.at, turn.places)
            if equal and len(items) != 1:
                raise TooManyErrors(
                    f"all {len(places)} samples of batch {at.step} of epoch {at.epoch} were skipped or dropped by "
                    f"stages, and so were those of the batches behind it; report() says why; check the data and the "
                    f"stages' limits, or use on_error='raise' to see the first error"
                )
            plan.delivered(at, places, run.consumer.rank)
            yield Made(items[0] if items else NOTHING, plan.after(at))


class _Turn(NamedTuple):
    """A step, with the plan and stages that make it: in a mixture of batches, those of the part whose turn it is."""

    part: int
    plan: Plan
    at: Cursor
    places: Sequence[Place]
    stages: tuple[AnyStage, ...]
    chains: Sequence[Any] | None


def _turn(plan: Plan, division: Division, at: Cursor, places: Sequence[Place]) -> _Turn:
    if not isinstance(plan, BatchPlan):
        return _Turn(0, plan, at, places, division.tail, plan.dataset.chains)
    part, place = plan.turn(at)
    own = plan.dataset.plans[part]
    stages = (*plan.dataset.tails[part], *division.tail)
    return _Turn(part, own, place, plan.own(part, places), stages, own.dataset.chains)


def _one_chain(
    plan: Plan, stages: tuple[AnyStage, ...], run: Run, views: int | None, steps: Steps[Cursor]
) -> Iterator[Made]:
    """Steps of one sample each, for one rank, through one chain: stages may take in samples ahead of what they yield.

    The mark of the trail says of which step an item is. Steps without an item, whose samples were skipped, give none.
    The chain is begun anew now and then, because what a stage's rows are is checked at its end.
    """
    run = replace(run, trail=Trail())
    taken: deque[tuple[Cursor, Sequence[Place]]] = deque()  # steps whose samples are in the chain
    more = True

    def samples() -> Iterator[Sample]:
        nonlocal more
        for number, (at, places, found) in enumerate(islice(steps, _STEPS_OF_A_CHAIN), 1):
            more = number == _STEPS_OF_A_CHAIN
            taken.append((at, places))
            for sample in good(places, found, run, None):
                run.trail.mark = at
                yield sample

    def given(until: Cursor | None) -> Iterator[Made]:
        """Steps that gave nothing, before one of which there is an item or (None) all that were taken."""
        while taken and taken[0][0] != until:
            at, places = taken.popleft()
            plan.delivered(at, places, run.consumer.rank)
            yield Made(NOTHING, plan.after(at))

    over = repeatable(stages, run, views)
    while more:
        more = False
        for item in over(watched(samples(), counters.tally("reading"))):
            at = Cursor(*run.trail.mark or ())
            if all(step != at for step, _ in taken):
                raise StageError(
                    f"behind the stages there is a sample of step {at.step} of epoch {at.epoch} where that is not due: "
                    f"one of them takes in samples ahead of what it yields, and does not set run.trail.mark to where "
                    f"the yielded one came from; do so, or declare it state='opaque'"
                )
            yield from given(at)
            plan.delivered(*taken.popleft(), run.consumer.rank)
            yield Made(item, plan.after(at))
            del item
        yield from given(None)


def _by_column(turn: _Turn, found: Iterator[Any], run: Run, reading: Tally) -> list[Any] | None:
    """A step's samples as one batch that was made column by column, where ``batch`` as it comes is the only stage."""
    if len(turn.stages) != 1 or not joins_lists(turn.stages[0]) or turn.chains is not None:
        return None
    if not isinstance(found, OfStep) or turn.places[0].size is not None:
        return None
    whole = next(watched(map(OfStep.columns, [found]), reading, count=0))
    if whole is None:
        return None
    number, name = len(turn.places), name_of(turn.stages[0])
    run.policy.passed("reading", number)
    run.policy.yielded(name)
    reading.yielded += number
    tally = counters.tally(name)
    tally.given += number
    tally.yielded += 1
    return [whole]


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
        steps = reader_of(plan, _FEW_OPEN).read(iter([(at, resized)]), views is not None and chains is None)
        with closing(steps):
            samples = (sample for _, _, found in steps for sample in good(resized, found, run, chains))
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
        yield from good(places, found, run, chains, counters.tally("reading"))


def read_steps(plan: Plan, run: Run, cursor: Cursor, first: int, stride: int, views: bool) -> Steps[Cursor]:
    """The steps with their places and, in the same order, their samples, or the error of each that failed."""
    consumer = run.consumer
    places = plan.dataset.places(plan, consumer.rank, consumer.world_size)
    steps = ((at, places(at.epoch, at.step)) for at in plan.steps(cursor, first, stride))
    return reader_of(plan, most_open(plan)).read(steps, views)


def reader_of(plan: Plan, most: int, shared: OpenShards | None = None, readers: int = 1) -> Reader:
    """What reads a plan's samples, with so many shards open at most, maybe ``shared``; it is one of ``readers``."""
    return Reader(plan.dataset.parts(), most, plan.window, shared, readers)


def open_shards(plan: Plan, most: int = _MOST_OPEN) -> int:
    """How many shards a plan's samples come from at once: draws a to b of a lane are of [a - window, b + window)."""
    if len(plan.dataset.parts()) > 1:
        return most
    lanes = plan.lanes
    span = 2 * lanes.window + lanes.size // lanes.places
    return min(most, lanes.number * (2 + span * len(plan.dataset.shards) // max(1, lanes.samples)))


def most_open(plan: Plan) -> int:
    """How many local shards a reader of a plan keeps open. One reader may have all lanes, and takes them in turn: if it
    kept fewer than these are in, it would read an index for nearly every sample.
    """
    return max(_FEW_OPEN, open_shards(plan, _MOST_KNOWN))


def good(
    places: Sequence[Place],
    found: Iterable[Sample | ShardError | SampleError],
    run: Run,
    chains: Sequence[Any] | None,
    tally: Tally | None = None,
) -> Iterator[Sample]:
    """The samples that came, in a mixture through the stages of their part. Errors are up to the error policy. The
    ``tally`` is told of them all together, in the end.
    """
    number = told_of = 0  # that came, and of which the policy was told
    try:
        for place, sample in zip(places, found, strict=True):
            if isinstance(sample, (ShardError, SampleError)):
                run.policy.passed("reading", number - told_of)
                told_of = number
                run.policy.failed(sample, "reading")
                counters.add("reading", "samples skipped")
                continue
            number += 1
            if place.size is not None:
                sample["__size__"] = told(place.size)
            if chains is None:
                yield sample
            else:
                yield from through(chains[place.part], [sample], run, None)
    finally:
        run.policy.passed("reading", number - told_of)
        if tally is not None:
            tally.yielded += number
