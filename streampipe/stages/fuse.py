"""Neighbouring stages that are faster as one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from streampipe.stages.batch import batch
from streampipe.stages.decode import decode
from streampipe.stages.decode_batch import decode_batch
from streampipe.stages.map import map, wants
from streampipe.stages.map_batch import map_batch
from streampipe.stages.stage import Stage


def fuse(chain: Iterable[Callable[..., Any]]) -> list[Callable[..., Any]]:
    """The chain with every ``decode`` of tensors, and every ``map`` of a function that takes ``out=``, as one with the
    ``batch`` that follows: same result, fewer copies.

    These very stages, as they are: a decorated one is another stage, and what its decorator does must happen.
    """
    fused: list[Callable[..., Any]] = []
    for stage in chain:
        before = fused[-1] if fused else None
        both = _both(before, stage) if isinstance(stage, Stage) and isinstance(before, Stage) else None
        if both is None or before is None:
            fused.append(stage)
        else:
            both.label = before.label  # type: ignore[attr-defined]  # the same name, so the same random choices
            fused[-1] = both
    return fused


def _both(before: Stage, behind: Stage) -> Stage | None:
    """Two stages as one, if they can be."""
    if behind.define is not batch:
        return None
    if before.define is decode and before.options["output"] == "tensor" and before.options["device"] is None:
        return decode_batch(decode=before.options, **behind.options)
    if before.define is map and wants(before.options["fn"], "out") and behind.options["collate"] is None:
        return map_batch(map=before.options, **behind.options)
    return None
