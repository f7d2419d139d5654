"""Which samples go into which shard: decided from sizes alone, so a run that is repeated decides the same."""

from __future__ import annotations

from collections.abc import Sequence

from streampipe.pack.scan import Item
from streampipe.rng import derive, permutation
from streampipe.tar import END, header_bytes, padding


def split(items: Sequence[Item], max_samples: int, max_bytes: int, seed: int | None) -> list[list[Item]]:
    """The items of each shard: in the order given, or shuffled by ``seed``; at most so many samples and bytes a shard.

    A sample that is larger than ``max_bytes`` gets a shard of its own.
    """
    order = range(len(items)) if seed is None else permutation(len(items), derive(seed, "pack")).tolist()
    shards: list[list[Item]] = []
    room = 0
    for i in order:
        item = items[i]
        size = packed_size(item)
        if not shards or len(shards[-1]) >= max_samples or size > room:
            shards.append([])
            room = max_bytes - len(END) - 10240  # the end marker, and filling up the last record
        shards[-1].append(item)
        room -= size
    return shards


def packed_size(item: Item) -> int:
    """Bytes that a sample takes in a shard, headers and padding included."""
    return sum(
        len(header_bytes(f"{item.key}.{field}", file.size)) + file.size + len(padding(file.size))
        for field, file in item.files.items()
    )
