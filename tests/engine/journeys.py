"""Jobs that stop and go on as other jobs: all ranks and workers in this process, and what was delivered on the way."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import streampipe as sp
from streampipe.context import Consumer
from streampipe.engine.compile import compile
from streampipe.engine.engine import is_nothing
from streampipe.engine.life import Life
from streampipe.spec import Job

_COMPARED = 6  # steps
Seen = tuple[int, str]
"""A sample that was delivered: the epoch, and its key."""


class Leg(NamedTuple):
    """A job for a while: so many steps, or to the end of its pass."""

    batch: int
    ranks: int = 1
    workers: int = 0
    steps: int | None = None


class Rank:
    """One rank of a job, whose workers take turns in this process as they do in a loader."""

    def __init__(self, pipe: sp.Pipeline, leg: Leg, rank: int, states: Sequence[dict[str, Any]]) -> None:
        engine = compile(pipe.spec, Job(leg.ranks, leg.workers))
        self.life = Life(engine, pipe.spec.epochs, None, rank, leg.ranks)
        if states:
            self.life.load(states)
        self.life.begin()
        self._items = self._in_turn(Consumer(rank, leg.ranks, 0, max(1, leg.workers)))
        self.over = False

    def _in_turn(self, first: Consumer) -> Iterator[tuple[Any, Any, bool]]:
        engine, at, until = self.life.engine, self.life.at, self.life.until
        used = engine.stride(first)
        consumers = [Consumer(first.rank, first.world_size, worker, used) for worker in range(used)]
        feeds = {each: iter(engine.items(at, until, each)) for each in consumers}
        can_follow = set(consumers)
        while feeds:
            for each in list(feeds):
                found = next(feeds[each], None)
                if found is None:
                    del feeds[each]
                    continue
                if not found[2]:
                    can_follow.discard(each)
                yield found[0], found[1], bool(can_follow)

    def step(self) -> list[Seen] | None:
        """The samples of the next batch; None at the end of the pass."""
        for item, moved, more in self._items if not self.over else ():
            if is_nothing(item):
                self.life.at = self.life.engine.behind(self.life.at, moved)
                self.over = not more
                if self.over:
                    break
                continue
            self.over = not self.life.received(moved, more)
            return [(each.epoch, key) for each, key in zip(item["__position__"], item["__key__"], strict=True)]
        self.over = True
        self.life.ended()
        return None

    def state(self) -> dict[str, Any]:
        """Where it stands, by way of text."""
        found: dict[str, Any] = json.loads(json.dumps(self.life.state()))
        return found


def travel(
    make: Callable[[int], sp.Pipeline], legs: Sequence[Leg], enough: Callable[[Counter[Seen]], bool]
) -> tuple[Counter[Seen], int]:
    """What was delivered over all legs, each of which goes on from the states of the one before; and how many epochs
    the passes that ended had. ``make`` takes a rank's batch. A leg without a number of steps ends with its pass, or
    when there is ``enough``. A leg of the batch and ranks of the one before begins with the batches that this one would
    have had next.
    """
    seen: Counter[Seen] = Counter()
    states: list[dict[str, Any]] = []
    ended = 0
    unbroken: list[Rank] = []
    for before, leg in zip([None, *legs], legs, strict=False):
        if before is None or before[:2] != leg[:2] or any(rank.over for rank in unbroken):
            unbroken = []
        ranks = [Rank(make(leg.batch), leg, rank, states) for rank in range(leg.ranks)]
        steps = 0
        while steps != leg.steps if leg.steps is not None else not enough(seen):
            found = [rank.step() for rank in ranks]
            assert all(each is None for each in found) or None not in found, "only some ranks have a step"
            if unbroken and steps < _COMPARED:
                assert found == [rank.step() for rank in unbroken], f"another order from step {steps} of {leg} on"
            if found[0] is None:
                break
            for each in found:
                seen.update(each or ())
            steps += 1
            assert steps < 2000, "no end in sight"
        states, unbroken = [rank.state() for rank in ranks], ranks
        ended = ranks[0].life.name if ranks[0].over and ranks[0].life.epochs else ended
    return seen, ended


def check_each_once(seen: Counter[Seen], keys: Sequence[str], epochs: int) -> None:
    """Of these epochs every sample came exactly once, of later ones none twice."""
    twice = sorted(each for each, times in seen.items() if times > 1)
    lost = sorted((epoch, key) for epoch in range(epochs) for key in keys if (epoch, key) not in seen)
    wrong = [*lost, *twice]
    assert not wrong, f"{len(lost)} lost: {lost[:4]}; {len(twice)} twice: {twice[:4]}"
