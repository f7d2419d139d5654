"""The stages of a pipeline put one behind the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from streampipe import stages
from streampipe.context import Mark, Run, Trail, blame
from streampipe.errors import ConfigError, StreampipeError
from streampipe.reading.shards import to_bytes
from streampipe.stages.bucket import MAX_BYTES, Pools, count_batch
from streampipe.stages.fuse import fuse
from streampipe.stages.grouping import bucket_sizes, find_groups, of_size
from streampipe.stages.nothing import Drops
from streampipe.stages.stage import Stage, is_stage

AnyStage = Callable[[Iterable[Any]], Iterable[Any]]

_COUNT = ("shuffle", "take", "unbatch")
"""Stages that need numbers of their own to go on: they put them in front of the mark."""


def through(
    chain: Sequence[AnyStage], items: Iterable[Any], run: Run, views: int | None, at: Sequence[Mark] = ()
) -> Iterator[Any]:
    """The chain over the items. ``views``: the stage before which views of shards must have become bytes. ``at``: the
    marks behind the stages that count where the pass goes on, from ``unwind``.
    """
    seen: dict[str, int] = {}
    marks = iter(at)
    chain, grouping = find_groups(chain)
    if grouping is None:
        return iter(_plain(chain, items, run, views, seen, marks))
    start, end = grouping
    items = _plain(chain[:start], items, run, views, seen, marks)
    own, inner = run.in_stage(_numbered(chain[start], seen), next(marks, None)), chain[start + 1 : end + 1]
    items = _by_group(chain[start], inner, items, own, _beyond(views, start + 1), dict(seen))
    items = _marked(items, run.trail, own.at)
    for stage in fuse(inner):
        _numbered(stage, seen)
    return iter(_plain(chain[end + 1 :], items, run, _beyond(views, end + 1), seen, marks))


def _plain(
    chain: Sequence[AnyStage],
    items: Iterable[Any],
    run: Run,
    views: int | None,
    seen: dict[str, int],
    marks: Iterator[Mark],
) -> Iterable[Any]:
    for i, stage in enumerate(fuse(chain)):
        if i == views:
            items = map(to_bytes, items)
        counts = _counts(stage)
        mark = next(marks, None) if counts else None
        items = _guarded(stage, items, run.in_stage(_numbered(stage, seen), mark))
        if counts:
            items = _marked(items, run.trail, mark)
    return items


def _marked(items: Iterable[Any], trail: Trail, mark: Mark) -> Iterator[Any]:
    """The items. At their end the mark is that of the last one again: what came after it was only taken in."""
    for item in items:
        mark = trail.mark
        yield item
    trail.mark = mark


def _numbered(stage: AnyStage, seen: dict[str, int]) -> str:
    name = name_of(stage)
    number = seen[name] = seen.get(name, 0) + 1
    return name if number == 1 else f"{name}#{number}"


def _beyond(views: int | None, stages: int) -> int | None:
    """The number ``views`` counted from a later stage on."""
    return None if views is None or views < stages else views - stages


def _by_group(
    bucket: Any, chain: Sequence[AnyStage], items: Iterable[Any], run: Run, views: int | None, seen: dict[str, int]
) -> Iterator[Any]:
    """Groups of one bucket, one after the other through the stages from behind ``bucket`` up to ``batch``.

    The mark behind a batch is how many groups there were. A pass goes on by reading from its beginning again, because
    what waits in the pools may have come at any time; but groups that were given out go no further than the pools.
    """
    given = bucket.parameters
    if given.get("same") and run.consumer.world_size > 1:
        raise ConfigError(
            "bucket(same=True) needs samples that are counted: without counts, ranks cannot know what the others do; "
            "make an index (streampipe index), or leave same= out"
        )
    sizes = bucket_sizes(bucket, chain)
    options = given.get("leftover", "carry"), given.get("max_bytes", MAX_BYTES)
    done = run.at[0] if run.at else 0
    if not isinstance(done, int):
        raise ConfigError(f"the state's mark is {run.at!r} behind stage {run.stage}: it is damaged")
    sized: dict[int, Sequence[AnyStage]] = {}
    drops = Drops(run, ": the stages between it and batch keep none; report() says which and why")
    for group in islice(Pools(given["buckets"], sizes, *options, run).groups(items), done, None):
        done += 1
        number = len(group.samples)
        mine = sized[number] = sized.get(number) or of_size(chain, number)
        for batch in _plain(mine, group.samples, replace(run, fill=number), views, dict(seen), iter(())):
            run.trail.mark = [done, None]
            drops.keep()
            count_batch(group)
            yield batch
        for _ in group.samples:
            drops.drop()  # if there was no batch, nor ever one
    drops.end()


def unwind(chain: Sequence[AnyStage], mark: Mark) -> tuple[Mark, list[Mark]]:
    """From the mark behind a chain, that of its source, and those behind each stage that counts, in order."""
    behind: list[Mark] = []
    chain, grouping = find_groups(chain)
    for i, stage in reversed(list(enumerate(chain))):
        in_groups = grouping is not None and i == grouping[0]
        if in_groups or _counts(stage):
            behind.insert(0, mark)
            mark = mark[-1] if mark is not None and not in_groups else None
            if not isinstance(mark, (list, tuple, type(None))):
                raise ConfigError(f"the state's mark ends at {mark!r} before stage {name_of(stage)}: it is damaged")
    return mark, behind


def _counts(stage: AnyStage) -> bool:
    return any(is_stage(stage, name) for name in _COUNT)


def name_of(stage: AnyStage, parameters: bool = False) -> str:
    """A stage's name for messages: ``map(augment)``; with ``parameters`` as it would be written."""
    if not isinstance(stage, Stage):
        return getattr(stage, "__name__", None) or type(stage).__name__
    return repr(stage) if parameters else stage.label


def takes_views(chain: tuple[AnyStage, ...]) -> int | None:
    """Where fields must have become bytes: the number of the first stage that cannot use memoryviews of a shard.

    None if that is the first stage, or if nothing in front of it would gain from views.
    """
    for i, stage in enumerate(chain):
        if isinstance(stage, Stage) and stage.name == "decode":
            return len(chain)  # decode leaves no view behind
        if not (isinstance(stage, Stage) and stage.define.views):
            return i or None
    return None


def _guarded(stage: AnyStage, items: Iterable[Any], run: Run) -> Iterator[Any]:
    """The stage over the items. What it raises names the stage and the last sample that it was given."""
    last = _Last(items) if not isinstance(stage, Stage) or stage.name not in stages.__all__ else None
    try:
        source = items if last is None else last
        yield from stage(source, run) if isinstance(stage, Stage) else stage(source)
    except StreampipeError:
        raise
    except Exception as error:
        sample = last.item if last is not None and isinstance(last.item, Mapping) else None
        raise blame(error, run.stage, sample) from error


class _Last:
    """An iterator that remembers what it gave out last."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = iter(items)
        self.item: Any = None

    def __iter__(self) -> _Last:
        return self

    def __next__(self) -> Any:
        self.item = next(self._items)
        return self.item
