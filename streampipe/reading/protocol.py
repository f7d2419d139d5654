"""Where a pipeline's samples come from, as an engine asks it.

Shards of any kind (``shards``), an iterable (``iterable``) and a mixture of pipelines (``engine.mix``) are such. Each
says what it can do; nobody asks which one it is.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from streampipe.context import Run
from streampipe.index import ShardIndex
from streampipe.index.beside import Beside
from streampipe.index.learn import LearningFinder
from streampipe.plan.ask import Uncounted
from streampipe.plan.buckets import Buckets
from streampipe.plan.lanes import Shuffle
from streampipe.plan.packing import Packing
from streampipe.query.condition import Keep
from streampipe.urls import ShardList


class Samples(ABC):
    """Samples in the order of an epoch. What stands here is what the least of them can do: be read.

    ``parts`` are the pipelines of a mixture. ``shuffle``: how they are shuffled. ``tier`` is what was asked for, None
    if nothing was. ``open_shards``: how many a lane has open. ``window_bytes``: what a lane's window holds at most.
    ``leaves_marks``: a stream goes on behind any sample, by the mark that it left (``run.trail``). ``together``: its
    lanes follow from the data, so one reader may have all of them open. ``singly``: what it gives are never batches;
    ``batched``: they always are. ``fields_read``: the fields, where not all are.
    """

    parts: Sequence[Any] = ()
    shuffle: Shuffle = Shuffle()
    together: bool = False
    tier: str | None = None
    window_bytes: int = 0
    singly: bool = False
    batched: bool = False
    open_shards: int = 0
    leaves_marks: bool = False
    fields_read: frozenset[str] | None = None

    @abstractmethod
    def __call__(self, run: Run, epoch: int, views: bool = False, at: Sequence[Any] = ()) -> Iterator[Any]:
        """An epoch of one consumer or lane: ``run.consumer`` says which. ``at``: the mark behind which it goes on."""

    @property
    def window(self) -> int | None:
        """Of the shuffle."""
        return self.shuffle.window

    def begin(self) -> None:
        """A pass begins in this process: what was replaced while it was read is read as it is now."""
        for part in self.parts:
            part.source.begin()

    def plan_for(self, job: Any, seed: int) -> Any:
        """The plan of a job, where the source decides on batches itself (``batched``)."""
        raise NotImplementedError

    @property
    def streams(self) -> int:
        """Into how many streams an epoch can be cut, that follow from the data alone; 0: only one for each reader."""
        return 0

    def reading(self, lanes: int) -> AbstractContextManager[None]:
        """In here this process reads so many lanes at the same time."""
        return nullcontext()

    def in_lanes(self, places: int, lanes: int) -> Samples:
        """The same samples for so many lanes, of which ``places`` meet in a batch."""
        return self

    @property
    def data(self) -> str:
        """What a state of its lanes must agree with."""
        return repr(self)

    @property
    def numbers(self) -> dict[str, Any]:
        """What its lanes were made with, for a state: small JSON."""
        return {}

    def as_saved(self, places: int, columns: int, numbers: Mapping[str, Any]) -> Samples:
        """The same samples in the lanes of a state, which may be those of another batch, or of other readers."""
        return self

    @property
    def learning(self) -> tuple[LearningFinder, ShardList] | None:
        """What learns the index of its shards while they are streamed, and the shards; None: nothing does."""
        return None

    def dataset(self, keep: Keep | None = None, groups: Buckets | Packing | None = None) -> Any:
        """The samples that ``keep`` keeps, counted, by ``groups`` if they are given. It may have to look at all.

        Raises:
            Uncounted: they cannot be counted.
        """
        raise Uncounted("the samples come from an iterable")

    def counted(self) -> Any:
        """The samples as another tool counted them, where nothing more is known of them.

        Raises:
            Uncounted: nobody counted them.
        """
        raise Uncounted("nobody counted the samples")

    def only(self, fields: frozenset[str]) -> Samples:
        """The same samples, of whose fields these alone are read, where that is possible; else as they are."""
        return self

    def indexes(self) -> Iterator[ShardIndex]:
        """What is known of the samples, shard after shard, as far as it is known."""
        return iter(())

    def lift(self, counted: bool) -> str:
        """What would let more be known of samples that are only ``counted``, or not even that; empty if nothing."""
        return ""

    def beside(self) -> Beside | None:
        """Where files beside the samples are looked for; None where several datasets meet."""
        return Beside()

    @abstractmethod
    def identity(self) -> list[Any]:
        """What it is: words, and the values that tell it from another one with as many samples."""


def digest(texts: Iterable[str]) -> str:
    """Of many texts, such as the URLs of a dataset."""
    whole = hashlib.blake2b(digest_size=8)
    for text in texts:
        whole.update(text.encode("utf-8", "surrogateescape") + b"\0")
    return whole.hexdigest()
