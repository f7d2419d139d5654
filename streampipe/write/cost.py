"""What fields of conditions cost: their bytes beside those that they would take exactly, and what 8 bits lost.

Read from the indexes of the shards, so a run that goes on where another was killed tells of all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from streampipe.index import ShardIndex

_OWN = ("bytes", "exact", "error", "cosine")


@dataclass(frozen=True)
class Cost:
    """Of a field, in all samples.

    Args:
        samples: that have it.
        bytes: that it takes.
        exact: bytes of what was given to ``write``, untrimmed and in its own dtype.
        error: how far the furthest value is from what it was.
        cosine: the least of a row (a token's vector, a channel) with what it was.
    """

    samples: int = 0
    bytes: int = 0
    exact: int = 0
    error: float = 0.0
    cosine: float = 1.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.samples + other.samples,
            self.bytes + other.bytes,
            self.exact + other.exact,
            max(self.error, other.error),
            min(self.cosine, other.cosine),
        )

    def __str__(self) -> str:
        share = f"{self.bytes / 1e6:.1f} MB in place of {self.exact / 1e6:.1f} ({self.bytes / max(1, self.exact):.1%})"
        lost = f"largest error {self.error:.3g}, cosine {self.cosine:.5f} or more" if self.cosine < 1 else "exact"
        return f"{share}, {lost}"


def costs_in(index: ShardIndex) -> dict[str, Cost]:
    """The costs of the fields of conditions of a shard, by the first part of their names."""
    stems = [name.removesuffix(".exact") for name in index.names if name.endswith(".exact")]
    found = {}
    for stem in stems:
        columns = index.columns(f"{stem}.{each}" for each in _OWN)
        whole = [columns.get(f"{stem}.{each}") for each in _OWN]
        if whole[0] is None or any(isinstance(each, list) for each in whole):  # a json's, that has the same names
            continue
        size, exact, error, cosine = (np.zeros(0) if x is None else x.drop_null().to_numpy() for x in whole)
        found[stem] = Cost(len(size), int(size.sum()), int(exact.sum()), error.max(initial=0), cosine.min(initial=1))
    return found


def total(costs: Iterable[dict[str, Cost]]) -> dict[str, Cost]:
    """The costs of several shards together."""
    found: dict[str, Cost] = {}
    for each in costs:
        for name, cost in each.items():
            found[name] = found.get(name, Cost()) + cost
    return found
