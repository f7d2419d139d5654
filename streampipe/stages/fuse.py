"""Neighbouring stages that are faster as one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from streampipe.stages.decode_batch import decode_batch
from streampipe.stages.stage import Stage


def fuse(chain: Iterable[Callable[..., Any]]) -> list[Callable[..., Any]]:
    """The chain with every ``decode`` of tensors that ``batch`` follows as one stage: same result, fewer copies."""
    fused: list[Callable[..., Any]] = []
    for stage in chain:
        if _is(stage, "batch") and fused and _is(fused[-1], "decode") and _gives_tensors(fused[-1]):
            before: Any = fused.pop()
            both = decode_batch(decode=before.parameters, **stage.parameters)  # type: ignore[attr-defined]
            both.label = before.label  # the same name, so the same random choices
            fused.append(both)
        else:
            fused.append(stage)
    return fused


def _is(stage: Any, name: str) -> bool:
    return isinstance(stage, Stage) and stage.define.__module__ == f"streampipe.stages.{name}"


def _gives_tensors(stage: Any) -> bool:
    return bool(stage.parameters.get("output", "tensor") == "tensor")
