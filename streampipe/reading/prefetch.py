"""Samples of remote shards, asked for ahead of need, across steps, lanes and shards.

A plan knows the future: steps are taken from it far ahead of the one that is wanted (integers only), and the indexes of
their shards are fetched as soon as a step is known. Bytes are asked for in the order of need. A request is extended, to
both sides, over neighbours in the shard that known steps want too and nobody asked for yet. So where a lane is read by
one reader, its shards come in long windows and each byte once; where few samples are wanted, exactly those come, in
parallel. What came early waits until its turn, within a budget of bytes (``Network.memory``).

Where shards are kept (``cache=``), they are copied whole in the order of need, and samples are taken from the growing
or finished copy. Until a copy has come as far as its first samples, some of those are read past it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from streampipe.context import Sample
from streampipe.counters import counters
from streampipe.errors import SampleError, ShardError, SourceUnavailable
from streampipe.plan.dataset import Dataset
from streampipe.plan.planned import Place
from streampipe.reading.pace import Pace
from streampipe.reading.remote import RemoteShard
from streampipe.reading.wanted import Wanted, WantedShard
from streampipe.source.link import Link
from streampipe.source.local import DISK
from streampipe.source.ranges import Part
from streampipe.unwanted import Stop

T = TypeVar("T")

EARLY = 0.75
"""Of the budget, for what comes with a request before its turn; the rest is for what is needed next."""
MOST_OPEN = 256
"""Shards that known steps want samples of."""
Steps = Generator[tuple[T, Sequence[Place], Iterator[Sample | ShardError | SampleError]], None, None]
"""Steps with their places and, in the places' order, their samples; an error stands where its sample would."""

_MOST_KNOWN = 1 << 15  # samples of known steps
_MOST_WITHOUT = 256  # steps
_IDLE = 64  # indexes that are kept though no known step wants them
_GUESS = 128 << 10  # bytes of a sample, before any index is known
_EACH = 1 << 10  # bytes that are held for each sample that is known: its place, and objects that lead to its bytes
_FEW = 256  # samples of known steps until the first one came
_SOME = 1024  # the same, until the first step was given out: the link does not wait for a plan
_NEAR = 16 << 20  # bytes to ask for in the order of need; more where the link needs more
_SLOW, _LONG = 10e6, 0.25  # bytes a second of a link of which nothing came yet; seconds of latency that count then
_GROWS = 2  # no more than so many times what came until now: the link is not known before
_AGAIN = 16  # of what may be asked for in the order of need, the part that must be used before more is asked for
_PAST = 0.25  # of the budget: bytes that a pass may read past the cache
_COPIES = 4  # shards that are copied at once, if none more is needed now


class Prefetch(Generic[T]):
    """The samples of steps, in order. ``close`` it, or exhaust it.

    Args:
        readers: that share ``Network.memory``.
    """

    def __init__(
        self, datasets: Sequence[Dataset], steps: Iterable[tuple[T, Sequence[Place]]], readers: int = 1
    ) -> None:
        self._datasets = datasets
        self._memory = datasets[0].finder.source.network.memory // readers
        self._future = iter(steps)
        self._steps: deque[tuple[T, Sequence[Place], list[Wanted]]] = deque()  # known, not given out
        self._current: list[Wanted] = []  # the step that is being given out
        self._unasked: deque[Wanted] = deque()  # in the order of need
        self._shards: dict[tuple[int, int], WantedShard] = {}
        self._idle: OrderedDict[tuple[int, int], WantedShard] = OrderedDict()
        self._stop = Stop()
        self._known = 0  # samples of known steps that were not given out
        self._made = 0  # steps that became known
        self._without = 0  # the last of them that want nothing, because all their samples are in other datasets
        self._given = 0  # steps that were given out
        self._pace = Pace()
        self._begun = False  # the first sample came
        self._early = 0  # bytes that were asked for before their turn
        self._near = 0  # bytes that were asked for in their turn, or whose turn came
        self._enough = self._memory  # bytes of those from which on no more is asked for
        self._past = 0  # bytes that were read past the cache
        self._sizes = (0, 0)  # samples and bytes of all that was located

    def read(self, views: bool) -> Steps[T]:
        """Each step with its places and, in their order, their samples; an error stands where its sample would.

        Raises:
            SourceError: bytes of the sample that is due could not be had.
        """
        try:
            while True:
                for wanted in self._current:
                    if not wanted.given:
                        self._done(wanted)
                self._learn()
                if not self._steps:
                    for dataset in self._datasets:
                        dataset.finder.source.settle()
                    return
                at, places, self._current = self._steps.popleft()
                self._given += 1
                self._pace.step(self._datasets[0].finder.source.traffic.link)
                self._ask()
                yield at, places, self._samples(self._current, views)
        finally:
            self.close()

    def close(self) -> None:
        """Give up what is on the way."""
        self._stop.set()
        for wanted in [*self._current, *(each for _, _, step in self._steps for each in step)]:
            self._free(wanted)
        for waiting in (self._current, self._steps, self._unasked, self._shards, self._idle):
            waiting.clear()

    def _samples(self, step: list[Wanted], views: bool) -> Iterator[Sample | ShardError]:
        tally = counters.tally("reading")
        for wanted in step:
            found: Sample | ShardError
            try:
                data = self._data(wanted)
                index = wanted.shard.remote.index
                assert index is not None
                sample = index.sample(wanted.row, data, wanted.place.epoch, views)
                found = index.named(wanted.place.number, sample)
                tally.given += 1
                del data
            except ShardError as error:
                found = error
            self._done(wanted)
            if not self._begun:
                self._begun = True
                self._learn()  # or requests would leave holes, of neighbours that are not known yet
            self._ask()
            yield found
            del found

    # What is known of the future

    def _learn(self) -> None:
        """Take steps from the plan, as many as the budget of bytes can make use of; at the start only a few."""
        while not self._steps or (
            self._known < self._horizon()
            and len(self._shards) < MOST_OPEN
            and min(self._without, len(self._steps)) < _MOST_WITHOUT
        ):
            step = next(self._future, None)
            if step is None:
                return
            at, places = step
            wanted = [self._want(place) for place in places]
            self._steps.append((at, places, wanted))
            self._unasked.extend(wanted)
            self._known += len(wanted)
            self._made += 1
            self._without = 0 if wanted else self._without + 1

    def _horizon(self) -> int:
        """How many samples to know: twice what the budget holds, because about half of a window waits at a time."""
        samples, size = self._sizes
        most = 2 * self._memory // (_EACH + (size // samples if samples else _GUESS))
        return min(most, (_MOST_KNOWN if self._given > 1 else _SOME) if self._begun else _FEW)

    def _want(self, place: Place) -> Wanted:
        at = place.part, place.shard
        shard = self._shards.get(at) or self._idle.pop(at, None)
        if shard is None:
            shard = WantedShard(at, RemoteShard(self._datasets[place.part], place.shard, self._stop))
        self._shards[at] = shard
        shard.users += 1
        wanted = Wanted(place, self._made, shard)
        if shard.remote.looked() is None:
            shard.waiting.append(wanted)
        else:
            self._locate(shard, [wanted])
        return wanted

    def _located(self, shard: WantedShard) -> bool:
        """Whether it is known where the shard's samples are."""
        if shard.remote.index is None and shard.remote.looked() is None:
            return False
        if shard.waiting:
            self._locate(shard, shard.waiting)
            shard.waiting = []
        return True

    def _locate(self, shard: WantedShard, wanted: Iterable[Wanted]) -> None:
        index = shard.remote.index
        assert index is not None
        for each in wanted:
            each.row = row = index.row(each.place.number)
            each.at = each.place.epoch, row
            each.span = span = Part(*index.span(row))
            samples, size = self._sizes
            self._sizes = samples + 1, size + span.end - span.start
            if shard.remote.file is None and not each.given:
                shard.unasked.setdefault(each.at, each)

    # Asking for bytes, in the order of need

    def _ask(self) -> None:
        """Ask for what is needed next, as much as the budget allows, a few samples at once."""
        while self._unasked:
            wanted = self._unasked[0]
            if self._near > self._enough and wanted.step >= self._given:
                return
            if not self._begun and wanted.step > 0 and self._near > _unseen(wanted.shard.remote.traffic.link):
                return  # the first steps have the link for themselves
            if wanted.answer is None and not wanted.given and not self._ask_for(wanted):
                return
            self._unasked.popleft()
            self._turn_came(wanted)
            self._pace.asked(wanted)

    def _ask_for(self, wanted: Wanted) -> bool:
        """Ask for a sample whose turn it is. Whether to go on with the next."""
        remote = wanted.shard.remote
        ended = remote.ended
        if not self._located(wanted.shard):
            return ended  # what went wrong is said when the sample is due
        if remote.file is not None:
            return True
        due = wanted.step < self._given
        if not remote.cached:
            return self._ask_range(wanted, due)
        if remote.copy is None:
            if not due and self._copies() >= _COPIES:
                return False
            remote.begin_copy()
        copy, network = remote.copy, remote.source.network
        if copy is None or copy.done or copy.written + network.window >= wanted.span.end:
            return True
        self._past += _length(wanted.span)
        return self._past > _PAST * self._memory or self._ask_range(wanted, due, alone=True)

    def _copies(self) -> int:
        return sum(1 for each in self._shards.values() if each.remote.copy is not None and not each.remote.copy.done)

    def _ask_range(self, wanted: Wanted, due: bool, alone: bool = False, now: bool = False) -> bool:
        """Ask for a sample and, unless ``alone``, its neighbours, if the budget allows; what is waited for ``now``
        always may be. All of a step are due together: they may be more than there is memory for.
        """
        remote = wanted.shard.remote
        link = remote.traffic.link
        near = max(min(_NEAR, _GROWS * link.total), _GROWS * link.needs, _unseen(link))
        near = min(int((1 - EARLY) * self._memory), near)
        self._enough = near
        if not due and (self._near + _length(wanted.span) > near or remote.traffic.is_full):
            self._enough = min(near, self._near) - near // _AGAIN
            return False
        chosen = [wanted] if alone else self._with_neighbours(wanted)
        if not remote.traffic.take(_cost(chosen)):
            chosen = [wanted]
            if not remote.traffic.take(_cost(chosen), needed=now):
                return False
        try:
            answer = remote.ranges.ask([each.span for each in chosen])
        except BaseException:
            remote.traffic.give_back(_cost(chosen))
            raise
        at = chosen[0].span.start
        for number, each in enumerate(chosen):
            each.answer, each.number = answer, number
            each.cost, at = each.span.end - at + _EACH, each.span.end  # with the gap before it
            if wanted.shard.unasked.get(each.at) is each:
                del wanted.shard.unasked[each.at]
            each.early = True
            self._early += each.cost
        self._turn_came(wanted)
        self._pace.asked_early(answer, len(chosen) - 1, _cost(chosen) - wanted.cost)
        counters.add("reading", "requests")
        counters.add("reading", "samples asked for", len(chosen))
        return True

    def _with_neighbours(self, wanted: Wanted) -> list[Wanted]:
        """A sample and the neighbours that known steps want too, soon enough, up to a gap or a window.

        Only what the plan does not keep is read over: a kept sample in between will be asked for by whoever wants it.
        """
        shard, network, index = wanted.shard, wanted.shard.remote.source.network, wanted.shard.remote.index
        assert index is not None
        least = min(wanted.shard.remote.traffic.link.window, network.window) if wanted.step else 0
        room = min(max(least, self._room(wanted)), network.window) if wanted.step else 0
        chosen, (start, end), full, late = deque([wanted]), wanted.span, False, False
        for step in (-1, 1):
            last = wanted
            while True:
                other = shard.unasked.get((wanted.place.epoch, last.row + step))
                if other is None or not 0 <= last.gap_to(other) <= network.gap:
                    row = index.neighbour(last.row, step, network.gap)
                    other = None if row is None else shard.unasked.get((wanted.place.epoch, row))
                if other is None:
                    break
                length, later = max(end, other.span.end) - min(start, other.span.start), other.step - wanted.step
                if length > network.window:
                    break
                if later and end - start >= least:
                    if later > self._pace.reach:
                        late = True
                        break
                    if length > room:
                        full = True
                        break
                start, end = min(start, other.span.start), max(end, other.span.end)
                chosen.append(other) if step > 0 else chosen.appendleft(other)
                last = other
        if wanted.step:
            self._pace.ended(full, late, len(self._steps))
        return list(chosen)

    def _room(self, wanted: Wanted) -> int:
        """Bytes to which a request may be extended over what is wanted later, within the reader's pace."""
        link, memory = wanted.shard.remote.traffic.link, int(EARLY * self._memory) - self._early
        return _length(wanted.span) + self._pace.room(link, memory, self._early)

    # Giving out

    def _data(self, wanted: Wanted) -> bytes | memoryview:
        """The bytes of a sample that is due."""
        remote = wanted.shard.remote
        if not self._located(wanted.shard):
            with self._pace.waiting():
                remote.wait()
            self._located(wanted.shard)
        if wanted.answer is None:
            self._ask()
        if wanted.answer is None:
            if remote.file is not None:
                return remote.file.watched(*wanted.span, counters.tally(DISK))
            if remote.cached:
                with self._pace.waiting():
                    data = remote.from_copy(*wanted.span)
                if data is not None:
                    return data
            self._ask_range(wanted, due=True, now=True)
        return self._came(wanted)

    def _came(self, wanted: Wanted) -> memoryview:
        """What was asked for. What failed ahead of need is asked for once more, for itself."""
        assert wanted.answer is not None
        if ahead := wanted.answer.ready(wanted.number):
            came = wanted.answer.part(wanted.number)
        else:
            with self._pace.waiting():
                came = wanted.answer.part(wanted.number)
        if ahead and isinstance(came, SourceUnavailable):
            self._free(wanted)
            self._ask_range(wanted, due=True, alone=True, now=True)
            with self._pace.waiting():
                came = wanted.answer.part(wanted.number)
        if isinstance(came, BaseException):
            raise came
        wanted.shard.remote.check_size()
        return came

    def _free(self, wanted: Wanted) -> None:
        """Its bytes are used, or not wanted any more."""
        answer, wanted.answer = wanted.answer, None
        if answer is None:
            return
        self._turn_came(wanted)
        self._near -= wanted.cost
        wanted.shard.remote.traffic.give_back(wanted.cost)
        answer.drop(wanted.number)

    def _turn_came(self, wanted: Wanted) -> None:
        if wanted.early:
            wanted.early = False
            self._early -= wanted.cost
            self._near += wanted.cost

    def _done(self, wanted: Wanted) -> None:
        """It was given out."""
        if wanted.given:
            return
        wanted.given = True
        self._pace.given(wanted)
        self._free(wanted)
        self._known -= 1
        shard = wanted.shard
        if shard.unasked.get(wanted.at) is wanted:
            del shard.unasked[wanted.at]
        shard.users -= 1
        if shard.users:
            return
        del self._shards[shard.at]
        shard.remote.finish()
        if shard.remote.file is None and not shard.remote.cached:  # who comes back has its index still
            self._idle[shard.at] = shard
            if len(self._idle) > _IDLE:
                self._idle.popitem(last=False)


def _unseen(link: Link) -> int:
    """Bytes to ask for before any came: what a slow link brings while the first of them are on their way."""
    return int(_SLOW * min(link.latency, _LONG))


def _length(span: Part) -> int:
    return span.end - span.start


def _cost(chosen: Sequence[Wanted]) -> int:
    return chosen[-1].span.end - chosen[0].span.start + _EACH * len(chosen)
