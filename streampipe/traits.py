"""What a stage says of itself, so that nobody has to know it by its name.

The planner decides batches before they are read where every stage in front of ``batch`` gives one for each (``Rows``).
A stream resumes without reading again what it yielded where every stage keeps nothing (``Keeps``). Both are asked of
the traits alone: a stage of the user's that declares them is treated as the library's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any


class Rows(Enum):
    """What comes out of a stage for what goes in."""

    EACH = "each"
    """One for each, in order. One that is skipped or dropped (``Run.drop``) leaves its slot empty, to be filled."""
    FEWER = "fewer"
    """Some of what goes in, in order: a filter."""
    BATCH = "batch"
    """Several become one."""
    SPLIT = "split"
    """One becomes several."""
    ANY = "any"
    """Nobody knows: what a stage of the user's is that declares nothing."""


class Takes(Enum):
    """What a stage can be given."""

    ANY = "any"
    """Samples or batches."""
    SAMPLES = "samples"
    """Samples alone: behind ``batch`` it would do nothing, or something odd."""
    BATCHES = "batches"
    """Batches alone."""


class Keeps(Enum):
    """What a stage keeps between the items that it yields."""

    NOTHING = "nothing"
    """Behind each item it could be started anew."""
    OFFSET = "offset"
    """Numbers, which it puts in front of the mark (``Run.trail``) and is given back in ``Run.at``."""
    OPAQUE = "opaque"
    """More than that: on a resume its stream is replayed from the beginning of the epoch."""


@dataclass(frozen=True)
class Filter:
    """A condition that the index can answer."""

    condition: Any


@dataclass(frozen=True)
class Group:
    """Aspect-ratio buckets that the planner can form: batches of one group each."""

    buckets: Any
    tail: str
    same: bool | None
    max_bytes: int


@dataclass(frozen=True)
class Pack:
    """Packs to a budget that the planner can form. ``packing`` says of what (``streampipe.plan.packing``)."""

    packing: Any


@dataclass(frozen=True)
class Limit:
    """Of every epoch the samples [first, last) alone; ``last`` None: all from ``first`` on."""

    first: int
    last: int | None


@dataclass(frozen=True)
class Batch:
    """So many samples become one: a number, one for each group, or a budget of pixels."""

    size: Any
    pixels: int | None
    tail: str


@dataclass(frozen=True)
class Split:
    """Samples become several by a rule that the index can be asked; ``each`` is the stage that makes, of a sample that
    was planned so, the one of them that it was planned as.
    """

    rule: Any
    each: Any


Pushdown = Filter | Group | Limit | Batch | Pack | Split
"""What the planner may decide in integers instead of the stage."""


@dataclass(frozen=True)
class Fields:
    """Which fields of a sample a stage looks at, by name or alternatives (``"jpg;png"``). Others stay as they are, or,
    with ``only``, do not come out.
    """

    at: tuple[str, ...]
    only: bool = False


@dataclass(frozen=True)
class Traits:
    """What a stage is.

    Args:
        rows: what comes out for what goes in.
        state: what it keeps between items.
        views: it takes memoryviews of a shard where fields are bytes otherwise.
        bytes_out: it leaves no view of a shard behind: what is behind it sees bytes, or no encoded field at all.
        pushdown: from the stage's options (defaults filled in) to what the planner may decide instead, or None.
        own_size: from the stage's options to the size that it brings images to by itself, or None; behind buckets,
            which give each image its size, there must be none.
        takes: what it can be given.
        fields: from the stage's options to the fields that it looks at; None: to any. A source that can then reads no
            others.
    """

    rows: Rows = Rows.ANY
    state: Keeps = Keeps.OPAQUE
    views: bool = False
    bytes_out: bool = False
    pushdown: Callable[[Mapping[str, Any]], Pushdown | None] | None = None
    own_size: Callable[[Mapping[str, Any]], Any] | None = None
    takes: Takes = Takes.ANY
    fields: Callable[[Mapping[str, Any]], Fields | None] | None = None
