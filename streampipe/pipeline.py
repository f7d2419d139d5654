"""The pipeline: a source of samples and the stages behind it, as a torch IterableDataset."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from multiprocessing.context import get_spawning_popen
from typing import Any, NoReturn

from torch.utils.data import IterableDataset, get_worker_info

from streampipe import report, stages
from streampipe.context import Consumer
from streampipe.counters import counters
from streampipe.decorators.inference import inference
from streampipe.decorators.model import is_module
from streampipe.engine.chain import describe
from streampipe.engine.clock import Clock, set_token, token_of_workers
from streampipe.engine.compile import compile
from streampipe.engine.explain import explain
from streampipe.engine.mix import MixSamples
from streampipe.engine.plain import PlainPass, refuse_splitters
from streampipe.engine.state import VERSION, checked_state
from streampipe.errors import ConfigError
from streampipe.index.beside import Beside
from streampipe.loader.loader import Loader
from streampipe.plan.buckets import Buckets
from streampipe.plan.buckets import make as make_buckets
from streampipe.plan.groups import check_leftover
from streampipe.policy import ErrorPolicy
from streampipe.query.condition import Condition
from streampipe.reading.shards import ShardSamples
from streampipe.source import Source
from streampipe.spec import AnyStage, Job, Spec
from streampipe.stages.grouping import find_groups
from streampipe.stages.stage import StageDefinition
from streampipe.world import find_world
from streampipe.write import Options, Summary
from streampipe.write import write as write_shards


class Pipeline(IterableDataset[Any]):
    """A chain of stages behind a source. Every method gives a new pipeline; none changes the one it is called on.

    Iterating it gives samples as dicts (``__key__``, ``__url__``, ``__position__``, fields as bytes until decoded), or
    whatever the last stage makes of them. Each pass is a new epoch. It works in a plain
    ``DataLoader(pipe, batch_size=None, num_workers=n)``; ``pipe.loader(...)`` does the same and accounts for it.
    """

    def __init__(
        self,
        source: Any,
        chain: tuple[AnyStage, ...] = (),
        *,
        seed: int = 0,
        epochs: int | None = 1,
        policy: ErrorPolicy | None = None,
    ) -> None:
        self.spec = Spec(source, chain, seed, epochs, policy or ErrorPolicy())
        self._clock = Clock()
        self._resume: dict[str, Any] | None = None
        self._pass: PlainPass | None = None
        self._world: tuple[int, int] | None = (
            None  # as given, or captured where a spawned worker is handed the pipeline
        )
        self._token = 0  # of the set of workers that is handed it

    @property
    def source(self) -> Any:
        """Where the samples come from."""
        return self.spec.source

    @property
    def chain(self) -> tuple[AnyStage, ...]:
        """The stages behind the source."""
        return self.spec.chain

    def apply(self, stage: AnyStage | StageDefinition[...]) -> Pipeline:
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
        spec = self.spec
        made = Pipeline(spec.source, (*spec.chain, stage), seed=spec.seed, epochs=spec.epochs, policy=spec.policy)
        made._world = self._world
        return made

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
            spec: ``"sdxl"``, ``"sd15"``, ``"pixart"``, ``"photo"``, ``sp.Buckets(...)``, or a list of (width, height).
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

        Behind ``bucket`` it may be a number for each (width, height), or a budget: ``batch(pixels=16 * 1024 * 1024)``.
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

    def of_rank(self, rank: int, world_size: int) -> Pipeline:
        """The same pipeline for this rank, whatever the environment says: for a plain ``DataLoader`` in a job whose
        ranks are not all data-parallel. ``pipe.loader(rank=, world_size=)`` says the same to a loader.

        >>> import streampipe as sp
        >>> list(sp.from_iterable([1, 2, 3, 4]).of_rank(1, 2))
        [2, 4]
        """
        found = Pipeline(
            self.spec.source, self.spec.chain, seed=self.spec.seed, epochs=self.spec.epochs, policy=self.spec.policy
        )
        found._world = find_world(rank, world_size)
        return found

    def set_epoch(self, epoch: int) -> None:
        """The next plain pass is epoch ``epoch``, in persistent workers too; a state of another epoch is given up."""
        if self._resume is not None and self._resume["epoch"] != epoch:
            warnings.warn(
                f"the loaded state, which stands in epoch {self._resume['epoch']}, is given up by set_epoch({epoch})",
                UserWarning,
                stacklevel=2,
            )
            self._resume = None
        if self._resume is None:
            self._clock.set(epoch)

    def loader(
        self,
        num_workers: int = 0,
        *,
        threads: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        steps_per_epoch: int | None = None,
        tail: str | None = None,
        fixed_epoch: bool = False,
        prefetch: int = 2,
        pin_memory: bool = False,
        timeout: float = 0,
        persistent_workers: bool = False,
        multiprocessing_context: Any = None,
        worker_init_fn: Callable[[int], None] | None = None,
        **unknown: NoReturn,
    ) -> Loader:
        """A DataLoader over this pipeline; see ``sp.Loader`` for the options. A state that was loaded goes along."""
        if rank is None and self._world is not None:
            rank, world_size = self._world
        loader = Loader(
            self,
            num_workers,
            threads=threads,
            rank=rank,
            world_size=world_size,
            steps_per_epoch=steps_per_epoch,
            tail=tail,
            fixed_epoch=fixed_epoch,
            prefetch=prefetch,
            pin_memory=pin_memory,
            timeout=timeout,
            persistent_workers=persistent_workers,
            multiprocessing_context=multiprocessing_context,
            worker_init_fn=worker_init_fn,
            **unknown,
        )
        if self._resume is not None:
            loader.load_state_dict(self._resume)
        return loader

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
        policy = self.spec.policy if on_error is None else on_error
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
        return write_shards(self.spec, pattern, options)

    def explain(self, world_size: int = 1, num_workers: int = 0) -> str:
        """What a pass of such a job will do: level and why, what is pushed down, guarantees, samples, steps, bytes."""
        job = Job(world_size, num_workers)
        return explain(compile(self.spec, job), job)

    def report(self) -> str:
        """What happened so far in this process and its loaders' workers, as a table."""
        return report.render(counters.snapshot())

    def state_dict(self) -> dict[str, Any]:
        """Where the plain pass over this pipeline stands, as small plain JSON; of this process or worker alone.

        For torchdata's ``StatefulDataLoader`` and for a DataLoader without workers. ``pipe.loader()`` has its own.

        Raises:
            ConfigError: the pass runs in workers of a plain DataLoader, of which this process knows nothing.
        """
        if self._clock.ran_in_workers:
            raise ConfigError(
                "the last pass over this pipeline ran in the workers of a plain DataLoader, and nobody knows here how "
                "far they are: use pipe.loader(num_workers=n) and its state_dict(), or torchdata's StatefulDataLoader"
            )
        if self._resume is not None:
            return dict(self._resume)
        if self._pass is None:
            epochs = self.spec.epochs
            new = {"kind": "new", "epoch": self._clock.next(epochs or 1), "step": 0, "epochs": epochs, "steps": None}
            return {"streampipe": VERSION, **new}
        return self._pass.state()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The next plain pass continues where ``state`` was taken. Only that pass; the one after it is a new epoch."""
        self._resume = checked_state(state)
        if self._pass is not None:
            self._pass.valid = False
            self._pass = None
        self._clock.loaded()

    def __iter__(self) -> Iterator[Any]:
        # Not a generator function: what is decided here is decided when the pass begins, not at its first sample.
        rank, world_size = self._world or find_world()
        info = get_worker_info()
        worker, num_workers = (info.id, info.num_workers) if info else (0, 1)
        if info is not None and self._token:
            set_token(self._token)
        state, self._resume = self._resume, None
        self._pass = PlainPass(self.spec, Consumer(rank, world_size, worker, num_workers), self._clock, state)
        return iter(self._pass)

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "_pass": None}  # a pass is live: generators, open shards
        if get_spawning_popen() is not None:
            world = self._world or find_world()  # a spawned worker knows nothing of the parent's process group
            refuse_splitters(world[1])
            state |= {"_world": world, "_token": token_of_workers()}
        return state

    def __repr__(self) -> str:
        return describe(self.source, self.chain)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
