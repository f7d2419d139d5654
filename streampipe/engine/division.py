"""A chain, divided: what the planner decides in integers, what runs in the lanes, and what runs on each batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from streampipe.engine.chain import name_of
from streampipe.plan.clips import ClipKeep
from streampipe.query.condition import Keep
from streampipe.spec import AnyStage
from streampipe.stages.grouping import bucket_sizes, find_groups
from streampipe.stages.stage import pushdown_of, traits_of
from streampipe.traits import Batch, Filter, Group, Limit, Pack, Rows, Split


@dataclass(frozen=True)
class Division:
    """A chain as an engine sees it.

    Args:
        pushed: the first stages, which an index can answer.
        keep, limit, group: what they say. ``bucket`` is the stage of ``group``.
        head: the stages that may yield more or fewer than they are given, and all in front of them. Empty where batches
            can be decided before they are read.
        tail: the stages behind: one for each, and ``batch``.
        batch: samples of a rank's batch that the tail makes, the largest where buckets have their own; or None.
        last: what becomes of the last batch, as ``batch(tail=)`` says.
        sizes: samples of a rank's batch of each bucket.
        pack: what ``pack`` says, at the end of the tail, where packs are planned.
        why: the stage for which there is a head, in words.
        chain: all of it, as it was given.
    """

    pushed: tuple[AnyStage, ...]
    head: tuple[AnyStage, ...]
    tail: tuple[AnyStage, ...]
    keep: Keep | None = None
    limit: Limit | None = None
    bucket: AnyStage | None = None
    group: Group | None = None
    batch: int | None = None
    last: str = "short"
    sizes: tuple[int, ...] = ()
    pack: Pack | None = None
    why: str = ""
    chain: tuple[AnyStage, ...] = ()

    @property
    def joins(self) -> bool:
        """Whether the tail makes one item of several samples."""
        return self.batch is not None or self.pack is not None

    @property
    def pools(self) -> bool:
        """Whether samples wait in pools for batches of their bucket, since the planner does not form them."""
        return find_groups(self.head)[1] is not None

    def unpushed(self) -> Division:
        """The same chain where there is no index to ask: all of it runs."""
        return divide(self.chain, push=False)

    def unpacked(self) -> Division:
        """The same chain where packs are made as samples come."""
        return divide(self.chain, packs=False)


def divide(chain: Sequence[AnyStage], push: bool = True, packs: bool = True) -> Division:
    """Divide a chain. ``push``: whether an index answers what it can; ``packs``: and what packs are made of.

    Raises:
        ConfigError: no engine can run such a chain.
    """
    find_groups(chain)
    pushed = tuple(takewhile(_Pushing(), chain)) if push else ()
    split = next((each for stage in pushed if isinstance(each := pushdown_of(stage), Split)), None)
    each_split = () if split is None else (split.each,)
    rest = (*each_split, *chain[len(pushed) :])
    cut = _tail(rest, push and packs)
    if cut and any(isinstance(pushdown_of(stage), Pack) for stage in rest[cut:]):
        cut = _tail(rest, packs=False)  # what is packed is known only when it comes
    head, tail = rest[:cut], rest[cut:]
    pushes = [pushdown_of(stage) for stage in pushed]
    grouped = next((i for i, each in enumerate(pushes) if isinstance(each, Group)), None)
    if grouped is not None and head:  # groups that are not batched at once are formed while the chain runs
        first = next(i for i, stage in enumerate(chain) if isinstance(pushdown_of(stage), Group))
        pushed, pushes = pushed[:first], pushes[:first]
        head, tail, grouped = (*each_split, *chain[first:]), (), None
    elif find_groups(rest)[1] is not None:
        head, tail = rest, ()
    group = pushes[grouped] if grouped is not None else None
    conditions = tuple(each.condition for each in pushes if isinstance(each, Filter))
    limits = [each for each in pushes if isinstance(each, Limit)]
    batch = next((each for stage in tail if isinstance(each := pushdown_of(stage), Batch)), None)
    pack = next((each for stage in tail if isinstance(each := pushdown_of(stage), Pack)), None)
    sizes = bucket_sizes(group, tail) if isinstance(group, Group) else ()
    return Division(
        pushed,
        head,
        tail,
        ClipKeep(conditions, split.rule) if split else Keep(conditions) if conditions else None,
        _together(limits) if limits else None,
        pushed[grouped] if grouped is not None else None,
        group if isinstance(group, Group) else None,
        max(sizes) if sizes else batch.size if batch is not None and isinstance(batch.size, int) else None,
        "short" if batch is None else batch.tail,
        sizes,
        pack,
        _why(head) if head else "",
        tuple(chain),
    )


class _Pushing:
    """Whether a stage can still be answered by the index: a filter behind a limit would change what is limited, and one
    behind clips asks clips.
    """

    def __init__(self) -> None:
        self._seen: set[type] = set()

    def __call__(self, stage: AnyStage) -> bool:
        push = pushdown_of(stage)
        allowed: dict[type, set[type]] = {
            Filter: {Filter, Group},
            Split: {Filter},
            Group: {Filter, Split},
            Limit: {Filter, Limit, Split},
        }
        before = allowed.get(type(push))
        if before is None or not self._seen <= before:
            return False
        self._seen.add(type(push))
        return True


def _tail(chain: Sequence[AnyStage], packs: bool) -> int:
    """Where the tail begins: behind the last stage that is neither one for each nor the last ``batch`` or ``pack``."""
    batched = False
    joins = (Batch, Pack) if packs else Batch
    for i in range(len(chain) - 1, -1, -1):
        if traits_of(chain[i]).rows is Rows.EACH:
            continue
        if batched or not isinstance(pushdown_of(chain[i]), joins):
            return i + 1
        batched = True
    return 0


def _together(limits: Sequence[Limit]) -> Limit:
    """Limits one behind the other, as one.

    >>> _together([Limit(2, 10), Limit(1, 4)])
    Limit(first=3, last=6)
    """
    first, last = 0, None
    for each in limits:
        ends = [end for end in (last, None if each.last is None else first + each.last) if end is not None]
        first, last = first + each.first, min(ends, default=None)
    return Limit(first, last)


def _why(head: Sequence[AnyStage]) -> str:
    stage = head[-1]
    for each in head:
        if traits_of(each).rows is not Rows.EACH:
            stage = each
            break
    early = isinstance(pushdown_of(stage), (Filter, Group))
    advice = "; put it first if it needs nothing of the stages before it: then the index answers it" * early
    return f"stage {name_of(stage, parameters=True)} may yield more or fewer samples than it is given{advice}"
