"""The laws of streampipe as helpers: each takes something to try, and fails with what broke."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from streampipe.context import Consumer, Run, Trail
from streampipe.engine.chain import takes_views
from streampipe.engine.compile import compile
from streampipe.engine.engine import Engine, is_nothing
from streampipe.engine.interleaved import LaneEngine
from streampipe.pipeline import Pipeline
from streampipe.spec import Job
from streampipe.stages.stage import Stage
from streampipe.traits import Keeps, Rows


def consumers(world_size: int, num_workers: int) -> list[Consumer]:
    """Every consumer of a job."""
    return [Consumer(r, world_size, w, num_workers) for r in range(world_size) for w in range(num_workers)]


def engine_of(pipe: Pipeline, world_size: int = 1, num_workers: int = 0, tail: str | None = None) -> Engine[Any]:
    """What runs a pipeline in such a job."""
    return compile(pipe.spec, Job(world_size, num_workers, tail))


def run(pipe: Pipeline, consumer: Consumer, epoch: int, threads: int = 0) -> Iterator[Any]:
    """One consumer's items of one pass."""
    workers = consumer.num_workers if consumer.num_workers > 1 else 0
    engine = engine_of(pipe, consumer.world_size, workers)
    until = epoch + (pipe.spec.epochs or 1)
    items = engine.items(engine.first(epoch), until, consumer, threads)
    return (item for item, _, _ in items if not is_nothing(item))


def check_cover(pipe: Pipeline, keys: Iterable[str], world_size: int, num_workers: int, epoch: int = 0) -> None:
    """Law 1: over an epoch every sample goes to exactly one consumer."""
    got: Counter[str] = Counter()
    for consumer in consumers(world_size, num_workers):
        got.update(sample["__key__"] for sample in run(pipe, consumer, epoch))
    wanted = Counter(keys)
    if engine_of(pipe, world_size).kind == "planned" and (got - wanted).total() < world_size:
        got = got & wanted  # ranks take equal steps: where the last one has too few samples, some have one twice
    assert got == wanted, f"lost: {sorted(wanted - got)[:5]}, twice: {sorted(got - wanted)[:5]}"


def check_epoch_order(pipe: Pipeline, epochs: int = 4) -> None:
    """The same order on every run, another one in every epoch, the same samples in all of them."""
    orders = [[sample["__key__"] for sample in run(pipe, Consumer(), epoch)] for epoch in range(epochs)]
    again = [[sample["__key__"] for sample in run(pipe, Consumer(), epoch)] for epoch in range(epochs)]
    assert orders == again
    assert len({tuple(order) for order in orders}) == epochs
    assert len({tuple(sorted(order)) for order in orders}) == 1


def check_picklable(stage: Callable[[Iterable[Any]], Iterable[Any]], samples: Sequence[Any]) -> None:
    """Law 8: a stage can be pickled, also after it was used, and does the same afterwards."""
    before = list(stage(iter(samples)))
    copy = pickle.loads(pickle.dumps(stage))
    assert repr(copy) == repr(stage)
    assert _plain(list(copy(iter(samples)))) == _plain(before)


def check_resume(make: Callable[[int], Iterator[Any]], total: int) -> None:
    """Law 4 for a generator that can start anywhere: ``make(n)`` goes on exactly where the first n items end."""
    whole = list(make(0))
    assert len(whole) == total
    for position in range(total + 1):
        assert list(make(position)) == whole[position:], f"resuming after {position} of {total} differs"


def check_lazy(stage: Callable[[Iterable[Any]], Iterable[Any]], samples: Sequence[Any], ahead: int) -> None:
    """A stage is a generator: it pulls nothing before it is asked, and never much more than it gave out."""
    pulled = 0

    def source() -> Iterator[Any]:
        nonlocal pulled
        for sample in samples:
            pulled += 1
            yield sample

    items = iter(stage(source()))
    assert pulled == 0
    for given, _ in enumerate(items, start=1):
        assert pulled <= given + ahead, f"{pulled} samples were pulled for {given} given out"


def check_rows(stage: Stage, samples: Sequence[Any]) -> None:
    """Law 9: what comes out is what the stage's ``rows`` say."""
    out = [_key(item) for item in stage(iter(samples))]
    keys = [_key(sample) for sample in samples]
    rows = stage.traits.rows
    if rows is Rows.EACH:
        assert out == keys
    elif rows is Rows.FEWER:
        assert out == [key for key in keys if key in out]
    elif rows is Rows.BATCH:
        assert len(out) < len(keys)
        assert sorted(key for batch in out for key in batch) == sorted(keys)
    elif rows is Rows.SPLIT:
        assert out == [_key(item) for sample in samples for item in stage(iter([sample]))]
    else:
        assert sorted(out) == sorted(keys), f"{stage} is known to keep all samples, but not in which order"


def check_state(stage: Stage, samples: Sequence[Any]) -> None:
    """Law 9: a stage that keeps nothing, or an offset, goes on behind each item as if it had never stopped."""
    keeps = stage.traits.state
    assert keeps is not Keeps.OPAQUE, f"{stage} is replayed"
    whole, marks = [], []
    trail = Trail()
    for item in stage(_marking(samples, 0, trail), Run(stage=stage.label, trail=trail)):
        whole.append(_plain(item))
        marks.append(trail.mark)
    for number, mark in enumerate(marks, 1):
        behind = mark[-1] if keeps is Keeps.OFFSET else mark
        trail = Trail()
        run = Run(stage=stage.label, trail=trail, at=mark if keeps is Keeps.OFFSET else None, resumed=True)
        rest = [_plain(item) for item in stage(_marking(samples, behind or 0, trail), run)]
        assert rest == whole[number:], f"going on behind item {number} of {len(whole)} differs"


def _marking(samples: Sequence[Any], start: Any, trail: Trail) -> Iterator[Any]:
    """The samples from a number on, with the number of the next one as the mark."""
    for number in range(start, len(samples)):
        trail.mark = number + 1
        yield samples[number]


def check_same(plain: Pipeline, other: Pipeline) -> None:
    """Law 9: two pipelines that must be alike in all that is decided before they run, and in all that comes out."""
    assert repr(plain) == repr(other)
    assert takes_views(plain.chain) == takes_views(other.chain)
    first, second = engine_of(plain), engine_of(other)
    assert (first.kind, first.level, first.why) == (second.kind, second.level, second.why)
    assert first.state(first.first(0), 0, 1) == second.state(second.first(0), 0, 1)
    if isinstance(first, LaneEngine) and isinstance(second, LaneEngine):
        assert first.work.exact == second.work.exact
    items = [_plain(item) for item in plain]
    assert [_plain(item) for item in other] == items
    assert items


def _key(item: Any) -> Any:
    return item["__key__"]


def _plain(value: Any) -> Any:
    """Something that compares with ==, tensors included."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
