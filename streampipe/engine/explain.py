"""``explain``: what a pipeline will do, before it does it. Here its face, and what is said of lanes."""

from __future__ import annotations

from typing import Any

from streampipe.context import Consumer
from streampipe.engine.bounds import bounds_of
from streampipe.engine.chain import name_of
from streampipe.engine.compile import opaque_in
from streampipe.engine.engine import Engine, Level
from streampipe.engine.explain_plan import KNOWN, listed, optional_row, planned_rows
from streampipe.engine.indexed import IndexedEngine
from streampipe.engine.interleaved import LaneEngine
from streampipe.engine.lanes import Shape
from streampipe.spec import Job, Spec
from streampipe.stages.grouping import find_groups
from streampipe.stages.stage import pushdown_of
from streampipe.traits import Filter, Limit


def explain(engine: Engine[Any], job: Job, steps_per_epoch: int | None = None) -> str:
    """The level and why, what was pushed into the plan, what runs as generators, what is guaranteed, and numbers."""
    spec = engine.spec
    rows = [("source", repr(spec.source))]
    rows += optional_row("reads", _fields_read(spec))
    if isinstance(engine, IndexedEngine):
        rows += planned_rows(engine, job)
    elif isinstance(engine, LaneEngine):
        rows += _lanes(engine, job, steps_per_epoch)
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in rows)


def _lanes(engine: LaneEngine, job: Job, steps_per_epoch: int | None) -> list[tuple[str, str]]:
    spec, work = engine.spec, engine.work
    shape, ranks = work.shape, job.world_size
    lift = "" if engine.level is Level.INDEXED else spec.source.lift(engine.level is Level.COUNTED)
    head, tail = _stage_names(work.head.chain), _stage_names(work.tail.chain)
    of_rank = len(shape.columns_of(0, ranks))
    used = engine.stride(Consumer(0, ranks, 0, job.readers))
    rows = [
        ("level", f"{engine.level.value}{KNOWN[engine.level]}{'; ' + lift if lift else ''}"),
        ("not planned", engine.why),
        ("in each lane", listed(head)),
        ("on each batch", listed(tail)),
        ("order", _order(engine, job)),
        ("resume", f"exact; {_resume(engine)}"),
        ("holds", str(bounds_of(engine, job))),
    ]
    if shape.number > 1 and any(isinstance(pushdown_of(stage), Limit) for stage in work.head.chain):
        rows.append(("take, skip", f"each of {shape.number} lanes counts its share; {_EXACT}"))
    if used < job.num_workers:
        divide = ", ".join(str(w) for w in range(1, of_rank + 1) if of_rank % w == 0)
        rows.append(("workers", f"{job.num_workers - used} of {job.num_workers} stay idle: {divide} would be used"))
    if ranks > 1 and spec.epochs is not None and steps_per_epoch is None and engine.length(0, 1) is None:
        rows.append(("several ranks", "need loader(steps_per_epoch=n)"))
    given = [push.condition for stage in spec.chain if isinstance(push := pushdown_of(stage), Filter)]
    return rows + optional_row("names", ", ".join(filter(None, (each.names() for each in given))))


_EXACT = "in one process they are exact, in passes that end (epochs=n, without steps_per_epoch)"


def _order(engine: LaneEngine, job: Job) -> str:
    shape = engine.work.shape
    if engine.work.stream.together and shape.fits(job.world_size):
        return (
            f"{shape.places} x {shape.columns} lanes; the same batches on any ranks that divide {shape.places} and "
            f"workers that divide {shape.columns}"
        )
    if shape == Shape(job.world_size, job.readers):
        return "each reader has a stream of its own; another number of ranks or workers is another order"
    return (
        f"{shape.places} x {shape.columns} lanes, assigned to {job.world_size} ranks one after the other, because "
        f"those do not divide {shape.places}: another order than on other ranks"
    )


def _resume(engine: LaneEngine) -> str:
    work = engine.work
    if find_groups(work.head.chain)[1] is not None:
        return (
            "an epoch is read again from its beginning, because samples wait in the pools of bucket; what was yielded "
            "is not decoded again"
        )
    reason = opaque_in(work.stream, work.head.chain)
    if reason is not None:
        return f"each lane is replayed from the beginning of its epoch, because {reason}"
    return "from where each lane stopped, or where the shuffle's window before it begins"


def _stage_names(chain: Any) -> list[str]:
    return [name_of(stage, parameters=True) for stage in chain]


def _fields_read(spec: Spec) -> str:
    read = spec.source.fields_read
    return f"no other fields than {', '.join(sorted(read))}" if read else ""
