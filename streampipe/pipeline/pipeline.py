"""The pipeline: a source of samples and the stages behind it, as a torch IterableDataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from multiprocessing.context import get_spawning_popen
from typing import TYPE_CHECKING, Any, Protocol

from torch.utils.data import IterableDataset, get_worker_info

from streampipe import report, stages
from streampipe.context import Consumer, Mark, Run, Sample, Trail
from streampipe.counters import counters
from streampipe.decorators.inference import inference
from streampipe.decorators.model import is_module
from streampipe.errors import ConfigError
from streampipe.index.beside import Beside
from streampipe.pipeline.chain import AnyStage, name_of, takes_views, through, unwind
from streampipe.pipeline.epochs import EpochClock
from streampipe.pipeline.mix import MixSamples
from streampipe.pipeline.passes import Division
from streampipe.pipeline.planner import planned
from streampipe.pipeline.progress import PlannedPass, SequentialPass
from streampipe.plan.buckets import Buckets
from streampipe.plan.buckets import make as make_buckets
from streampipe.plan.groups import check_leftover
from streampipe.plan.planned import Plan
from streampipe.plan.state import checked_state
from streampipe.policy import ErrorPolicy
from streampipe.query.condition import Condition
from streampipe.reading.shards import ShardSamples
from streampipe.source import Source
from streampipe.stages.grouping import find_groups
from streampipe.stages.stage import StageDefinition
from streampipe.world import find_world

if TYPE_CHECKING:
    from streampipe.loader.loader import Loader
    from streampipe.write import Summary


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
        self._resume: dict[str, Any] | None = None
        self._pass: PlannedPass | SequentialPass | None = None
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
        """``fn`` over every sample, or over one field of it; see ``streampipe.stages.map``.

        A torch module or exported program runs as ``sp.inference`` runs it: without gradients, in eval mode.
        """
        fn = inference(fn) if is_module(fn) else fn
        return self.apply(stages.map(fn=fn, **_given(field=field, threads=threads)))

    def where(self, condition: Any, missing: str = "drop") -> Pipeline:
        """Only the samples that fulfil a condition: ``"width >= 512 and aesthetic > 5"``, or a pyarrow expression.

        Facts are ``key``, ``width`` and ``height`` of the main image as shown, the scalars of the json member
        (``json.width`` where a name is taken, ``meta.score`` inside an object), and, behind ``join``, its columns. The
        names aesthetic, watermark, nsfw, similarity, language, width, height, original_width, original_height and
        caption also stand for what the public datasets call them (``streampipe.query.aliases``). Texts stay texts:
        where a dataset has ``NSFW`` as ``"UNLIKELY"``, write ``nsfw == 'UNLIKELY'``.

        At the head of a chain over counted shards the index answers and nothing is read; else each sample's own json
        and image header do, with the same result. ``missing``: what to do where a value is not there and the condition
        is neither true nor false: ``"drop"``, ``"keep"`` or ``"error"``. ``report()`` counts what was dropped by the
        parts of the condition: in the planned tier once, when the filter is computed.
        """
        beside = None if isinstance(self.source, MixSamples) else self._beside("where")
        return self.apply(stages.where(condition=Condition(condition, missing), **_given(beside=beside)))

    def filter(self, fn: Callable[[Any], Any]) -> Pipeline:
        """Only the samples for which ``fn(sample)`` is true; see ``streampipe.stages.filter``."""
        return self.apply(stages.filter(fn=fn))

    def select(self, *fields: str) -> Pipeline:
        """Only these fields, ``"jpg;png"`` being the first that is there; see ``streampipe.stages.select``."""
        return self.apply(stages.select(fields=fields))

    def rename(self, **names: str) -> Pipeline:
        """New names for fields: ``rename(image="jpg;png", text="txt")``; see ``streampipe.stages.rename``."""
        return self.apply(stages.rename(names=names))

    def assign(self, **fields: Any) -> Pipeline:
        """The same fields for every sample: ``assign(loss_weight=1.0, dataset="reg")``; see ``stages.assign``."""
        return self.apply(stages.assign(fields=fields))

    def shuffle(self, size: int) -> Pipeline:
        """A shuffle buffer of ``size`` samples; see ``streampipe.stages.shuffle``."""
        return self.apply(stages.shuffle(size=size))

    def decode(self, size: int | tuple[int, int] | None = None, **options: Any) -> Pipeline:
        """Bytes become images, texts, numbers, arrays; see ``streampipe.stages.decode`` for the options."""
        return self.apply(stages.decode(**_given(size=size), **options))

    def caption(self, keys: str | Sequence[str] | None = None, **options: Any) -> Pipeline:
        """One text ``caption`` of every sample, from where it is; see ``streampipe.stages.caption`` for the options."""
        return self.apply(stages.caption(**_given(keys=keys), **options))

    def join(self, sidecar: Any, on: str | tuple[str, str] = "key", **options: Any) -> Pipeline:
        """More fields for every sample, from a file beside its shard; see ``streampipe.stages.join`` for options."""
        return self.apply(stages.join(sidecar=sidecar, on=on, beside=self._beside("join"), **options))

    def _beside(self, stage: str) -> Beside:
        """Where this pipeline's shards are, for a stage that reads files beside them."""
        if isinstance(self.source, MixSamples):
            raise ConfigError(
                f"{stage} stands behind mix, where shards of several datasets meet; put it into the parts"
            )
        source = self.source
        return Beside(source.shards, source.source, source.limits) if isinstance(source, ShardSamples) else Beside()

    def fit(self, size: int | tuple[int, int] | None = None, **options: Any) -> Pipeline:
        """Decoded images brought to a size, as ``decode(size)`` would; see ``streampipe.stages.fit``."""
        return self.apply(stages.fit(**_given(size=size), **options))

    def bucket(
        self,
        spec: str | Buckets | Iterable[tuple[int, int]],
        *,
        leftover: str = "carry",
        same: bool | None = None,
        max_bytes: int | None = None,
    ) -> Pipeline:
        """Aspect-ratio buckets: batches of images of one size each, the nearest to their shape, so little is cut away.

        Put it before ``decode()`` (without a size) and ``batch``. At the head of a chain over counted shards, behind
        ``where`` or ``mix`` at most, the planner does it in integers: equal steps, nothing lost, resume at any step.

        Args:
            spec: ``"sdxl"``, ``"sd15"``, ``"sdxl-published"``, ``"pixart"``, ``"photo"``, ``sp.Buckets(...)``, or a
                list of (height, width).
            leftover: what becomes of samples that fill no batch of their bucket. ``"carry"``: they come first in the
                next epoch, so nothing is lost over epochs and all batches are full. ``"merge"``: at the end of an epoch
                neighbouring buckets share batches, at the size that cuts least: every sample once an epoch, for
                validation. ``"drop"``: they are left out, and counted.
            same: True (the default where samples are counted): a step is one bucket on all ranks. False: each rank has
                a bucket of its own.
            max_bytes: where samples are not counted: what may wait for a full batch in each worker, 1 GiB if not given.

        Samples without an image of a known size are errors, or skipped under ``on_error="skip"``; those beyond
        ``max_ar`` are left out; both are counted. What drops samples (``where``, ``filter``) belongs in front of it: a
        slot that becomes empty behind it is filled with another sample of the same batch once more, and counted.
        """
        options = _given(same=same, max_bytes=max_bytes, leftover=None if leftover == "carry" else leftover)
        check_leftover(leftover)
        if max_bytes is not None and max_bytes < 1:
            raise ConfigError(f"max_bytes is what may wait for full batches, 1 or more bytes, not {max_bytes}")
        return self.apply(stages.bucket(buckets=make_buckets(spec), **options))

    def batch(
        self,
        size: int | Mapping[tuple[int, int], int] | None = None,
        *,
        pixels: int | None = None,
        collate: stages.Collate | None = None,
        drop_last: bool = False,
    ) -> Pipeline:
        """``size`` samples as one dict of stacked tensors and lists; see ``streampipe.stages.batch``.

        Behind ``bucket`` it may be a number for each (height, width), or a budget: ``batch(pixels=16 * 1024 * 1024)``.
        """
        if (size is None) == (pixels is None):
            raise ConfigError("batch takes a size, or pixels=, a budget behind bucket(...)")
        given = _given(size=size, pixels=pixels, collate=collate, drop_last=drop_last or None)
        if not isinstance(size, int):
            find_groups((*self.chain, stages.batch(**given)), needed=True)
        return self.apply(stages.batch(**given))

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
        """A DataLoader over this pipeline; see ``sp.Loader`` for the options."""
        from streampipe.loader.loader import Loader, check_options

        check_options(options)
        return Loader(self, num_workers, **options)

    def write(
        self,
        pattern: str,
        *,
        max_samples: int = 1000,
        num_workers: int = 0,
        threads: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        on_error: str | ErrorPolicy | None = None,
        version: str = "",
        quality: int = 95,
        storage_options: Mapping[str, Any] | None = None,
        multiprocessing_context: Any = None,
        progress: bool = True,
    ) -> Summary:
        """Write one pass as shards, each with its index, and a manifest: ``pipe.map(encode).write("out/{:05d}.tar")``.

        Where samples are counted, shard k is made of the pipeline's samples ``k * max_samples`` and on, through a chain
        of its own: a function of pipeline and number. A run that was killed, however and wherever, goes on when it is
        run again, with any number of workers and ranks, and the bytes are those of an unbroken run. Every shard appears
        whole. Where samples are not counted, one process writes, and goes through what is there again.

        Fields become bytes by the last part of their name (``npy``, ``safetensors``, ``json``, ``txt``, ``cls``,
        ``png``, ``jpg``, ``webp``); where it names no format, the kind of the value decides and is added to the name
        (``latent`` becomes ``latent.npy``). Bytes stay as they are.

        Args:
            pattern: names of the shards, local or fsspec.
            max_samples: samples that go into a shard; fewer come out where stages drop some.
            num_workers: processes that write; 0 for this one. A GPU is best used by one process: see ``sp.inference``.
            threads: for the stages that decode or map and were not given their own number.
            rank, world_size: as in ``loader``. Each rank writes its share; who finishes last writes the manifest.
            on_error: as in ``stream``, whose choice it replaces.
            version: change it when a function that the chain calls changes: the pipeline's names, parameters, code
                and weights are compared with those of the shards that are there, what they call is not.
            quality: of JPEGs.
            storage_options: for fsspec.
            multiprocessing_context: how workers start: ``"fork"``, ``"spawn"``, ``"forkserver"``.
            progress: show a bar.

        Raises:
            OutputBusy: the folder holds shards of another job; it names what differs.
            StageError: a field has no safe format; everything was dropped. DuplicateKey: a key twice in a shard.
            PackError: a full disk, a worker that died.
        """
        from streampipe.write import Options, write

        policy = self.policy if on_error is None else on_error
        policy = policy if isinstance(policy, ErrorPolicy) else ErrorPolicy(policy)
        options = Options(
            max_samples=max_samples,
            num_workers=num_workers,
            threads=threads,
            world=find_world(rank, world_size),
            policy=policy,
            version=version,
            quality=quality,
            source=Source(storage_options),
            context=multiprocessing_context,
            progress=progress,
        )
        return write(self, pattern, options)

    def explain(self, world_size: int = 1, num_workers: int = 0) -> str:
        """What a pass of such a job will do: tier and why, what is pushed down, guarantees, samples, steps, bytes."""
        from streampipe.pipeline.explain import explain

        return explain(self, world_size, num_workers, self.plan(world_size))

    def report(self) -> str:
        """What happened so far in this process and its loaders' workers, as a table."""
        return report.render(counters.snapshot())

    def plan(self, world_size: int = 1, tail: str | None = None) -> tuple[Plan, Division] | str:
        """The plan of a pass of ``world_size`` ranks, or the reason why there can be none (the sequential tier).

        Raises:
            ConfigError: ``stream(tier="planned")`` was asked for and cannot be.
        """
        found = planned(self, world_size, tail)
        wanted = getattr(self.source, "tier", None)
        if isinstance(found, str) and wanted == "planned":
            raise ConfigError(f"tier='planned' cannot be: {found}")
        return found

    def state_dict(self) -> dict[str, Any]:
        """Where the pass over this pipeline stands, as small plain JSON; of this process or DataLoader worker alone.

        For torchdata's ``StatefulDataLoader`` and for a DataLoader without workers. ``pipe.loader()`` has its own.
        """
        if self._resume is not None:
            return dict(self._resume)
        if self._pass is None:
            return {"streampipe": 1, "tier": "new", "epoch": self._clock.next(self.epochs or 1)}
        return self._pass.state()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The next pass continues where ``state`` was taken. Only that pass; the one after it is a new epoch."""
        self._resume = checked_state(state)

    def __iter__(self) -> Iterator[Any]:
        # Not a generator function: what is decided here is decided when the pass begins, not at its first sample.
        rank, world_size = self._world or find_world()
        info = get_worker_info()
        worker, num_workers = (info.id, info.num_workers) if info else (0, 1)
        consumer = Consumer(rank, world_size, worker, num_workers)
        state, self._resume = self._resume, None
        if state is not None and state.get("tier") == "new":
            self._clock.set(state["epoch"])
            state = None
        found = self.plan(world_size)
        if isinstance(found, str):
            self._pass = SequentialPass(self, consumer, state)
        else:
            self._pass = PlannedPass(self, *found, consumer, state)
        return iter(self._pass)

    def run(
        self,
        consumer: Consumer,
        epoch: int,
        threads: int = 0,
        endless: bool = False,
        at: Mark = None,
        trail: Trail | None = None,
    ) -> Iterator[Any]:
        """One consumer's pass in the sequential tier, from ``epoch`` on. ``threads`` for stages without a number.

        ``trail`` is told where the stream goes on behind each item, in a pipeline that can be resumed from such a mark
        (``progress.replayed``); the same pass goes on from there if it is given as ``at``.
        """
        policy, resumed = self.policy.fresh(), at is not None
        run = Run(self.seed, "", consumer, policy, threads, resumed=resumed, trail=trail or Trail())
        views = takes_views(self.chain)
        begin, marks = unwind(self.chain, at)
        items = self._samples(run, epoch, views is not None, None if endless else self.epochs, begin)
        return through(self.chain, items, run, views, marks)

    def _samples(self, run: Run, epoch: int, views: bool, epochs: int | None, begin: Mark) -> Iterator[Sample]:
        end = None if epochs is None else epoch + epochs
        if begin is not None:  # in mid-epoch: the rest of that one comes first
            assert isinstance(self.source, ShardSamples)
            yield from self.source(run, begin[0], views, begin[1:])
            epoch = begin[0] + 1
        if end is not None:
            for each in range(epoch, end):
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
        state = {**self.__dict__, "_pass": None}  # a pass is live: generators, open shards
        if get_spawning_popen() is not None and self._world is None:
            state["_world"] = find_world()  # a spawned worker knows nothing of the parent's process group
        return state

    def __repr__(self) -> str:
        return "\n  .".join([repr(self.source), *(name_of(stage, parameters=True) for stage in self.chain)])


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
