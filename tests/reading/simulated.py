"""A link in simulated time: how long a consumer waits for a plan's samples, on any machine, however busy it is."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np

from streampipe.plan.lanes import EpochOrder, Lanes, choose, sensible_window
from streampipe.plan.planned import Place
from streampipe.reading import pace, prefetch
from streampipe.source import Network
from streampipe.source.link import Link
from streampipe.source.ranges import Part

PIECE = 64 << 10
SHARD = 100  # samples


class Answer:
    """What ``Ranges.ask`` gives: parts that come in simulated time."""

    def __init__(self, world: World, parts: Sequence[Part]) -> None:
        self.world, self.parts = world, parts
        self.start, self.end = parts[0].start, parts[-1].end
        self.at, self.asked, self.first = self.start, 0.0, 0.0

    def ready(self, number: int) -> bool:
        self.world.run(self.world.now)
        return self.at >= self.parts[number].end

    def part(self, number: int) -> memoryview:
        while self.at < self.parts[number].end:
            self.world.step()
        return memoryview(b"")

    def drop(self, number: int) -> None:
        """Nothing is held."""


@dataclass
class World:
    """A link: ``rate`` bytes a second over all connections, each answer after ``latency``, so many at a time."""

    latency: float
    rate: float
    network: Network = field(default_factory=Network)
    now: float = 0.0
    requests: int = 0
    taken: int = 0

    def __post_init__(self) -> None:
        self.link = Link(lambda: self.now)
        for _ in self.link.heard(self._index()):
            """An index came, which is asked for before its samples are."""
        self._events: list[tuple[float, int, Answer]] = []
        self._queued: deque[Answer] = deque()
        self._active, self._free, self._turn = 0, 0.0, count()

    def _index(self) -> Iterator[bytes]:
        self.now += self.latency
        yield b"PAR1"

    def ask(self, parts: Sequence[Part]) -> Answer:
        answer = Answer(self, parts)
        self.requests += 1
        self._queued.append(answer)
        self._begin(self.now)
        return answer

    def _begin(self, now: float) -> None:
        while self._queued and self._active < self._most:
            answer = self._queued.popleft()
            self._active += 1
            answer.asked = now
            heapq.heappush(self._events, (now + self.latency, next(self._turn), answer))

    def run(self, until: float) -> None:
        """What happens up to a time."""
        while self._events and self._events[0][0] <= until:
            self._one()

    def step(self) -> None:
        """Wait for the next thing that happens."""
        self.now = max(self.now, self._one())

    def _one(self) -> float:
        """The next thing: the end of a piece, and the beginning of the next."""
        at, _, answer = heapq.heappop(self._events)
        if answer.first:
            came, answer.at = answer.at, min(answer.end, answer.at + PIECE)
            now, self.now = self.now, at
            self.link.came(answer.at - came)
            self.now = now
        else:
            answer.first = at
            self.link.answered(at - answer.asked)
        if answer.at >= answer.end:
            self._active -= 1
            self.link.done(answer.end - answer.start, at - answer.asked)
            self._begin(at)
            return at
        size = min(PIECE, answer.end - answer.at)
        self._free = max(self._free, at) + size / self.rate
        heapq.heappush(self._events, (self._free, next(self._turn), answer))
        return at

    # what of Traffic is used

    @property
    def is_full(self) -> bool:
        return len(self._queued) >= self._most

    @property
    def _most(self) -> int:
        return min(self.network.requests, max(32, self.link.parallel))

    def take(self, size: int, needed: bool = False) -> bool:
        if not needed and self.taken + size > self.network.memory:
            return False
        self.taken += size
        return True

    def give_back(self, size: int) -> None:
        self.taken -= size


class Index:
    """Of a shard of samples of one size."""

    size = 0

    def __init__(self, sample: int) -> None:
        self.sample_bytes = sample

    def row(self, number: int) -> int:
        return number

    def span(self, row: int) -> tuple[int, int]:
        return row * self.sample_bytes, (row + 1) * self.sample_bytes

    def neighbour(self, row: int, step: int, gap: int) -> int | None:
        return row + step if 0 <= row + step < SHARD else None

    def named(self, number: int, sample: Any) -> Any:
        return sample

    def sample(self, row: int, data: Any, epoch: int, views: bool = False) -> Any:
        return {"row": row}


class Shard:
    """In the place of ``RemoteShard``."""

    file = copy = None
    cached, ended, url = False, True, ""

    def __init__(self, dataset: Any, number: int, stop: Any) -> None:
        self.index, self.source, self.ranges = dataset.index, dataset.finder.source, dataset.finder.source.traffic
        self.traffic = self.source.traffic

    def looked(self) -> Any:
        return self.index

    def check_size(self) -> None:
        """They fit."""

    def finish(self) -> None:
        """Nothing is open."""


class _Named:
    def __init__(self, **names: Any) -> None:
        self.__dict__.update(names)


@dataclass
class Waits:
    """What a pass cost its consumer, in simulated seconds."""

    waits: list[float]
    taken: list[float]
    requests: int
    samples: int

    def share(self, start: float, end: float = 1e9) -> float:
        """Of the time between two moments after the first batch, the part that was waited for."""
        times = [at - self.taken[0] for at in self.taken[1:]]
        waited = sum(wait for at, wait in zip(times, self.waits[1:], strict=True) if start <= at < end)
        return waited / (min(end, times[-1]) - start)


def consume(
    monkeypatch: Any, world: World, share: float | None, samples: int = 6000, sample: int = 100_000, batch: int = 16,
    shuffle: bool = True, ahead: int = 0,
) -> Waits:  # fmt: skip
    """Read a plan as fast as a consumer takes it that needs ``share`` of the link; None: that takes all it can get.

    ``ahead``: batches that a worker has made before they are wanted.
    """
    monkeypatch.setattr(prefetch, "RemoteShard", Shard)
    monkeypatch.setattr(pace, "_now", lambda: world.now)
    places, columns = choose(batch, samples, samples // SHARD)
    window = sensible_window(places, places * columns, sample) if shuffle else 0
    order = EpochOrder(Lanes(samples, batch, places, columns, window), 0)
    of_shards = np.random.default_rng(0).permutation(samples // SHARD)

    def steps() -> Iterator[tuple[int, list[Place]]]:
        for t in range(order.lanes.batches):
            at = order.batch(t).tolist()
            yield t, [Place(int(of_shards[i // SHARD]), i % SHARD, 0) for i in at if i // SHARD < len(of_shards)]

    world.settle = lambda: None  # type: ignore[attr-defined]
    source = _Named(network=world.network, traffic=world, settle=lambda: None)
    dataset = _Named(index=Index(sample), finder=_Named(source=source))
    reader = prefetch.Prefetch([dataset], steps())  # type: ignore[list-item]
    pause = batch * sample / world.rate / share if share else 0.0
    taken: list[float] = []
    waits: list[float] = []
    given = 0
    for _, _, found in reader.read(False):
        given += len(list(found))
        wanted = taken[-1] + pause if taken else 0.0
        taken.append(max(wanted, world.now))
        waits.append(taken[-1] - wanted)
        if not ahead:
            world.now = taken[-1] + pause
        elif len(taken) >= ahead:
            world.now = max(world.now, taken[-ahead])
    return Waits(waits, taken, world.requests, given)
