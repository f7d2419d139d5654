"""The law of lanes from outside: a job of several ranks in one process, and its global batches, slot by slot.

Slot q of a global batch goes to rank (q mod A) mod R, where the number of ranks R divides the number of places A.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import streampipe as sp
from tests.levels import Rows, rows

STEPS = 7
"""steps_per_epoch of endless jobs: odd, so that passes end anywhere in the rotation of the lanes."""


def slots(size: int, places: int, rank: int, ranks: int) -> list[int]:
    """The slots of a global batch that belong to a rank."""
    return [q for q in range(size) if (q % places if places % ranks == 0 else q) % ranks == rank]


def divisors(number: int, among: Sequence[int]) -> list[int]:
    """Those of ``among`` that divide the number."""
    return [each for each in among if number % each == 0]


def lanes_of(make: Callable[..., sp.Pipeline], size: int) -> tuple[int, int]:
    """The places A and the columns T of a job with this global batch."""
    job = Job(make, size)
    job.take(1)
    places, columns = job.states()[0]["lanes"]
    return places, columns


class Job:
    """All ranks of a job, in this process.

    Args:
        make: gives a new pipeline without its batch; takes ``epochs``.
        size: the global batch.
        steps: steps_per_epoch of an endless stream; None for passes of one epoch.
        states: what all ranks load: a list of states, or one.
    """

    def __init__(
        self,
        make: Callable[..., sp.Pipeline],
        size: int,
        ranks: int = 1,
        workers: int = 0,
        steps: int | None = STEPS,
        states: Any = None,
        **options: Any,
    ) -> None:
        self.size, self.ranks, self.steps = size, ranks, steps
        cut = {} if steps is None else {"steps_per_epoch": steps}
        self.loaders = []
        for rank in range(ranks):
            pipe = make(epochs=1 if steps is None else None).batch(size // ranks)
            loader = pipe.loader(workers, rank=rank, world_size=ranks, **cut, **options)
            if states is not None:
                loader.load_state_dict(states)
            self.loaders.append(loader)
        self.running: list[Iterator[Rows]] = []
        self.begin()

    def begin(self) -> None:
        """Start the loaders' next pass; the first one was started already. Passes of steps follow by themselves."""
        begin = _passes if self.steps else partial(map, rows)
        self.running = [begin(loader) for loader in self.loaders]

    def take(self, number: int | None = None) -> list[Rows]:
        """The next global batches; without a number those of the rest of the pass. All ranks take the same steps."""
        found = []
        while number is None or len(found) < number:
            parts = [next(each, None) for each in self.running]
            if None in parts:
                assert parts == [None] * self.ranks, f"only some ranks have a step {len(found)}: {parts}"
                break
            found.append(self._assembled(parts))
        return found

    def _assembled(self, parts: list[Rows]) -> Rows:
        if self.ranks == 1:
            return parts[0]
        places = self.loaders[0].state_dict()["lanes"][0]
        whole: dict[int, Any] = {}
        for rank, part in enumerate(parts):
            # a short last batch has its rank's first slots
            whole.update(zip(slots(self.size, places, rank, self.ranks), part, strict=False))
        return tuple(whole[q] for q in sorted(whole))

    def states(self) -> list[dict[str, Any]]:
        """Every rank's state, as it is after it was saved and read again."""
        return [json.loads(json.dumps(loader.state_dict())) for loader in self.loaders]


def _passes(loader: Any) -> Iterator[Rows]:
    while True:
        yield from map(rows, loader)


def check_none_twice(batches: Sequence[Rows]) -> Counter[tuple[int, str]]:
    """No sample came twice in one epoch; how often each came."""
    seen = Counter((epoch, key) for batch in batches for epoch, key, _ in batch)
    twice = [each for each, count in seen.items() if count > 1]
    assert not twice, f"twice in an epoch: {sorted(twice)[:5]}"
    return seen


def check_cover(batches: Sequence[Rows], keys: Sequence[str], epochs: Sequence[int]) -> None:
    """Nothing twice in any epoch, and nothing lost of these epochs."""
    seen = check_none_twice(batches)
    for epoch in epochs:
        lost = set(keys) - {key for each, key in seen if each == epoch}
        assert not lost, f"epoch {epoch} lost {len(lost)} of {len(keys)}: {sorted(lost)[:5]}"


def keys_through(make: Callable[..., sp.Pipeline]) -> list[str]:
    """The keys of an epoch behind the chain, from one plain pass."""
    return sorted(sample["__key__"] for sample in itertools.chain(make(epochs=1)))
