"""Turns: a consumer's lanes become batches, one column after the other."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

from streampipe.context import Run
from streampipe.counters import counters
from streampipe.engine.lanes import Lane, LanePoint, Moved, Work, usable
from streampipe.errors import ConfigError, TooManyErrors
from streampipe.stages.batch import LEFT_OUT
from streampipe.threads import end_shared

log = logging.getLogger("streampipe")

_MOST_TRIED = 100
"""Batches, one after the other, of which nothing is left."""


def too_few(samples: int, share: int | None) -> ConfigError:
    """The error of a pass without a step. ``share``: of the last batch that a lane has; None: an earlier one was it."""
    size = "a batch" if share is None else f"a batch of {share}"
    return ConfigError(
        f"the pass has {samples} samples, and its lanes have fewer than {size} each: as short batches are "
        f"left out, there was no step; use a smaller batch, or tail='short'"
    )


class Turns:
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
        columns = () if self._idle else range(len(self._columns) // self._stride)
        self._mine = {
            column: [Lane(work, lane, at.standing(lane), until, run) for lane in self._columns[column]]
            for column in map(self._turn_column, columns)
        }
        self._lanes = [lane for lanes in self._mine.values() for lane in lanes]
        self._next_first = {column: self._behind(column) for column in self._mine}
        self._run = replace(run, in_lane=True)

    def _turn_column(self, k: int) -> int:
        return (self._turn + k * self._stride) % len(self._columns)

    def _behind(self, column: int) -> list[Lane]:
        """All lanes, those of the columns behind one first."""
        return [lane for c in sorted(self._mine, key=lambda c: (c <= column, c)) for lane in self._mine[c]]

    def __iter__(self) -> Iterator[tuple[Any, Moved, bool]]:
        """Items with what they move, and whether more can follow; ``None`` for a column that has ended."""
        if self._idle:
            return
        try:
            with self._work.stream.reading(len(self._lanes)):
                yield from self._turns()
        finally:
            for lanes in self._mine.values():
                for lane in lanes:
                    lane.close()
            end_shared(self._run)

    def _turns(self) -> Iterator[tuple[Any, Moved, bool]]:
        for turn in count(self._turn, self._stride):
            column = turn % len(self._columns)
            if not any(map(Lane.has_more, self._lanes)):
                self._judge()
                return
            item = self._batch(self._mine[column], turn // len(self._columns))
            moved = Moved(turn + 1, tuple((lane.number, lane.standing) for lane in self._mine[column]))
            yield item, moved, self._endless or self._has_more(column)

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
        return any(map(Lane.has_more, self._next_first[column]))

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
            if fill != self._run.fill:
                self._run = replace(self._run, fill=fill)
            items = list(work.tail(rows, self._run))
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
        if len(lanes) == 1:
            lane = lanes[0]
            while len(rows) < self._work.share and lane.has_more():
                rows.append(lane.take())
            return rows
        for slot in range(first, first + self._work.share):
            found = next((lane for lane in _from(lanes, slot % len(lanes)) if lane.has_more()), None)
            if found is None:
                break
            rows.append(found.take())
        return rows


def _from(lanes: Sequence[Lane], first: int) -> Iterator[Lane]:
    yield from lanes[first:]
    yield from lanes[:first]
