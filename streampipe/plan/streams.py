"""How many lanes there are where shards are read forward, because their samples are neither indexed nor counted."""

from __future__ import annotations

from streampipe.plan.rotation import Rotation

LEAST_LANES = 64
"""So many lanes there may be for the smallest batch."""
_COLUMNS = 4  # at least, where there are lanes enough: so many workers of a rank are used
_MOST_COLUMNS = 12
_SHARE = 16


def choose_streams(size: int, shards: int) -> Rotation:
    """The lanes of a new run: they follow from the global batch and the number of shards alone.

    Each lane has a shard open, so there are at most 64 (of batches from 96 samples on, 12 for every 16 of them), and no
    more than shards. Places divide the batch, and a quarter of the lanes at most, so that four workers have a column
    each; of those the number with the most divisors, so that they can be divided among many numbers of ranks. Columns
    are a divisor of 12.

    >>> [(r.places, r.columns) for r in (choose_streams(size, 10_000) for size in (1, 8, 16, 48, 256, 1024))]
    [(1, 12), (8, 6), (16, 4), (12, 4), (32, 6), (128, 6)]
    >>> [(r.places, r.columns) for r in (choose_streams(256, shards) for shards in (1, 3, 10, 100))]
    [(1, 1), (1, 3), (2, 4), (16, 6)]
    """
    most = max(1, min(shards, max(LEAST_LANES, _MOST_COLUMNS * max(1, size // _SHARE))))
    fitting = (a for a in range(1, max(1, most // _COLUMNS) + 1) if size % a == 0)
    places = max(fitting, key=lambda a: (_divisors(a), a))
    columns = max(t for t in range(1, _MOST_COLUMNS + 1) if _MOST_COLUMNS % t == 0 and places * t <= most)
    return Rotation(size, places, columns)


def _divisors(number: int) -> int:
    return sum(number % d == 0 for d in range(1, number + 1))
