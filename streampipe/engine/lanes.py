"""Interleaved lanes: how a pass runs where batches cannot be decided before they are read.

An epoch is cut into V = places * columns lanes. A lane is a stream of its own: its samples, their shuffle, and every
stage that may yield more or fewer than it is given, one instance for each lane and epoch (``head``). What follows, one
for one, works on batches (``tail``). Batch t takes its slots from the lanes of column t mod T in turn. Which samples
are in a lane does not depend on who runs it, so neither do the batches; and where every lane stands is all the state
there is.

A lane belongs to one consumer. Rank r of R has the lanes whose place is r mod R; worker w of W the columns that are w
mod W. Numbers that do not divide them are served too: workers that would have no column stay idle, and ranks are
assigned whole lanes one after the other, which is another order, but still each sample once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import Any, NamedTuple, Protocol

from streampipe.context import Consumer, Mark, Run, Sample, Trail
from streampipe.counters import counters
from streampipe.errors import ConfigError, TooManyErrors

log = logging.getLogger("streampipe")

_MOST_EMPTY = 64
"""Epochs without an item, one after the other, after which a lane of an endless pass is given up."""
_MOST_TRIED = 100
"""Batches, one after the other, of which nothing is left."""


class Stream(Protocol):
    """Where a lane's samples come from: an epoch of lane ``run.consumer.number`` of ``run.consumer.total``.

    It leaves a mark behind each sample, whose first number is the epoch, and goes on behind such a mark (``at``).
    """

    def __call__(self, run: Run, epoch: int, views: bool = False, at: Sequence[Any] = ()) -> Iterator[Sample]: ...


class Head(Protocol):
    """The stages of a lane, over one epoch of it."""

    def __call__(self, samples: Iterator[Sample], run: Run, marks: Sequence[Mark]) -> Iterator[Any]: ...


class Standing(NamedTuple):
    """Where a lane stands: in which epoch, how many items of it were yielded, and the mark behind the last one.

    Without a mark the lane is replayed from the beginning of the epoch, up to that item.
    """

    epoch: int
    given: int = 0
    mark: Mark = None


class LanePoint(NamedTuple):
    """Where a rank's stream stands: its next turn, and its lanes but for those at the beginning of ``epoch``."""

    epoch: int
    turn: int = 0
    lanes: Mapping[int, Standing] = {}

    def standing(self, lane: int) -> Standing:
        """Where a lane stands."""
        return self.lanes.get(lane) or Standing(self.epoch)


class Moved(NamedTuple):
    """What an item changes: the next turn, and where the lanes that it was made of stand."""

    turn: int
    lanes: tuple[tuple[int, Standing], ...] = ()


@dataclass(frozen=True)
class Shape:
    """Numbers of lanes: ``places`` meet in a batch, ``columns`` sets of them take turns."""

    places: int
    columns: int

    @property
    def number(self) -> int:
        """How many lanes there are."""
        return self.places * self.columns

    def fits(self, ranks: int) -> bool:
        """Whether each lane can belong to one rank so that global batches stay the same."""
        return self.places % ranks == 0

    def columns_of(self, rank: int, ranks: int) -> list[list[int]]:
        """The lanes of a rank, by column. Lane (place, column) has the number ``place * columns + column``.

        >>> Shape(2, 2).columns_of(1, 2), Shape(3, 1).columns_of(0, 2)
        ([[2], [3]], [[0], [2]])
        """
        if self.fits(ranks):
            return [[a * self.columns + c for a in range(rank, self.places, ranks)] for c in range(self.columns)]
        return [[lane] for lane in range(rank, self.number, ranks)]


def usable(workers: int, columns: int) -> int:
    """How many of so many workers can have whole columns each: the most that divide their number.

    >>> usable(8, 12), usable(5, 3), usable(0, 3)
    (6, 3, 1)
    """
    return max(w for w in range(1, max(1, min(workers, columns)) + 1) if columns % w == 0)


class Lane:
    """One lane's items, opened when the first is wanted. What it raises is raised when the item is asked for."""

    def __init__(self, work: Work, number: int, standing: Standing, until: int | None, run: Run) -> None:
        self._items = work.stream_of(number, standing, until, run)
        self._next: list[tuple[Any, Standing]] = []
        self._error: BaseException | None = None
        self.number = number
        self.standing = standing
        self.over = False

    def has_more(self) -> bool:
        """Whether an item follows. It may have to be made for that."""
        if self._next or self._error is not None:
            return True
        if self.over:
            return False
        try:
            for found in self._items:
                self._next.append(found)
                return True
        except Exception as error:  # of the next item: it must not take this one with it
            self._error = error
            return True
        self.over = True
        return False

    def take(self) -> Any:
        """The next item; ``has_more`` was true."""
        if self._error is not None:
            raise self._error
        item, self.standing = self._next.pop()
        return item

    def close(self) -> None:
        """Let go what it holds open."""
        close = getattr(self._items, "close", None)
        if close is not None:
            close()


@dataclass(frozen=True)
class Work:
    """What the lanes of a pass run.

    Args:
        stream: a lane's samples.
        head: the stages of a lane.
        tail: the stages over the slots of a batch.
        share: slots of a rank in a batch; 1 where lanes yield what a rank is given.
        exact: whether every stage of the head leaves marks; else a lane is replayed.
        views: whether the head is given memoryviews.
        drop_short, fill_short: what becomes of a last batch with fewer slots.
        continuous: the head goes on over the epochs of a pass, because it holds samples that go into the next one.
        unwind: from the mark behind the head to that of the stream, and those of the stages that count.
    """

    shape: Shape
    stream: Stream
    head: Any
    tail: Any
    share: int
    exact: bool
    views: bool
    unwind: Any
    drop_short: bool = False
    fill_short: bool = False
    continuous: bool = False

    def stream_of(self, number: int, standing: Standing, until: int | None, run: Run) -> Iterator[tuple[Any, Standing]]:
        """A lane's items from where it stands, each with where it stands behind it."""
        me = Consumer(worker=number, num_workers=self.shape.number)
        epoch, given, mark = standing
        if self.continuous:
            yield from self._over_epochs(replace(run, consumer=me), standing, until)
            return
        empty = 0
        while until is None or epoch < until:
            trail = Trail()
            begin, marks = self.unwind(mark)
            of_lane = replace(run, consumer=me, trail=trail, resumed=bool(given), in_lane=True)
            items = self.head(self.stream(of_lane, epoch, self.views, begin[1:] if begin else ()), of_lane, marks)
            if mark is None and given:
                counters.add("lanes", "items replayed", given)
                items = islice(items, given, None)
            before = given
            for item in items:
                given += 1
                yield item, Standing(epoch, given, trail.mark if self.exact else None)
            empty = 0 if given > before else empty + 1
            if empty > _MOST_EMPTY and until is None:
                counters.add("lanes", f"given up after {_MOST_EMPTY} epochs without an item")
                return
            epoch, given, mark = epoch + 1, 0, None

    def _over_epochs(self, run: Run, standing: Standing, until: int | None) -> Iterator[tuple[Any, Standing]]:
        """The same with one instance of the head for all epochs. Its mark is behind what it yielded of all of them."""
        epoch, given, mark = standing
        trail = Trail()
        _, marks = self.unwind(mark)
        run = replace(run, trail=trail, resumed=bool(given))

        def samples() -> Iterator[Any]:
            empty = 0
            for each in count(epoch) if until is None else range(epoch, until):
                empty += 1
                for sample in self.stream(run, each, self.views):
                    empty = 0
                    yield sample
                if empty > _MOST_EMPTY:
                    return

        items: Iterator[Any] = self.head(samples(), run, marks)
        if mark is None and given:
            counters.add("lanes", "items replayed", given)
            items = islice(items, given, None)
        for number, item in enumerate(items, given + 1):
            yield item, Standing(epoch, number, trail.mark if self.exact else None)


LEFT_OUT = "left out at an epoch's end"  # of what is counted of a batch: its samples


def too_few(samples: int, share: int) -> ConfigError:
    """The error of a pass without a step."""
    return ConfigError(
        f"the pass has {samples} samples, and its lanes have fewer than a batch of {share} each: as short batches are "
        f"left out, there was no step; use a smaller batch, or tail='short'"
    )


class Rotation:
    """A consumer's turns: batches of its columns, one after the other."""

    def __init__(self, work: Work, at: LanePoint, until: int | None, run: Run) -> None:
        consumer = run.consumer
        self._work = work
        self._columns = work.shape.columns_of(consumer.rank, consumer.world_size)
        self._stride = usable(consumer.num_workers, len(self._columns))
        self._turn = at.turn + consumer.worker
        self._idle = consumer.worker >= self._stride
        self._run = run
        self._endless = until is None
        self._left_out: int | None = 0  # samples of short batches, as long as there was no other batch
        self._whole = not at.lanes and not at.turn  # a rest of a pass may be without any
        self._mine = (
            {}
            if self._idle
            else {
                self._turn_column(k): [
                    Lane(work, lane, at.standing(lane), until, run) for lane in self._columns[self._turn_column(k)]
                ]
                for k in range(len(self._columns) // self._stride)
            }
        )

    def _turn_column(self, k: int) -> int:
        return (self._turn + k * self._stride) % len(self._columns)

    def __iter__(self) -> Iterator[tuple[Any, Moved, bool]]:
        """Items with what they move, and whether more can follow; ``None`` for a column that has ended."""
        if self._idle:
            return
        try:
            for turn in count(self._turn, self._stride):
                column = turn % len(self._columns)
                if not any(lane.has_more() for lanes in self._mine.values() for lane in lanes):
                    self._judge()
                    return
                item = self._batch(self._mine[column], turn // len(self._columns))
                moved = Moved(turn + 1, tuple((lane.number, lane.standing) for lane in self._mine[column]))
                yield item, moved, self._endless or self._has_more(column)
        finally:
            for lanes in self._mine.values():
                for lane in lanes:
                    lane.close()

    def _judge(self) -> None:
        """At the end: a stage that kept nothing of all the samples there are is an error, of a share of them only told.

        Raises:
            StageError: it names the stage, and says why.
            ConfigError: there were too few samples for a batch, and short ones are left out.
        """
        error, consumer = self._run.policy.judge(), self._run.consumer
        if error is None and self._left_out:
            error = too_few(self._left_out, self._work.share)
        if error is not None and self._whole:
            if consumer.total == 1:
                raise error
            log.warning(
                "of the share of worker %d of rank %d nothing is left: %s", consumer.worker, consumer.rank, error
            )

    def _has_more(self, column: int) -> bool:
        """Whether any lane has an item; those of the next column are asked first, which needs them next."""
        order = sorted(self._mine, key=lambda c: (c <= column, c))
        return any(lane.has_more() for c in order for lane in self._mine[c])

    def _batch(self, lanes: Sequence[Lane], round: int) -> list[Any]:
        """The next item of a column, in a list; an empty one where its lanes have ended.

        What the tail drops altogether is made of the next samples: every turn has an item as long as there are any.
        """
        work = self._work
        for _ in range(_MOST_TRIED):
            rows = self._rows(lanes, round)
            if not rows or (len(rows) < work.share and work.drop_short):
                if rows:
                    counters.add("batch", LEFT_OUT, len(rows))
                    self._left_out = None if self._left_out is None else self._left_out + len(rows)
                return []
            self._left_out = None
            fill = work.share if work.fill_short else len(rows)
            items = list(work.tail(rows, replace(self._run, fill=fill, in_lane=True)))
            if items:
                return items
        raise self._run.policy.judge() or TooManyErrors(
            f"all samples of {_MOST_TRIED} batches, one after the other, were skipped or dropped by stages; report() "
            f"says why; check the data and the stages' limits, or use on_error='raise' to see the first error"
        )

    def _rows(self, lanes: Sequence[Lane], round: int) -> list[Any]:
        """The samples of a batch: slot by slot from the lanes in turn; one that has ended is passed over."""
        rows: list[Any] = []
        first = round * self._work.share
        for slot in range(first, first + self._work.share):
            found = next((lane for lane in _from(lanes, slot % len(lanes)) if lane.has_more()), None)
            if found is None:
                break
            rows.append(found.take())
        return rows


def _from(lanes: Sequence[Lane], first: int) -> Iterator[Lane]:
    yield from lanes[first:]
    yield from lanes[:first]
