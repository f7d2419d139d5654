"""Stages that write where ``batch`` will have it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from streampipe.stages.assign import assign
from streampipe.stages.batch import batch
from streampipe.stages.caption import caption
from streampipe.stages.decode import decode
from streampipe.stages.decode_rows import decode_rows
from streampipe.stages.default import default
from streampipe.stages.drop import drop
from streampipe.stages.map import map, wants
from streampipe.stages.map_rows import map_rows
from streampipe.stages.rename import rename
from streampipe.stages.select import select
from streampipe.stages.stage import Stage
from streampipe.traits import Keeps, Rows

_MOVING = (select, drop, rename, assign, default, caption)  # what pixels and arrays are, they leave as it is


def fuse(chain: Iterable[Callable[..., Any]]) -> list[Callable[..., Any]]:
    """The chain with every ``decode`` of tensors, and every ``map`` of a function that takes ``out=``, writing into the
    memory of the ``batch`` behind it, where only stages stand between that leave other fields as they are: same result,
    fewer copies.

    These very stages, as they are: a decorated one is another stage, and what its decorator does must happen.
    """
    fused = list(chain)
    for end, stage in enumerate(fused):
        if not isinstance(stage, Stage) or stage.define is not batch:
            continue
        replaced: frozenset[str] = frozenset()
        for at in reversed(range(end)):
            before = fused[at]
            if not isinstance(before, Stage):
                break
            between = fused[at + 1 : end]
            if (made := _into_rows(before, between, stage, replaced)) is not None:
                made.label = before.label  # the same name, so the same random choices
                fused[at] = made
            if before.define is decode or not _passes(before):
                break
            replaced = _replaced(before, replaced)
    return fused


def _into_rows(before: Stage, between: Sequence[Any], end: Stage, replaced: frozenset[str]) -> Stage | None:
    """A stage that writes into rows, if it can."""
    size, options = end.options["size"], before.options
    if before.define is decode and options["output"] == "tensor" and options["device"] is None:
        arrays = end.options["collate"] is None and not any(_looks_at_all(each) for each in between)
        return decode_rows(decode=options, size=size, arrays=arrays, replaced=replaced)
    if before.define is map and wants(options["fn"], "out") and end.options["collate"] is None:
        mine = options["field"].split(";")
        return None if replaced.intersection(mine) else map_rows(map=options, size=size)
    return None


def _passes(stage: Stage) -> bool:
    """Whether a stage gives one sample for each, and leaves the fields that it does not name as they are."""
    traits = stage.traits
    if traits.rows is not Rows.EACH or traits.state is not Keeps.NOTHING:
        return False
    return stage.define in _MOVING or (traits.fields is not None and traits.fields(stage.options) is not None)


def _looks_at_all(stage: Stage) -> bool:
    """Whether a function of the user's is given whole samples."""
    return stage.define is default and any(callable(each) for each in stage.options["fields"].values())


def _replaced(stage: Stage, later: frozenset[str]) -> frozenset[str]:
    """The fields in front of a stage whose values it or one behind it replaces."""
    if stage.define is rename:
        names = {new: old.split(";") for new, old in stage.options["names"].items()}
        return frozenset(name for each in later for name in names.get(each, [each]))
    if stage.define in _MOVING or stage.traits.fields is None:
        return later
    fields = stage.traits.fields(stage.options)
    return later.union(name for each in (fields.at if fields else ()) for name in each.split(";"))
