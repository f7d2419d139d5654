"""``bucket`` and the ``batch`` behind it: what stands between them works on one group at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from streampipe.errors import ConfigError
from streampipe.plan.buckets import batch_sizes
from streampipe.stages.stage import Stage, is_stage

_NOT_IN_GROUPS = ("bucket", "shuffle", "take", "unbatch")


def find_groups(chain: Sequence[Any], needed: bool = False) -> tuple[Sequence[Any], tuple[int, int] | None]:
    """The chain, and where in it ``bucket`` and the ``batch`` behind it are; None where there are not both.

    A ``where`` right behind ``bucket`` comes before it in the chain that is returned: the samples are the same.

    Raises:
        ConfigError: a stage between the two would see one group at a time, and makes no sense so.
    """
    chain = list(chain)
    start = next((i for i, stage in enumerate(chain) if is_stage(stage, "bucket")), None)
    if start is None:
        if needed:
            raise ConfigError("batch sizes by bucket, or pixels=, need bucket(...) before")
        return chain, None
    while start + 1 < len(chain) and is_stage(chain[start + 1], "where"):
        chain[start], chain[start + 1] = chain[start + 1], chain[start]
        start += 1
    end = next((i for i in range(start, len(chain)) if is_stage(chain[i], "batch")), None)
    odd = next((s for s in chain[start + 1 : end] if any(is_stage(s, name) for name in _NOT_IN_GROUPS)), None)
    if odd is not None:
        raise ConfigError(f"stage {odd.label!r} cannot stand between bucket and batch: put it before bucket")
    sized = next((s for s in chain[start + 1 : end] if _has_size(s)), None)
    if sized is not None:
        raise ConfigError(
            f"stage {sized!r} has a size of its own, but behind bucket an image is brought to the size of its bucket: "
            f"leave size= out, or leave bucket out"
        )
    if end is None:
        return chain, None
    batch: Any = chain[end]
    if batch.parameters.get("drop_last"):
        raise ConfigError("behind bucket, leave out drop_last: bucket(leftover='drop') leaves out what fills no batch")
    return chain, (start, end)


def _has_size(stage: Any) -> bool:
    framing = is_stage(stage, "decode") or is_stage(stage, "fit")
    size = stage.parameters.get("size") if framing else None
    return size is not None and not isinstance(size, Mapping)  # by field: the main image may have its bucket's


def bucket_sizes(bucket: Any, chain: Sequence[Any]) -> tuple[int, ...]:
    """Samples in a batch of each bucket, by the ``batch`` in the chain; 1 where there is none."""
    batch: Any = next((stage for stage in chain if is_stage(stage, "batch")), None)
    given = {} if batch is None else batch.parameters
    return batch_sizes(bucket.parameters["buckets"], given.get("size"), given.get("pixels"))


def of_size(chain: Sequence[Any], size: int) -> list[Any]:
    """The chain with a ``batch`` of this size in place of sizes by bucket."""

    def sized(stage: Any) -> Any:
        if not is_stage(stage, "batch"):
            return stage
        others = {name: value for name, value in stage.parameters.items() if name not in ("size", "pixels")}
        return Stage(stage.define, {"size": size, **others})

    return [sized(stage) for stage in chain]
