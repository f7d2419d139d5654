"""Neighbouring stages that are faster as one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from streampipe.stages.batch import batch
from streampipe.stages.decode import decode
from streampipe.stages.decode_batch import decode_batch
from streampipe.stages.stage import Stage


def fuse(chain: Iterable[Callable[..., Any]]) -> list[Callable[..., Any]]:
    """The chain with every ``decode`` of tensors that ``batch`` follows as one stage: same result, fewer copies.

    These two very stages, as they are: a decorated one is another stage, and what its decorator does must happen.
    """
    fused: list[Callable[..., Any]] = []
    for stage in chain:
        before = fused[-1] if fused else None
        if isinstance(stage, Stage) and isinstance(before, Stage) and _fit(before, stage):
            both = decode_batch(decode=before.options, **stage.options)
            both.label = before.label  # the same name, so the same random choices
            fused[-1] = both
        else:
            fused.append(stage)
    return fused


def _fit(before: Stage, behind: Stage) -> bool:
    if before.define is not decode or behind.define is not batch:
        return False
    return before.options["output"] == "tensor" and before.options["device"] is None
