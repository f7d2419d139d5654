"""Neighbouring stages that are faster as one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from streampipe.stages.decode_batch import decode_batch
from streampipe.stages.stage import Stage


def fuse(chain: Iterable[Callable[..., Any]]) -> list[Callable[..., Any]]:
    """The chain with every ``decode(size=...)`` that ``batch`` follows as one stage: same result, fewer copies."""
    fused: list[Callable[..., Any]] = []
    for stage in chain:
        if _is(stage, "batch") and fused and _is(fused[-1], "decode") and _fixed_size(fused[-1]):
            before: Any = fused.pop()
            both = decode_batch(decode=before.parameters, **stage.parameters)  # type: ignore[attr-defined]
            both.label = before.label  # the same name, so the same random choices
            fused.append(both)
        else:
            fused.append(stage)
    return fused


def _is(stage: Any, name: str) -> bool:
    return isinstance(stage, Stage) and stage.define.__module__ == f"streampipe.stages.{name}"


def _fixed_size(stage: Any) -> bool:
    return stage.parameters.get("size") is not None and stage.parameters.get("output", "tensor") == "tensor"
