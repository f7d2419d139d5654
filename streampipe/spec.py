"""What a pipeline is, as a value: where samples come from, the stages behind, and what a pass over them is."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from streampipe.errors import ConfigError
from streampipe.policy import ErrorPolicy
from streampipe.reading.protocol import Samples
from streampipe.stages.items import behind
from streampipe.traits import Takes

AnyStage = Callable[[Iterable[Any]], Iterable[Any]]


@dataclass(frozen=True)
class Spec:
    """A source, the stages behind it, and the options of a pass. The fluent face builds it; an engine runs it.

    Args:
        source: where samples come from, see ``streampipe.reading.protocol``.
        chain: the stages, in order.
        seed: of every order and random choice.
        epochs: of a pass; None for an endless one.
        policy: what becomes of bad samples and shards.
    """

    source: Samples
    chain: tuple[AnyStage, ...] = ()
    seed: int = 0
    epochs: int | None = 1
    policy: ErrorPolicy = field(default_factory=ErrorPolicy)

    def __post_init__(self) -> None:
        epochs = self.epochs
        if epochs is not None and (not isinstance(epochs, int) or isinstance(epochs, bool) or epochs < 1):
            raise ConfigError(f"epochs is a whole number, 1 or more, or None for an endless stream, not {epochs!r}")
        try:
            seed = operator.index(self.seed)
        except TypeError:
            raise ConfigError(f"seed is a whole number, not {self.seed!r:.80}") from None
        object.__setattr__(self, "seed", seed)  # numpy's numbers too: orders are derived from Python's

    @property
    def chains(self) -> list[tuple[AnyStage, ...]]:
        """The stages behind the source; and those of its parts, where these make the batches."""
        parts = self.source.parts if self.source.batched else ()
        return [self.chain, *(part.chain for part in parts)]

    @property
    def yields(self) -> Takes:
        """Whether it yields samples or batches."""
        source = self.source
        return behind(self.chain, Takes.BATCHES if source.batched else Takes.SAMPLES if source.singly else Takes.ANY)


@dataclass(frozen=True)
class Job:
    """Who runs a pass: how many ranks, and how many processes on each read (0: the rank's own).

    ``tail``: what becomes of an epoch's last batch, where the loader was told. ``learnt``: whether an index that the
    pipeline learns is used, where a state says it; else it is as soon as it may be. ``in_steps``: passes are so many
    steps of an endless stream, whatever epochs the pipeline has.
    """

    world_size: int = 1
    num_workers: int = 0
    tail: str | None = None
    learnt: bool | None = None
    in_steps: bool = False

    @property
    def readers(self) -> int:
        """Consumers on each rank."""
        return max(1, self.num_workers)
