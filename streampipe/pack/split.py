"""Which samples go into which shard: decided from sizes alone, so a run that is repeated decides the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from streampipe.tar import END, RECORD


def split(sizes: Iterable[int], max_samples: int, max_bytes: int) -> Iterator[int]:
    """How many samples each shard has, in order: at most so many, and at most so many bytes.

    A sample that is larger than ``max_bytes`` gets a shard of its own.

    >>> list(split([1024, 1024, 50_000, 1024], max_samples=2, max_bytes=30_000))
    [2, 1, 1]
    """
    count, room = 0, 0
    for size in sizes:
        if count and (count >= max_samples or size > room):
            yield count
            count = 0
        if not count:
            room = max_bytes - len(END) - RECORD  # the end marker, and filling up the last record
        count += 1
        room -= size
    if count:
        yield count
