"""Samples of a plan from shards that are only counted: read forward, because nobody knows where a sample begins.

A plan asks for the samples of a shard nearly in their order: none further apart than a shuffle's window on either side.
So a shard is read once, front to back, and what is passed on the way is held as long as it may still be wanted. Where
that guess is wrong (a lane that begins in mid-shard, a resume), the shard is begun once more: it costs time only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from streampipe.context import Sample
from streampipe.counters import counters
from streampipe.errors import IndexMismatch, ShardError, StreampipeError
from streampipe.plan.dataset import Dataset
from streampipe.plan.planned import Place
from streampipe.reading.members import samples_of
from streampipe.source import redact


class Track:
    """One way through a shard. ``position`` is the number of the sample that is read next."""

    def __init__(self, dataset: Dataset, shard: int, epoch: int, first: int) -> None:
        self._url = dataset.shards[shard]
        self._counted = int(dataset.counts[shard])
        self._samples = samples_of(dataset.finder, self._url, epoch=epoch, shard=shard, first=first)
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
        return found

    @property
    def is_done(self) -> bool:
        """Whether nothing can be wanted of it any more."""
        return self.position >= self._counted and not self.held

    def _next(self) -> Sample:
        if self._error is None:
            try:
                for sample in self._samples:
                    return sample
                self._error = self._miscounted(str(self.position))
            except ShardError as error:
                self._error = error
        found = self._error
        raise type(found)(str(found))

    def _check_end(self) -> None:
        self.position += 1  # looked at once
        try:
            if next(self._samples, None) is not None:
                raise self._miscounted(f"more than {self._counted}")
        finally:
            self._samples.close()

    def _miscounted(self, found: str) -> IndexMismatch:
        return IndexMismatch(
            f"{redact(self._url)} holds {found} samples, the file that counts them says {self._counted}: it is of "
            f"another version of the shard; write it anew, or delete it and run streampipe index"
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

    def sample(self, place: Place) -> Sample | ShardError:
        """The sample at a place, or the error that it is."""
        at = place.part, place.epoch, place.shard
        tracks = self._tracks.setdefault(at, [])
        self._tracks.move_to_end(at)
        while len(self._tracks) > self._most:
            self._tracks.popitem(last=False)
        track = next((each for each in tracks if place.number in each.held), None)
        if track is None:
            ahead = [each for each in tracks if each.position <= place.number]
            track = max(ahead, key=lambda each: each.position, default=None)
        if track is None:
            first = max(0, place.number - self._keep)
            track = Track(self._datasets[place.part], place.shard, place.epoch, first)
            tracks.append(track)
        try:
            found = track.take(place.number, self._keep)
        except ShardError as error:
            return error
        if track.is_done:
            tracks.remove(track)
        return found

    def close(self) -> None:
        """Let go what is open."""
        self._tracks.clear()
        for dataset in self._datasets:
            dataset.finder.source.close()
