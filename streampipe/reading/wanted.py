"""What known steps want: samples, and the shards that they are in."""

from __future__ import annotations

from streampipe.plan.planned import Place
from streampipe.reading.remote import RemoteShard
from streampipe.source.ranges import Answer, Part


class Wanted:
    """A sample that a known step wants."""

    __slots__ = ("answer", "at", "cost", "early", "given", "number", "place", "ready", "row", "shard", "span", "step")

    def __init__(self, place: Place, step: int, shard: WantedShard) -> None:
        self.place = place
        self.step = step
        self.shard = shard
        self.row = -1  # of the index, once that is there
        self.at = (place.epoch, -1)  # which sample of the shard it is then, in which epoch
        self.span = Part(0, 0)
        self.answer: Answer | None = None  # once it was asked for
        self.number = 0  # in the answer
        self.cost = 0  # bytes taken of the budget
        self.early = False  # it was asked for with another, and its turn has not come
        self.ready = False  # it came, and so did all that is needed before it
        self.given = False

    def gap_to(self, other: Wanted) -> int:
        """Bytes between it and another one; below 0 where they overlap."""
        return max(other.span.start - self.span.end, self.span.start - other.span.end)


class WantedShard:
    """A shard, and the known samples of it."""

    def __init__(self, at: tuple[int, int], remote: RemoteShard) -> None:
        self.at = at
        self.remote = remote
        self.users = 0  # known samples that were not given out yet
        self.waiting: list[Wanted] = []  # for the index
        self.unasked: dict[tuple[int, int], Wanted] = {}  # by epoch and row
