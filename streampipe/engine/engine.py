"""What runs a pipeline: an engine says where a pass begins, yields its items, and names every place in between.

Two engines share this face. ``IndexedEngine`` knows where each sample is, so a batch is a number. ``LaneEngine`` runs
interleaved streams. A loader, ``write`` and plain iteration only know what stands here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, ClassVar, Generic, TypeVar

from streampipe.context import Consumer
from streampipe.policy import ErrorPolicy
from streampipe.spec import AnyStage, Spec

At = TypeVar("At")
"""A place in a rank's stream: small, immutable, picklable."""


class Level(Enum):
    """What is known of the samples."""

    INDEXED = "indexed"
    """Where each one is."""
    COUNTED = "counted"
    """How many each shard has."""
    STREAMED = "streamed"
    """Nothing."""


class Engine(ABC, Generic[At]):
    """A pipeline, compiled for a job. Picklable; it holds nothing live."""

    kind: ClassVar[str]
    """Names the kind of state: ``planned`` or ``lanes``."""
    spec: Spec
    level: Level

    @property
    @abstractmethod
    def chain(self) -> Sequence[AnyStage]:
        """The stages that run as generators: those that the planner does not decide instead."""

    @property
    @abstractmethod
    def why(self) -> str:
        """Why batches are not planned ahead; empty if they are."""

    @property
    def drops(self) -> Mapping[tuple[str, str], int]:
        """What stages drop of each epoch, and why, as far as it is decided before anything is read."""
        return {}

    @abstractmethod
    def first(self, epoch: int) -> At:
        """The beginning of an epoch."""

    @abstractmethod
    def epoch_of(self, at: At) -> int:
        """The epoch that a place is in."""

    @abstractmethod
    def items(
        self,
        at: At,
        until: int | None,
        consumer: Consumer,
        threads: int = 0,
        own: bool = False,
        policy: ErrorPolicy | None = None,
    ) -> Iterator[tuple[Any, Any, bool]]:
        """A consumer's items from a rank's place on, up to the epoch ``until`` (None: without end).

        ``at`` is where the rank stands, whose consumers take turns from there on; with ``own`` it is the next turn of
        this consumer itself. Each comes with what ``behind`` takes, and whether more of this consumer can follow. An
        item that is ``NOTHING`` stands for a turn in which the consumer has none: it keeps the order of the consumers.
        """

    @abstractmethod
    def behind(self, at: At, moved: Any) -> At:
        """The place behind an item that was yielded with ``moved``."""

    @abstractmethod
    def later(self, at: At, turns: int) -> At:
        """The place so many turns later, of which other consumers have made the items."""

    @abstractmethod
    def stride(self, consumer: Consumer) -> int:
        """How many of a rank's worker processes take turns; the others stay idle."""

    @abstractmethod
    def state(self, at: At, rank: int, ranks: int) -> dict[str, Any]:
        """The place as plain JSON, with what it depends on."""

    @abstractmethod
    def load(self, states: Sequence[Mapping[str, Any]], rank: int, ranks: int) -> tuple[Engine[At], At]:
        """The place that states name, and the engine that goes on there as the saved one would have.

        Raises:
            ConfigError: the states are of another pipeline, dataset, seed, ...; it names both values.
        """

    @abstractmethod
    def length(self, epoch: int, epochs: int) -> int | None:
        """Items of a rank in so many epochs from ``epoch`` on; None where nobody can know."""

    def skip(self, at: At, items: int) -> At | None:
        """The place so many items later; None where it can only be reached by reading."""
        return None

    def check(self, finite: bool, ranks: int) -> None:
        """Refuse a pass that cannot end well, before it begins.

        Raises:
            ConfigError: it says why, and what to do.
        """

    def nothing(self, left_out: int) -> Exception | None:
        """The error of a pass that gave no item at all and left out that many samples; None: it may be."""
        return None

    def ended(self, at: At, until: int | None) -> bool:
        """Whether nothing can follow in a pass up to the epoch ``until``."""
        return until is not None and self.epoch_of(at) >= until


NOTHING = "streampipe: no item at this turn"


def is_nothing(item: Any) -> bool:
    """Whether an item stands for none."""
    return isinstance(item, str) and item == NOTHING
