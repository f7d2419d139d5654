"""The pipeline: a source of samples and the stages behind it, and what is done with both."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from streampipe import report
from streampipe.cluster import cluster_of
from streampipe.counters import counters
from streampipe.dataset import SpecDataset
from streampipe.engine.chain import describe, name_of
from streampipe.engine.compile import compile
from streampipe.engine.explain import explain
from streampipe.engine.mix import MixSamples
from streampipe.engine.planning import check_part
from streampipe.errors import ConfigError
from streampipe.fluent import Fluent
from streampipe.index.beside import Beside
from streampipe.loader.loader import Loader
from streampipe.policy import ErrorPolicy
from streampipe.reading.protocol import Samples
from streampipe.report.metrics import HasScalars, Logger
from streampipe.source import Source
from streampipe.spec import AnyStage, Job, Spec
from streampipe.spelling import no_method, spelt
from streampipe.stages.grouping import find_groups
from streampipe.stages.items import check_takes
from streampipe.stages.stage import StageDefinition
from streampipe.stages.values import check_number
from streampipe.traits import Takes
from streampipe.views import chain_html
from streampipe.world import find_world
from streampipe.write import Options, Summary
from streampipe.write import write as write_shards


class Pipeline(Fluent, SpecDataset):
    """A chain of stages behind a source. Every method gives a new pipeline; none changes the one it is called on.

    Iterating it gives samples as dicts (``__key__``, ``__url__``, ``__position__``, fields as bytes until decoded), or
    whatever the last stage makes of them. Each pass is a new epoch. It works in a plain
    ``DataLoader(pipe, batch_size=None, num_workers=n)``; ``pipe.loader(...)`` does the same and accounts for it.
    """

    def __init__(
        self,
        source: Samples,
        chain: tuple[AnyStage, ...] = (),
        *,
        seed: int = 0,
        epochs: int | None = 1,
        policy: ErrorPolicy | None = None,
    ) -> None:
        if not isinstance(source, Samples):
            raise ConfigError(f"sp.stream(...) makes a pipeline; Pipeline itself takes no {type(source).__name__}")
        super().__init__(Spec(source, chain, seed, epochs, policy or ErrorPolicy()))

    if not TYPE_CHECKING:  # or a type checker would take any name for one that is there

        def __getattr__(self, name: str) -> Any:
            if name.startswith("_"):
                raise AttributeError(name)
            raise no_method("Pipeline", name, dir(Pipeline))

    @property
    def source(self) -> Samples:
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
        check_takes(stage, self._yields)
        spec = self.spec
        find_groups((*spec.chain, stage))  # what stands wrong around bucket is refused here
        return self._changed(chain=(*spec.chain, stage))

    def _changed(self, **parts: Any) -> Pipeline:
        """This pipeline with parts of its spec replaced; whatever else was said of it goes along. Every method that
        gives a pipeline makes it here.
        """
        spec = replace(self.spec, **parts)
        made = Pipeline(spec.source, spec.chain, seed=spec.seed, epochs=spec.epochs, policy=spec.policy)
        made._world, made._parents = self._world, self._parents
        return made

    @property
    def _yields(self) -> Takes:
        """Whether this pipeline yields samples or batches."""
        return self.spec.yields

    def _beside(self, stage: str) -> Beside:
        """Where this pipeline's shards are, for a stage that reads files beside them."""
        found = self.source.beside()
        if found is None:
            raise ConfigError(
                f"{stage} stands behind mix, where shards of several datasets meet; put it into the parts"
            )
        return found

    def _beside_if_any(self) -> Beside | None:
        return self.source.beside()

    @spelt
    def repeat(self, times: int) -> Pipeline:
        """Every sample ``times`` times in an epoch, in a new order each time: ``sp.mix([pipe], repeats=[times])``.

        It goes behind a source and stages of one sample in, one sample out, before ``bucket`` and ``batch``, and like
        ``mix`` needs samples that are counted. The same passes again without a longer epoch: ``stream(epochs=n)``.

        Raises:
            ConfigError: this cannot be planned, or is batched.
        """
        check_number("repeat", "times", times, 1)
        if self.source.batched:
            raise ConfigError("repeat goes before batch: give mix the parts' repeats=")
        division, _ = check_part(self.spec, "repeat")
        if division.joins:
            raise ConfigError("repeat goes before batch: this pipeline is batched already")
        return self._changed(source=MixSamples([self.spec], None, [times]), chain=())

    @spelt
    def of_rank(self, rank: int, world_size: int) -> Pipeline:
        """The same pipeline for this rank, whatever the environment says: for a plain ``DataLoader`` in a job whose
        ranks are not all data-parallel. ``pipe.loader(rank=, world_size=)`` says the same to a loader.

        >>> import streampipe as sp
        >>> from itertools import islice
        >>> list(islice(sp.from_iterable([1, 2, 3, 4], epochs=None).of_rank(1, 2), 3))
        [2, 4, 2]
        """
        made = self._changed()
        made._world = find_world(rank, world_size)
        return made

    def _refuse_rank(self, what: str) -> None:
        """Refuse ``of_rank`` where another library shares out the samples."""
        if self._world is not None:
            raise ConfigError(f"{what} shares out the samples itself: leave out of_rank{self._world}")

    def loader(
        self,
        num_workers: int = 0,
        *,
        threads: int = 0,
        auto: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
        steps_per_epoch: int | None = None,
        tail: str | None = None,
        fixed_epoch: bool = False,
        state_of: str = "rank",
        prefetch: int = 2,
        pin_memory: bool = False,
        timeout: float = 0,
        persistent_workers: bool = False,
        multiprocessing_context: Any = None,
        worker_init_fn: Callable[[int], None] | None = None,
        trace: bool = False,
        log: str | os.PathLike[str] | None = None,
        callbacks: Sequence[Logger | HasScalars] = (),
        callback_every: int = 50,
        progress: str | None = None,
        **unknown: NoReturn,
    ) -> Loader:
        """A DataLoader over this pipeline; see ``sp.Loader`` for the options. A state that was loaded goes along."""
        if self._world is not None:
            rank, world_size = self._world_of(rank, world_size)
        loader = Loader(
            self,
            num_workers,
            threads=threads,
            auto=auto,
            rank=rank,
            world_size=world_size,
            steps_per_epoch=steps_per_epoch,
            tail=tail,
            fixed_epoch=fixed_epoch,
            state_of=state_of,
            prefetch=prefetch,
            pin_memory=pin_memory,
            timeout=timeout,
            persistent_workers=persistent_workers,
            multiprocessing_context=multiprocessing_context,
            worker_init_fn=worker_init_fn,
            trace=trace,
            log=log,
            callbacks=callbacks,
            callback_every=callback_every,
            progress=progress,
            **unknown,
        )
        if self._loaded is not None:
            loader.load_state_dict(self._loaded)
        return loader

    @spelt
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
        sha256: bool = True,
        storage_options: Mapping[str, Any] | None = None,
        multiprocessing_context: Any = None,
        engine: str = "local",
        address: str | None = None,
        progress: bool = True,
    ) -> Summary:
        """Write one pass as shards, each with its index, and a manifest: ``pipe.map(encode).write("out/{:05d}.tar")``.

        Where samples are counted, shard k is made of the pipeline's samples ``k * max_samples`` and on, through a chain
        of its own: a function of pipeline and number. A run that was killed, however and wherever, goes on when it is
        run again, with any number of workers and ranks, and the bytes are those of an unbroken run. Every shard appears
        whole. Where samples are not counted, or ``take`` and ``skip`` stand behind other stages than ``where``, one
        process writes, and goes through what is there again.

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
            sha256: of each shard, in its index and the manifest. Each sample has its crc32 without it, too.
            storage_options: for fsspec.
            multiprocessing_context: how workers start: ``"fork"``, ``"spawn"``, ``"forkserver"``.
            engine: ``"local"``, or ``"ray"``: shards are tasks of a Ray cluster, ``num_workers`` at once (0: one a
                processor). ``address``: of the cluster, by default the one that the environment names.
            progress: show a bar.

        Raises:
            OutputBusy: the folder holds shards of another job; it names what differs.
            StageError: a field has no safe format; everything was dropped. DuplicateKey: a key twice in a shard.
            PackError: a full disk, a worker that died.
        """
        if not isinstance(pattern, str):
            raise ConfigError(f"write: pattern is a text, as in 'out/{{:05d}}.tar', not {pattern!r:.80}")
        policy = self.spec.policy if on_error is None else on_error
        policy = policy if isinstance(policy, ErrorPolicy) else ErrorPolicy(policy)
        options = Options(
            max_samples=max_samples,
            num_workers=num_workers,
            threads=threads,
            world=self._world_of(rank, world_size),
            policy=policy,
            version=version,
            quality=quality,
            sha256=sha256,
            source=Source(storage_options),
            context=cluster_of(engine, address, num_workers) or multiprocessing_context,
            progress=progress,
        )
        return write_shards(self.spec, pattern, options)

    @spelt
    def explain(self, world_size: int = 1, num_workers: int = 0) -> str:
        """What a pass of such a job will do: level and why, what is pushed down, guarantees, samples, steps, bytes."""
        job = Job(world_size, num_workers)
        check_number("explain", "world_size", world_size, 1)
        check_number("explain", "num_workers", num_workers, 0)
        return explain(compile(self.spec, job), job)

    def report(self) -> str:
        """What happened so far in this process and its loaders' workers, as a table: of all pipelines together.

        ``loader.report()`` is of one loader, and says what to change.
        """
        return report.render(counters.snapshot())

    def __repr__(self) -> str:
        return describe(self.source, self.chain)

    def _repr_html_(self) -> str:
        """What a notebook shows: the chain. Nothing is opened or counted for it."""
        epochs = "endless" if self.spec.epochs is None else f"epochs={self.spec.epochs}"
        note = f"seed={self.spec.seed}, {epochs}; explain() says how it will run, sp.preview(pipe) shows its samples"
        stages = (f".{name_of(stage, parameters=True)}" for stage in self.chain)
        return chain_html(repr(self.source), stages, note)
