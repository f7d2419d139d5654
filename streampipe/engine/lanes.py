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

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import Any, NamedTuple, Protocol

from streampipe.context import Consumer, Mark, Run, Sample, Trail
from streampipe.counters import counters
from streampipe.engine.chain import through, unwind
from streampipe.spec import AnyStage
from streampipe.stages.grouping import find_groups
from streampipe.stages.guard import watched

_MOST_EMPTY = 64
"""Epochs without an item, one after the other, after which a lane of an endless pass is given up."""


class Stream(Protocol):
    """Where a lane's samples come from: an epoch of lane ``run.consumer.number`` of ``run.consumer.total``.

    It leaves a mark behind each sample, whose first number is the epoch, and goes on behind such a mark (``at``). Marks
    mean something only in the lanes that they were left in: ``numbers`` (small JSON) say what these were made with
    beside their shape, and ``as_saved`` makes them again, whatever the batch and the readers are now. ``data`` is what
    must be the same. ``together``: the lanes follow from the data, so that one reader may have all of them open.
    ``reading``: in it this process reads so many lanes at once.
    """

    @property
    def together(self) -> bool: ...
    @property
    def data(self) -> str: ...
    @property
    def numbers(self) -> dict[str, Any]: ...
    def as_saved(self, places: int, columns: int, numbers: Mapping[str, Any]) -> Stream: ...
    def reading(self, lanes: int) -> AbstractContextManager[None]: ...
    def __call__(self, run: Run, epoch: int, views: bool = False, at: Sequence[Any] = ()) -> Iterator[Sample]: ...


@dataclass(frozen=True)
class Head:
    """The stages of a lane, over one epoch of it."""

    chain: tuple[AnyStage, ...]
    views: int | None

    def __call__(self, samples: Any, run: Run, marks: Sequence[Mark]) -> Any:
        return through(self.chain, samples, run, self.views, marks) if self.chain else samples

    def divided(self) -> tuple[Head, Tail]:
        """The stages in front of ``bucket``, and those from there on."""
        chain, grouping = find_groups(self.chain)
        start, views = grouping[0] if grouping else 0, self.views
        before = tuple(chain[:start])
        beyond = None if views is None or views < start else views - start
        return Head(before, views), Tail(tuple(chain[start:]), beyond, before)


@dataclass(frozen=True)
class Tail:
    """The last stages of a chain, such as those over the slots of a batch. They are numbered as in the whole chain."""

    chain: tuple[AnyStage, ...]
    views: int | None
    before: tuple[AnyStage, ...]

    def __call__(self, rows: Iterable[Any], run: Run, marks: Sequence[Mark] = ()) -> Any:
        return through(self.chain, rows, run, self.views, marks, self.before) if self.chain else rows


class LaneState(NamedTuple):
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
    lanes: Mapping[int, LaneState] = {}

    def standing(self, lane: int) -> LaneState:
        """Where a lane stands."""
        return self.lanes.get(lane) or LaneState(self.epoch)


class Moved(NamedTuple):
    """What an item changes: the next turn, and where the lanes that it was made of stand."""

    turn: int
    lanes: tuple[tuple[int, LaneState], ...] = ()


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

    def __init__(self, work: Work, number: int, standing: LaneState, until: int | None, run: Run) -> None:
        self._items = work.stream_of(number, standing, until, run)
        self._next: list[tuple[Any, LaneState]] = []
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
        continuous: the head goes on over the epochs of a pass, because pools hold samples that go into the next one.
        unwind: from the mark behind the head to that of the stream, and those of the stages that count.
    """

    shape: Shape
    stream: Stream
    head: Head
    tail: Tail
    share: int
    exact: bool
    views: bool
    unwind: Callable[[Mark], tuple[Mark, Sequence[Mark]]]
    drop_short: bool = False
    fill_short: bool = False
    continuous: bool = False

    def as_saved(self, shape: Shape, numbers: Mapping[str, Any]) -> Work:
        """The same work in the lanes of a state."""
        return replace(self, shape=shape, stream=self.stream.as_saved(shape.places, shape.columns, numbers))

    def stream_of(
        self, number: int, standing: LaneState, until: int | None, run: Run
    ) -> Iterator[tuple[Any, LaneState]]:
        """A lane's items from where it stands, each with where it stands behind it."""
        me = Consumer(worker=number, num_workers=self.shape.number)
        epoch, given, mark = standing
        if self.continuous:
            yield from self._over_epochs(replace(run, consumer=me), standing, until)
            return
        empty, lanes = 0, self.shape.number if self.stream.together else 1
        while until is None or epoch < until:
            trail = Trail()
            begin, marks = self.unwind(mark)
            of_lane = replace(run, consumer=me, trail=trail, resumed=bool(given), in_lane=True, lanes=lanes)
            samples = self.stream(of_lane, epoch, self.views, begin[1:] if begin else ())
            items = self.head(watched(samples, counters.tally("reading")), of_lane, marks)
            if mark is None and given:
                counters.add("lanes", "items replayed", given)
                items = islice(items, given, None)
            before = given
            for item in items:
                given += 1
                yield item, LaneState(epoch, given, trail.mark if self.exact else None)
            empty = 0 if given > before else empty + 1
            if empty > _MOST_EMPTY and until is None:
                counters.add("lanes", f"given up after {_MOST_EMPTY} epochs without an item")
                return
            epoch, given, mark = epoch + 1, 0, None

    def _over_epochs(self, run: Run, standing: LaneState, until: int | None) -> Iterator[tuple[Any, LaneState]]:
        """The same where pools wait over the ends of epochs: the stages from ``bucket`` on have one instance for all of
        them, those in front of it one for each. The mark is behind what was yielded of all epochs.
        """
        epoch, given, mark = standing
        trail = Trail()
        front, back = self.head.divided()
        _, marks = unwind(back.chain, mark)
        run = replace(run, trail=trail, resumed=bool(given))

        def samples() -> Iterator[Any]:
            empty = 0
            for each in count(epoch) if until is None else range(epoch, until):
                empty += 1
                for sample in front(watched(self.stream(run, each, self.views), counters.tally("reading")), run, ()):
                    empty = 0
                    yield sample
                if empty > _MOST_EMPTY:
                    counters.add("lanes", f"given up after {_MOST_EMPTY} epochs without an item")
                    return

        items: Iterator[Any] = back(samples(), run, marks)
        if mark is None and given:
            counters.add("lanes", "items replayed", given)
            items = islice(items, given, None)
        for number, item in enumerate(items, given + 1):
            yield item, LaneState(epoch, number, trail.mark if self.exact else None)
