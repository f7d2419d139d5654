"""Samples of a plan from shards that can only be read forward, because nobody knows where a sample begins.

A plan asks for the samples of a shard nearly in their order: none further apart than a shuffle's window on either side.
So a shard is read once, front to back, and what is passed on the way is held as long as it may still be wanted. Where
that guess is wrong (a lane that begins in mid-shard, a resume), the shard is begun once more: it costs time only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from streampipe.context import Sample
from streampipe.counters import counters
from streampipe.errors import IndexMismatch, ShardError, StreampipeError
from streampipe.plan.dataset import Dataset
from streampipe.plan.planned import Place
from streampipe.reading.indexed import kept_rows
from streampipe.reading.shards import walk
from streampipe.source import redact


class Track:
    """One way through a shard. ``position`` is the number, among those that are kept, of the sample that comes next.

    Args:
        rows: which of the shard's samples are kept; None: all.
    """

    def __init__(self, dataset: Dataset, shard: int, epoch: int, first: int, rows: np.ndarray | None) -> None:
        assert dataset.given is not None
        self._url = dataset.shards[shard]
        self._counted = int(dataset.counts[shard])
        self._rows = rows
        self._samples = walk(dataset.given, shard, epoch, first if rows is None else int(rows[first]))
        self._error: StreampipeError | None = None
        self.position = first
        self.held: dict[int, Sample] = {}
        counters.add("reading", "shards opened")

    def take(self, number: int, keep: int) -> Sample:
        """The sample of a number, held or still to come; of those passed on the way the last ``keep`` are held.

        Raises:
            ShardError: the shard is damaged, or holds another number of samples than was counted.
        """
        while number not in self.held:
            self.held[self.position] = self._next()
            self.position += 1
        for passed in [each for each in self.held if each < number - keep]:
            del self.held[passed]
        found = self.held.pop(number)
        if self.position == self._counted:
            self._check_end()
        counters.tally("reading").given += 1
        return found

    @property
    def is_done(self) -> bool:
        """Whether nothing can be wanted of it any more."""
        return self.position >= self._counted and not self.held

    def _next(self) -> Sample:
        if self._error is None:
            wanted = None if self._rows is None else int(self._rows[self.position])
            try:
                for sample in self._samples:
                    if wanted is None or sample["__position__"].sample == wanted:
                        return sample
                self._error = self._miscounted(str(self.position))
            except StreampipeError as error:  # whatever it is, the samples end with it
                self._error = error
        found = self._error
        raise type(found)(str(found)) from found

    def _check_end(self) -> None:
        self.position += 1  # looked at once
        try:
            if self._rows is None and next(self._samples, None) is not None:
                raise self._miscounted(f"more than {self._counted}")
        finally:
            self._samples.close()

    def _miscounted(self, found: str) -> IndexMismatch:
        return IndexMismatch(
            f"{redact(self._url)} holds {found} samples, what counts them says {self._counted}: that is of another "
            f"version of the shard; make it anew, or delete it and run streampipe index"
        )


class ForwardReader:
    """Samples by place, from shards that are read forward.

    Args:
        most: how many ways through shards stay open.
        keep: how many samples may be wanted behind the one that was asked for last.
    """

    def __init__(self, datasets: Sequence[Dataset], most: int, keep: int) -> None:
        self._datasets = datasets
        self._most = most
        self._keep = keep
        self._tracks: OrderedDict[tuple[int, int, int], list[Track]] = OrderedDict()
        self._rows: OrderedDict[tuple[int, int], tuple[np.ndarray | None, np.ndarray | None]] = OrderedDict()

    def sample(self, place: Place) -> Sample | ShardError:
        """The sample at a place, or the error that it is."""
        at = place.part, place.epoch, place.shard
        rows, order = self._rows_of(place)
        number = place.number if order is None else int(order[place.number])
        keep = self._keep if order is None else len(order)
        tracks = self._tracks.setdefault(at, [])
        self._tracks.move_to_end(at)
        while len(self._tracks) > self._most:
            self._tracks.popitem(last=False)
        track = next((each for each in tracks if number in each.held), None)
        if track is None:
            ahead = [each for each in tracks if each.position <= number]
            track = max(ahead, key=lambda each: each.position, default=None)
        if track is None:
            first = max(0, number - keep)
            track = Track(self._datasets[place.part], place.shard, place.epoch, first, rows)
            tracks.append(track)
        try:
            found = track.take(number, keep)
        except ShardError as error:
            return error
        if track.is_done:
            tracks.remove(track)
        return found

    def _rows_of(self, place: Place) -> tuple[np.ndarray | None, np.ndarray | None]:
        """The rows of a shard that are kept, ascending; and where they are counted in another order, as by bucket, the
        place of each among them. Then any may be wanted next, and all that are passed are held.
        """
        at = place.part, place.shard
        if at not in self._rows:
            rows = kept_rows(self._datasets[place.part], place.shard)
            sorts = rows is not None and bool((rows[1:] < rows[:-1]).any())
            self._rows[at] = (
                (rows, None) if rows is None or not sorts else (np.sort(rows), np.argsort(np.argsort(rows)))
            )
            while len(self._rows) > self._most:
                self._rows.popitem(last=False)
        self._rows.move_to_end(at)
        return self._rows[at]

    def close(self) -> None:
        """Let go what is open."""
        self._tracks.clear()
