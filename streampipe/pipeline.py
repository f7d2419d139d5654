"""The pipeline: a source of samples and the stages behind it, as a torch IterableDataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count
from multiprocessing.context import get_spawning_popen
from typing import TYPE_CHECKING, Any, Protocol

from torch.utils.data import IterableDataset, get_worker_info

from streampipe import report, stages
from streampipe.context import Consumer, Run, Sample, blame
from streampipe.counters import counters
from streampipe.epochs import EpochClock
from streampipe.errors import ConfigError, StreampipeError
from streampipe.policy import ErrorPolicy
from streampipe.shards import to_bytes
from streampipe.stages.fuse import fuse
from streampipe.stages.stage import Stage, StageDefinition
from streampipe.world import find_world

if TYPE_CHECKING:
    from streampipe.loader import Loader

AnyStage = Callable[[Iterable[Any]], Iterable[Any]]


class SampleSource(Protocol):
    """What a pipeline starts from: one consumer's samples of one epoch. It must be picklable and hold nothing live."""

    def __call__(self, run: Run, epoch: int, views: bool = False) -> Iterator[Any]: ...


class Pipeline(IterableDataset[Any]):
    """A chain of stages behind a source. Every method gives a new pipeline; none changes the one it is called on.

    Iterating it gives samples as dicts (``__key__``, ``__url__``, ``__position__``, fields as bytes until decoded), or
    whatever the last stage makes of them. Each pass is a new epoch. It works in a plain
    ``DataLoader(pipe, batch_size=None, num_workers=n)``; ``pipe.loader(...)`` does the same and accounts for it.
    """

    def __init__(
        self,
        source: SampleSource,
        chain: tuple[AnyStage, ...] = (),
        *,
        seed: int = 0,
        epochs: int | None = 1,
        policy: ErrorPolicy | None = None,
    ) -> None:
        if epochs is not None and epochs < 1:
            raise ConfigError(f"epochs is 1 or more, or None for an endless stream, not {epochs}")
        self.source = source
        self.chain = chain
        self.seed = seed
        self.epochs = epochs
        self.policy = policy or ErrorPolicy()
        self._clock = EpochClock()
        self._world: tuple[int, int] | None = None  # captured where the parent hands the pipeline to a spawned worker

    def apply(self, stage: AnyStage | StageDefinition) -> Pipeline:
        """Add a stage: what ``@sp.stage`` makes, or any function from an iterable to an iterable.

        >>> import streampipe as sp
        >>> list(sp.from_iterable([1, 2, 3]).apply(reversed))
        Traceback (most recent call last):
            ...
        streampipe.errors.StageError: stage 'reversed': TypeError: ... object is not reversible
        """
        if isinstance(stage, StageDefinition):
            stage = stage()
        if not callable(stage):
            raise ConfigError(f"apply takes a stage: a function from samples to samples, not {type(stage).__name__}")
        return Pipeline(self.source, (*self.chain, stage), seed=self.seed, epochs=self.epochs, policy=self.policy)

    def map(self, fn: Callable[..., Any], field: str | None = None, *, threads: int | None = None) -> Pipeline:
        """``fn`` over every sample, or over one field of it; see ``streampipe.stages.map``."""
        return self.apply(stages.map(fn=fn, **_given(field=field, threads=threads)))

    def filter(self, fn: Callable[[Any], Any]) -> Pipeline:
        """Only the samples for which ``fn(sample)`` is true; see ``streampipe.stages.filter``."""
        return self.apply(stages.filter(fn=fn))

    def select(self, *fields: str) -> Pipeline:
        """Only these fields, ``"jpg;png"`` being the first that is there; see ``streampipe.stages.select``."""
        return self.apply(stages.select(fields=fields))

    def rename(self, **names: str) -> Pipeline:
        """New names for fields: ``rename(image="jpg;png", text="txt")``; see ``streampipe.stages.rename``."""
        return self.apply(stages.rename(names=names))

    def shuffle(self, size: int) -> Pipeline:
        """A shuffle buffer of ``size`` samples; see ``streampipe.stages.shuffle``."""
        return self.apply(stages.shuffle(size=size))

    def decode(self, size: int | tuple[int, int] | None = None, **options: Any) -> Pipeline:
        """Bytes become images, texts, numbers, arrays; see ``streampipe.stages.decode`` for the options."""
        return self.apply(stages.decode(**_given(size=size), **options))

    def batch(self, size: int, *, collate: stages.Collate | None = None, drop_last: bool = False) -> Pipeline:
        """``size`` samples as one dict of stacked tensors and lists; see ``streampipe.stages.batch``."""
        return self.apply(
            stages.batch(size=size, **_given(collate=collate), **({"drop_last": True} if drop_last else {}))
        )

    def unbatch(self) -> Pipeline:
        """Batches become samples again; see ``streampipe.stages.unbatch``."""
        return self.apply(stages.unbatch())

    def take(self, n: int) -> Pipeline:
        """The first ``n`` samples of a pass, over all workers and ranks together; see ``streampipe.stages.take``."""
        return self.apply(stages.take(n=n))

    def set_epoch(self, epoch: int) -> None:
        """The next pass is epoch ``epoch``, in persistent workers too."""
        self._clock.set(epoch)

    def loader(self, num_workers: int = 0, **options: Any) -> Loader:
        """A DataLoader over this pipeline; see ``streampipe.loader.Loader`` for the options."""
        from streampipe.loader import Loader

        return Loader(self, num_workers, **options)

    def report(self) -> str:
        """What happened so far in this process and its loaders' workers, as a table."""
        return report.render(counters.snapshot())

    def __iter__(self) -> Iterator[Any]:
        # Not a generator function: what is decided here is decided when the pass begins, not at its first sample.
        rank, world_size = self._world or find_world()
        info = get_worker_info()
        worker, num_workers = (info.id, info.num_workers) if info else (0, 1)
        consumer = Consumer(rank, world_size, worker, num_workers)
        return self.run(consumer, self._clock.begin(self.epochs or 1))

    def run(self, consumer: Consumer, epoch: int, threads: int = 0) -> Iterator[Any]:
        """One consumer's pass, from ``epoch`` on. ``threads`` for the stages that were not given a number."""
        run = Run(seed=self.seed, consumer=consumer, policy=self.policy.fresh(), threads=threads)
        views = _takes_views(self.chain)
        items = self._samples(run, epoch, views is not None)
        seen: dict[str, int] = {}
        for i, stage in enumerate(fuse(self.chain)):
            if i == views:
                items = map(to_bytes, items)
            name = name_of(stage)
            number = seen[name] = seen.get(name, 0) + 1
            items = _guarded(stage, items, run.in_stage(name if number == 1 else f"{name}#{number}"))
        return items

    def _samples(self, run: Run, epoch: int, views: bool) -> Iterator[Sample]:
        if self.epochs is not None:
            for each in range(epoch, epoch + self.epochs):
                yield from self.source(run, each, views)
            return
        for each in count(epoch):
            delivered = False
            for sample in self.source(run, each, views):
                delivered = True
                yield sample
            if not delivered:
                return  # an endless stream of nothing would only look like a hang

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if get_spawning_popen() is not None and self._world is None:
            state["_world"] = find_world()  # a spawned worker knows nothing of the parent's process group
        return state

    def __repr__(self) -> str:
        return "\n  .".join([repr(self.source), *(name_of(stage, parameters=True) for stage in self.chain)])


def name_of(stage: AnyStage, parameters: bool = False) -> str:
    """A stage's name for messages: ``map(augment)``; with ``parameters`` as it would be written."""
    if not isinstance(stage, Stage):
        return getattr(stage, "__name__", None) or type(stage).__name__
    return repr(stage) if parameters else stage.label


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _takes_views(chain: tuple[AnyStage, ...]) -> int | None:
    """Where fields must have become bytes: the number of the first stage that cannot use memoryviews of a shard.

    None if that is the first stage, or if nothing in front of it would gain from views.
    """
    for i, stage in enumerate(chain):
        if isinstance(stage, Stage) and stage.name == "decode":
            return len(chain)  # decode leaves no view behind
        if not (isinstance(stage, Stage) and stage.define.views):
            return i or None
    return None


def _guarded(stage: AnyStage, items: Iterable[Any], run: Run) -> Iterator[Any]:
    """The stage over the items. What it raises names the stage and the last sample that it was given."""
    last = _Last(items) if not isinstance(stage, Stage) or stage.name not in stages.__all__ else None
    try:
        source = items if last is None else last
        yield from stage(source, run) if isinstance(stage, Stage) else stage(source)
    except StreampipeError:
        raise
    except Exception as error:
        sample = last.item if last is not None and isinstance(last.item, Mapping) else None
        raise blame(error, run.stage, sample) from error


class _Last:
    """An iterator that remembers what it gave out last."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = iter(items)
        self.item: Any = None

    def __iter__(self) -> _Last:
        return self

    def __next__(self) -> Any:
        self.item = next(self._items)
        return self.item
