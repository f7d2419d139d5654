"""How many samples a batch of each bucket has: what ``batch(size, pixels=)`` says behind ``bucket``."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from streampipe.errors import ConfigError
from streampipe.plan.buckets import Buckets

_SHAPES = ("(height, width)", "(height, width, frames), or each number of frames,")


def batch_sizes(buckets: Buckets, size: int | Mapping[Any, int] | None, pixels: int | None) -> tuple[int, ...]:
    """Samples in a batch of each bucket: the same for all, by (height, width), or as many as a pixel budget allows.

    Where buckets have frames, by (height, width, frames), or by the number of frames alone; where they have several
    areas, by (height, width), or by the edge of each area.

    Raises:
        ConfigError: a bucket has no size, or it is below 1.

    >>> batch_sizes(Buckets([(1024, 512), (1024, 1024)]), None, 4 * 1024 * 1024)
    (8, 4)
    >>> batch_sizes(Buckets([(480, 832)], frames=(1, 17)), {1: 32, 17: 2}, None)
    (32, 2)
    """
    if pixels is not None:
        if pixels < 1:
            raise ConfigError(f"batch takes a budget of 1 or more pixels, not {pixels}")
        return tuple(max(1, pixels // prod(size)) for size in buckets.sizes)
    if not isinstance(size, Mapping):
        if size is not None and size < 1:
            raise ConfigError(f"batch takes a size of 1 or more samples, not {size}")
        return (size or 1,) * len(buckets)
    areas = buckets.areas
    if areas and not buckets.frames and all(isinstance(each, int) for each in size):  # by the edge of each area
        if set(size) != set(areas.values()):
            raise ConfigError(f"batch has sizes for areas {sorted(size)}; the buckets have {sorted({*areas.values()})}")
        size = {each: size[base] for each, base in areas.items()}
    if buckets.frames and all(isinstance(each, int) for each in size):  # by the number of frames alone
        if set(size) != set(buckets.frames):
            raise ConfigError(f"batch has sizes for clips of {sorted(size)} frames; the buckets have {buckets.frames}")
        size = {each: size[each[-1]] for each in buckets.sizes}
    lacking = [str(each) for each in buckets.sizes if each not in size]
    strange = [str(each) for each in size if each not in buckets.sizes]
    if lacking or strange:
        what = (
            f"no size for {', '.join(lacking)}" if lacking else f"sizes for {', '.join(strange)}, which are no bucket"
        )
        raise ConfigError(
            f"batch has {what}: give one for each {_SHAPES[bool(buckets.frames)]} of the buckets, or pixels="
        )
    if least := [str(each) for each, n in size.items() if not (isinstance(n, int) and n >= 1)]:
        raise ConfigError(f"batch takes 1 or more samples of each bucket, unlike for {', '.join(least)}")
    return tuple(size[each] for each in buckets.sizes)
