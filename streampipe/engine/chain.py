"""The stages of a pipeline put one behind the other."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial, reduce
from itertools import islice
from typing import Any

from streampipe.context import Mark, Memory, Run, Trail
from streampipe.errors import ConfigError
from streampipe.gil import has_gil
from streampipe.report.summary import READING
from streampipe.samples import to_bytes
from streampipe.stages.bucket import Pools, count_batch
from streampipe.stages.fuse import fuse
from streampipe.stages.grouping import bucket_rule, find_groups
from streampipe.stages.guard import AnyStage, guarded, run_of
from streampipe.stages.nothing import Drops
from streampipe.stages.stage import Stage, pushdown_of, traits_of
from streampipe.traits import Group, Keeps


def through(
    chain: Sequence[AnyStage],
    items: Iterable[Any],
    run: Run,
    views: int | None,
    at: Sequence[Mark] = (),
    before: Sequence[AnyStage] = (),
) -> Iterator[Any]:
    """The chain over the items. ``views``: the stage before which views of shards must have become bytes. ``at``: the
    marks behind the stages that count where the pass goes on, from ``unwind``.
    """
    seen: dict[str, int] = {}
    for stage in fuse(before):  # they ran elsewhere, and count where stages of one name are told apart
        _numbered(stage, seen)
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
        name = _numbered(stage, seen)
        if not _counts(stage):
            items = guarded(stage, items, run_of(stage, run.in_stage(name)))
            continue
        mark = next(marks, None)
        memory = Memory(run.trail, mark)
        items = guarded(stage, memory.watched(items), run_of(stage, run.in_stage(name, mark, memory)))
        items = _marked(items, run.trail, mark, memory)
    return items


def repeatable(chain: Sequence[AnyStage], run: Run, views: int | None) -> Callable[[Iterable[Any]], Iterator[Any]]:
    """``through`` for one batch after the other: what does not depend on the items is made once."""
    if find_groups(chain)[1] is not None or any(map(_counts, chain)):
        return lambda items: through(chain, items, run, views)
    seen: dict[str, int] = {}
    links: list[Callable[[Any], Any]] = []
    for i, stage in enumerate(fuse(chain)):
        if i == views:
            links.append(partial(map, to_bytes))
        links.append(partial(guarded, stage, run=run_of(stage, run.in_stage(_numbered(stage, seen)))))
    return lambda items: iter(reduce(lambda before, link: link(before), links, items))


def _marked(items: Iterable[Any], trail: Trail, mark: Mark, memory: Memory | None = None) -> Iterator[Any]:
    """The items. At their end the mark is that of the last one again: what came after it was only taken in."""
    for item in items:
        if memory is not None:
            memory.yielded()
        mark = trail.mark
        yield item
    trail.mark = mark


def _numbered(stage: AnyStage, seen: dict[str, int]) -> str:
    name = name_of(stage)
    number = seen[name] = seen.get(name, int(name == READING)) + 1  # a stage that is named as reading is told apart
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
    given = pushdown_of(bucket)
    assert isinstance(given, Group)
    sizes = bucket_rule(given, chain)
    done = run.at[0] if run.at else 0
    if not isinstance(done, int):
        raise ConfigError(f"the state's mark is {run.at!r} behind stage {run.stage}: it is damaged")
    drops = Drops(run, ": the stages between it and batch keep none; report() says which and why")
    pools = Pools(given.buckets, sizes, given.tail, given.max_bytes, run)
    for group in islice(pools.groups(items), done, None):
        done += 1
        for batch in _plain(chain, group.samples, replace(run, fill=len(group.samples)), views, dict(seen), iter(())):
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
    """Whether a stage needs numbers of its own to go on: it puts them in front of the mark."""
    return traits_of(stage).state is Keeps.OFFSET


def named(chain: Sequence[AnyStage]) -> list[tuple[str, AnyStage]]:
    """The stages as they run, with the names under which they are counted."""
    seen: dict[str, int] = {}
    return [(_numbered(stage, seen), stage) for stage in fuse(chain)]


def keeps_nothing(chain: Iterable[AnyStage]) -> bool:
    """Whether no stage keeps anything between items: one instance over many batches yields what one for each does."""
    return all(traits_of(stage).state is Keeps.NOTHING for stage in chain)


def name_of(stage: AnyStage, parameters: bool = False) -> str:
    """A stage's name for messages: ``map(augment)``; with ``parameters`` as it would be written."""
    if not isinstance(stage, Stage):
        return getattr(stage, "__name__", None) or type(stage).__name__
    return repr(stage) if parameters else stage.label


def describe(source: Any, chain: Sequence[AnyStage]) -> str:
    """A source and the stages behind it in words that are the same in every process."""
    text = "\n  .".join([repr(source), *(name_of(stage, parameters=True) for stage in chain)])
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def takes_views(chain: tuple[AnyStage, ...]) -> int | None:
    """Where fields must have become bytes: the number of the first stage that cannot use memoryviews of a shard.

    None if that is the first stage, or if nothing in front of it would gain from views; and without a GIL, because
    CPython counts the views of a buffer without a lock, and samples of one buffer may be in several threads.
    """
    if not has_gil():
        return None
    for i, stage in enumerate(chain):
        traits = traits_of(stage)
        if not traits.views:
            return i or None
        if traits.bytes_out:
            return len(chain)
    return None


__all__ = [
    "AnyStage",
    "describe",
    "keeps_nothing",
    "name_of",
    "named",
    "repeatable",
    "takes_views",
    "through",
    "unwind",
]
