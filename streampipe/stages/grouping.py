"""``bucket`` and the ``batch`` behind it: what stands between them works on one group at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from streampipe.decoding import is_image_field
from streampipe.errors import ConfigError
from streampipe.plan.batch_sizes import batch_sizes
from streampipe.plan.compound import Compound, Signature, Signatures
from streampipe.stages.stage import pushdown_of, traits_of
from streampipe.traits import Batch, Filter, Group, Keeps, Limit, Pack


def find_groups(chain: Sequence[Any], needed: bool = False) -> tuple[Sequence[Any], tuple[int, int] | None]:
    """The chain, and where in it ``bucket`` and the ``batch`` behind it are; None where there are not both.

    A ``where`` right behind ``bucket`` comes before it in the chain that is returned: the samples are the same.

    Raises:
        ConfigError: a stage between the two would see one group at a time, and makes no sense so.
    """
    chain = list(chain)
    start = next((i for i, stage in enumerate(chain) if isinstance(pushdown_of(stage), Group)), None)
    if start is None:
        if needed:
            raise ConfigError("batch sizes by bucket, or pixels=, need bucket(...) before")
        return chain, None
    early = next(filter(_has_size, chain[:start]), None)
    if early is not None:
        raise ConfigError(
            f"bucket stands behind {early!r}, which gives all images one size: put bucket in front of it, and leave "
            f"its size= out, or leave bucket out"
        )
    while start + 1 < len(chain) and isinstance(pushdown_of(chain[start + 1]), Filter):
        chain[start], chain[start + 1] = chain[start + 1], chain[start]
        start += 1
    end = next((i for i in range(start, len(chain)) if isinstance(pushdown_of(chain[i]), Batch)), None)
    packs = [stage for stage in chain if isinstance(pushdown_of(stage), Pack)]
    again = [stage for stage in chain[start + 1 : end] if isinstance(pushdown_of(stage), Group)]
    for other in packs + again:
        raise ConfigError(f"bucket and {other.label} both decide which samples come together: leave one of them out")
    odd = next(filter(_sees_more_than_a_group, chain[start + 1 : end]), None)
    if odd is not None:
        raise ConfigError(f"stage {odd.label!r} cannot stand between bucket and batch: put it before bucket")
    sized = next(filter(_has_size, chain[start + 1 : end]), None)
    if sized is not None:
        raise ConfigError(
            f"stage {sized!r} has a size of its own, but behind bucket an image is brought to the size of its bucket: "
            f"leave size= out, or leave bucket out"
        )
    if end is None:
        return chain, None
    batch = pushdown_of(chain[end])
    if isinstance(batch, Batch) and batch.tail != "short":
        raise ConfigError("behind bucket, leave out batch(tail=): bucket(tail=) says what becomes of leftovers")
    return chain, (start, end)


def limit_of_groups(chain: Sequence[Any]) -> Any:
    """The first ``take`` or ``skip`` that counts batches of buckets; None where there is none."""
    chain, grouping = find_groups(chain)
    behind = chain[grouping[1] + 1 :] if grouping else ()
    return next((stage for stage in behind if isinstance(pushdown_of(stage), Limit)), None)


def check_decoded(chain: Sequence[Any], batch: Any) -> None:
    """Refuse a batch of images as they are stored, though they have buckets: decode was forgotten.

    Whatever else stands behind ``bucket`` may be there to decode them, or to read something else alone.

    Raises:
        ConfigError: nothing but ``batch`` does, and the batch has images.
    """
    start = next((i for i, stage in enumerate(chain) if isinstance(pushdown_of(stage), Group)), len(chain))
    if start == len(chain) or any(pushdown_of(stage) is None for stage in chain[start + 1 :]):
        return
    fields = batch.items() if isinstance(batch, dict) else ()
    first = {name: values[0] for name, values in fields if isinstance(values, list) and values}
    if any(isinstance(value, bytes) and is_image_field(name, value) for name, value in first.items()):
        raise ConfigError(
            "bucket gives each image a size, and no stage brings it there: put decode() between bucket and batch, or "
            "select(...) what is wanted besides images"
        )


def _sees_more_than_a_group(stage: Any) -> bool:
    """Whether a stage counts samples of the whole stream."""
    return traits_of(stage).state is Keeps.OFFSET or isinstance(pushdown_of(stage), Limit)


def _has_size(stage: Any) -> bool:
    own_size = traits_of(stage).own_size
    return own_size is not None and own_size(stage.options) is not None


def bucket_rule(group: Group, chain: Sequence[Any]) -> Sequence[int] | Callable[[Signature], int]:
    """The same; of compound buckets, whose signatures are not known yet, by the signature."""
    if not isinstance(group.buckets, Compound):
        return bucket_sizes(group, chain)
    batch = next((push for stage in chain if isinstance(push := pushdown_of(stage), Batch)), Batch(1, None, "short"))
    return lambda signature: signature.batch(batch.size, batch.pixels)


def bucket_sizes(group: Group, chain: Sequence[Any]) -> tuple[int, ...]:
    """Samples in a batch of each bucket, by the ``batch`` in the chain; 1 where there is none."""
    batch = next((push for stage in chain if isinstance(push := pushdown_of(stage), Batch)), None)
    if batch is not None and isinstance(group.buckets, Signatures):
        return tuple(each.batch(batch.size, batch.pixels) for each in group.buckets.signatures)
    return (
        batch_sizes(group.buckets, None, None)
        if batch is None
        else batch_sizes(group.buckets, batch.size, batch.pixels)
    )
