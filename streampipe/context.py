"""Facts about a run, frozen: who consumes, under which seed, in which stage. Everything below is handed these."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np

from streampipe.errors import ConfigError, SampleError, StreampipeError
from streampipe.policy import ErrorPolicy
from streampipe.rng import derive, generator, uniform

T = TypeVar("T")
Sample = dict[str, Any]
"""Fields by name (bytes until decoded), and metadata whose names start with two underscores."""


class _Position(NamedTuple):
    epoch: int
    shard: int
    sample: int


class Position(_Position):
    """Where a sample stands: epoch, number of its shard in the URL list, number of the sample in the shard.

    Who walks through batches, as trainers do to move them to a device, rebuilds tuples from one iterable: it works too.

    >>> Position(0, 1, 2), Position(each + 1 for each in Position(0, 1, 2))
    (Position(epoch=0, shard=1, sample=2), Position(epoch=1, shard=2, sample=3))
    """

    __slots__ = ()

    def __new__(cls, epoch: int | Iterable[Any], shard: int | None = None, sample: int | None = None) -> Position:
        """From three numbers, or from an iterable of them."""
        if shard is None and sample is None:
            epoch, shard, sample = epoch  # type: ignore[misc]
        return tuple.__new__(cls, (epoch, shard, sample))


@dataclass(frozen=True)
class Consumer:
    """One of ``world_size * num_workers`` readers of a dataset."""

    rank: int = 0
    world_size: int = 1
    worker: int = 0
    num_workers: int = 1

    def __post_init__(self) -> None:
        if not (0 <= self.rank < self.world_size and 0 <= self.worker < self.num_workers):
            raise ConfigError(
                f"rank {self.rank} of {self.world_size} and worker {self.worker} of {self.num_workers} do not exist; "
                f"ranks and workers count from 0"
            )

    @property
    def number(self) -> int:
        """This consumer among all of them."""
        return self.worker * self.world_size + self.rank

    @property
    def total(self) -> int:
        """How many consumers there are."""
        return self.world_size * self.num_workers


Mark = Sequence[Any] | None
"""Where a stream goes on, as plain JSON: a source's numbers; around them those of each stage that counts. None: at its
beginning."""


class Trail:
    """The mark behind the item that a stream gives out at this moment.

    The source sets it with every sample. A stage that gives out what it was given, one after the other, leaves it
    alone. One that takes in more than it gave out must set it to where the stream goes on behind what it gives, as
    ``ordered`` does; if it needs numbers of its own for that, they stand before the mark, and all in ``run.at``.
    """

    __slots__ = ("mark",)

    def __init__(self, mark: Mark = None) -> None:
        self.mark = mark


class Memory:
    """What a stage keeps between the items that it yields, in front of the mark of what it was given."""

    __slots__ = ("_before", "_trail", "value")

    def __init__(self, trail: Trail, at: Mark = None) -> None:
        self._trail = trail
        self._before: Mark = at[-1] if at else None
        self.value: Any = at[0] if at else None

    def watched(self, items: Iterable[T]) -> Iterator[T]:
        """The items that the stage is given."""
        for item in items:
            self._before = self._trail.mark
            yield item

    def keep(self, value: Any) -> None:
        """The stage goes on with this value behind the item that it yields next."""
        self.value = value
        self._trail.mark = [value, self._before]

    def yielded(self) -> None:
        """The stage has yielded an item. If it said nothing, what it kept before still holds."""
        if self._trail.mark is self._before:
            self.keep(self.value)


@dataclass(frozen=True)
class Run:
    """What a stage may know about the run it is part of. A stage that asks for it has a parameter named ``run``.

    ``threads`` is the number that ``loader(threads=)`` asked for, for stages that were not given their own. ``fill`` is
    how many samples a planned batch must have: where some were skipped, others of the batch take their slots.
    ``open_shards`` is how many shards a plan's samples come from at once; 0 where that is not known.
    ``in_lane``: the stage sees one lane of several, and what it dropped there is judged with the others. ``lanes`` is
    how many of them one reader may have open, 1 where each reader has a stream of its own: they share what a process
    may hold. ``shared`` is what all lanes of a reader have together, such as open shards; it ends with the pass.
    ``resumed`` says that a pass goes on where another stopped, ``at`` is then the mark behind a stage that counts.
    """

    seed: int = 0
    stage: str = ""
    consumer: Consumer = field(default_factory=Consumer)
    policy: ErrorPolicy = field(default_factory=ErrorPolicy)
    threads: int = 0
    fill: int = 0
    open_shards: int = 0
    resumed: bool = False
    at: Mark = None
    trail: Trail = field(default_factory=Trail)
    memory: Memory | None = None
    in_lane: bool = False
    lanes: int = 1
    shared: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def in_stage(self, stage: str, at: Mark = None, memory: Memory | None = None) -> Run:
        """The same run, seen from another stage."""
        return replace(self, stage=stage, at=at, memory=memory)

    @property
    def kept(self) -> Any:
        """What a stage with ``state="offset"`` kept behind the item where the stream goes on; None at its beginning."""
        return None if self.memory is None else self.memory.value

    def keep(self, value: Any) -> None:
        """Keep a value, small plain JSON, behind the item that is yielded next: the stage's own state.

        For a stage with ``state="offset"``. When the stream goes on behind that item, the stage is started anew with
        ``run.kept``, and given what came after all that it had been given by then: nothing is replayed.
        """
        if self.memory is not None:
            self.memory.keep(value)

    def drop(self) -> None:
        """Say that a sample which was pulled is left out on purpose: of a stage with ``rows="each"``, the slot of a
        planned batch is then filled with another sample of the batch. Counting it is up to the stage.
        """
        self.policy.dropped()

    def seed_of(self, sample: Mapping[str, Any]) -> int:
        """The seed of this stage's random choices for a sample: a function of (seed, epoch, key, stage) alone.

        Raises:
            ConfigError: the sample has no key, so every sample would have the same choices.
        """
        key = sample.get("__key__")
        if key is None:
            raise ConfigError(
                f"stage {self.stage!r} makes random choices for each sample, which follow from its __key__, and this "
                f"sample has none: give it one, or put select(..., metadata=False) behind the stage"
            )
        return derive(self.seed, epoch_of(sample), str(key), self.stage)

    def rng(self, sample: Mapping[str, Any]) -> np.random.Generator:
        """A generator for this stage's random choices for a sample.

        >>> Run(seed=1).uniform({"__key__": "a"}, 2) == Run(seed=1).uniform({"__key__": "a"}, 2)
        True
        >>> Run(seed=1).rng({"__key__": "a"})
        Generator(Philox) at ...
        """
        return generator(self.seed_of(sample))

    def uniform(self, sample: Mapping[str, Any], n: int) -> list[float]:
        """``n`` numbers in [0, 1) for a sample: cheaper than a generator, and never changed by numpy's releases."""
        numbers: list[float] = uniform(self.seed_of(sample), 0, n).tolist()
        return numbers


FILLED_IN = Run()
"""The default of a stage's parameter ``run``, so that type checkers don't ask for it: the pipeline fills it in."""


def where(sample: Mapping[str, Any]) -> str:
    """The sample's place for a message: ``sample '0001' of shard.tar``."""
    key, url = sample.get("__key__"), sample.get("__url__")
    return f"sample {key!r}" + (f" of {url}" if url else "")


def key_of(sample: Any) -> Any:
    """The key of a sample, or of a batch's first; None where there is none.

    >>> key_of({"__key__": "0001"}), key_of(({"__key__": ["0001", "0002"]}, 5)), key_of(3)
    ('0001', '0001', None)
    """
    if isinstance(sample, tuple) and sample:
        sample = sample[0]
    key = sample.get("__key__") if isinstance(sample, dict) else None
    return key[0] if isinstance(key, list) and key else key


def epoch_of(sample: Any) -> int:
    """The epoch of a sample, or of a batch's first; 0 where it does not say.

    >>> epoch_of({"__position__": Position(2, 0, 7)}), epoch_of({"__position__": [Position(1, 0, 7)]}), epoch_of(3)
    (2, 1, 0)
    """
    position = sample.get("__position__") if isinstance(sample, Mapping) else None
    if isinstance(position, list):
        position = position[0] if position else None
    return int(position[0]) if position else 0


def blame(error: Exception, stage: str, sample: Mapping[str, Any] | None) -> StreampipeError:
    """An exception from a user's function or a stage as a ``StageError`` that names stage and sample.

    Errors that already say all that (a sample error, a shard error, ...) come back as they are.
    """
    from streampipe.errors import StageError

    if isinstance(error, StreampipeError):
        return error
    place = f", {where(sample)}" if sample is not None else ""
    return StageError(f"stage {stage!r}{place}: {type(error).__name__}: {error}")


__all__ = ["Consumer", "Position", "Run", "Sample", "SampleError", "blame", "epoch_of", "key_of", "where"]


class OfPass:
    """A function that counts, or knows, something of the pass that calls it."""

    def within(self, run: Run) -> Callable[..., Any]:
        """The same, called in a pass."""
        raise NotImplementedError

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As the function."""
        raise NotImplementedError


def within(function: Callable[..., Any], run: Run) -> Callable[..., Any]:
    """A function as a stage calls it in a pass: what its decorators count belongs to that."""
    return function.within(run) if isinstance(function, OfPass) else function
