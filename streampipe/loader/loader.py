"""The loader: a torch DataLoader over a pipeline that accounts for what it delivers."""

from __future__ import annotations

import inspect
import os
import traceback
import warnings
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader

from streampipe import memory
from streampipe.engine.compile import compile
from streampipe.engine.engine import Engine
from streampipe.engine.explain import explain
from streampipe.engine.interleaved import merge_states
from streampipe.engine.learnt import learns
from streampipe.engine.life import Life, options_of
from streampipe.engine.plain import refuse_splitters
from streampipe.engine.state import VERSION, checked_state
from streampipe.errors import ConfigError
from streampipe.lineage import Log
from streampipe.loader.callers import lost_state, refuse_reading_ahead
from streampipe.loader.choose import Choice, Setting, choose, rate_of
from streampipe.loader.feed import Crew, Feed, Parcel, Received, Task, crew_of, length_of, unpack
from streampipe.loader.handover import Shelf
from streampipe.loader.options import check_options, refuse_unknown
from streampipe.loader.passes import Pass
from streampipe.loader.recorder import Recorder
from streampipe.loader.reports import facts_of, look, report_of
from streampipe.loader.watchers import Watchers
from streampipe.processes import UNPICKLABLE, not_handed
from streampipe.report import Facts, Seen, Summary
from streampipe.report.metrics import HasScalars, Logger
from streampipe.report.prometheus import show
from streampipe.spec import Job, Spec
from streampipe.stages.values import check_number
from streampipe.traits import Takes
from streampipe.world import check_world, find_world, has_process_group, of_all_ranks, of_first_rank


class HasSpec(Protocol):
    """A pipeline, as far as a loader looks at it."""

    @property
    def spec(self) -> Spec: ...


class Loader(DataLoader[Any]):
    """What ``pipe.loader(...)`` gives: batches as the pipeline makes them, from worker processes or threads.

    Each ``for`` over it is a pass. A new pass is a new epoch; a pass that was left by ``break`` is over, but with
    ``steps_per_epoch`` the next one goes on where the stream stands. A pass of which exactly ``len(loader)`` batches
    were taken is over too, whether or not it was asked for one more. A newer pass, or a loaded state, ends an iterator
    that is still open. Loaders over one pipeline count their passes each for itself.

    Args:
        pipe: the pipeline.
        num_workers: worker processes. 0 runs the pipeline in this process.
        threads: threads that make batches in the background, in each worker, or, with ``num_workers=0``, in this
            process: each of them whole batches, as a worker does, so stages run in several threads at once. Where
            batches can only be made one after the other (a stream in its listed order, buckets that are not counted),
            the stages that decode or map share the threads instead, unless they were given their own number.
        auto: num_workers and threads are the fastest of a few, by a trial of some seconds, which is remembered for this
            pipeline and machine; ``explain()`` says what was tried. On several ranks the first one's choice holds.
        rank, world_size: this process among all that train together; found in torch.distributed or the environment
            (RANK, WORLD_SIZE) if not given. Decided here, in the parent, so it holds under every start method.
        steps_per_epoch: a pass is so many batches on every rank, and the next pass goes on where it stopped. Needed for
            several ranks where nobody can know how many samples there are. Behind a stage that drops some, each lane
            then goes through its epochs at its own pace.
        tail: what becomes of an epoch's last batch: ``"short"`` (the default), ``"drop"``, or ``"pad"`` with the
            epoch's first samples; if not given, what ``batch(tail=)`` says.
        fixed_epoch: every pass is the same one, as validation wants it.
        state_of: whose place ``state_dict()`` says: this ``"rank"``'s, or the whole ``"job"``'s, the same on every
            rank, for trainers that keep one state for all. All ranks must then call it at the same step.
        prefetch: batches made ahead: by each worker, or by all ``threads`` together, but at least one by each.
        trace: keep what each thread and worker did when, for ``report(format="html")`` and ``"trace"``.
        log: a folder, into which goes which samples each step was made of; see ``sp.Lineage`` and ``sp.replay``.
        callbacks: functions of (metrics, step), as ``wandb.log`` is, or writers with ``add_scalar``, as TensorBoard's;
            they are called every ``callback_every`` batches.
        progress: shows a ``"line"`` while a pass runs, or the report as a ``"table"`` (needs ``streampipe[rich]``).
        pin_memory, timeout, persistent_workers, multiprocessing_context, worker_init_fn: as in torch's DataLoader; all
            but the first are refused where there are no workers.

    Codecs release the GIL, and a worker must hand every batch over to the parent: on a few cores ``threads=`` with
    ``num_workers=0`` is the fastest. Worker processes win where stages are mostly Python; the two can be combined.
    """

    def __init__(
        self,
        pipe: HasSpec,
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
        **unknown: Any,
    ) -> None:
        refuse_unknown(unknown, inspect.signature(Loader).parameters)
        if not hasattr(pipe, "spec"):
            raise ConfigError(f"a loader is of a pipeline, as sp.stream(...).batch(n) gives it, not of {pipe!r:.80}")
        check_options(locals())
        self._choice: Choice | None = None
        if auto:
            world = find_world(rank, world_size)
            self._choice = _chosen(pipe, world, prefetch, multiprocessing_context, worker_init_fn)
            num_workers, threads = self._choice.setting
        self.pipe = pipe
        self.prefetch = prefetch
        self.steps_per_epoch = steps_per_epoch
        self.fixed_epoch = fixed_epoch
        self.state_of = state_of
        self._world_was_found = rank is None
        self.threads = threads
        self._recorder = Recorder(trace)
        self._feed = Feed(*find_world(rank, world_size), prefetch, self._recorder)
        self._watchers = self._watched_by(log, callbacks, callback_every, progress)
        self._tail = tail
        self._found: Life | None = None  # once the pipeline is compiled, which may count samples
        self._named = 0  # the epoch that was set before that
        self._open: weakref.ref[Pass] | None = None  # the one that may be used; it holds this loader, not the reverse
        self._judge = pipe.spec.policy.fresh()  # of the pass that runs: what was skipped in all workers
        self._flow: Generator[Received, None, None] | None = None  # of an endless stream, that passes are cut from
        self._process = os.getpid()  # whose threads and workers make items
        super().__init__(
            self._feed,
            batch_size=None,
            num_workers=num_workers,
            collate_fn=_as_it_is,
            pin_memory=pin_memory,
            timeout=timeout,
            persistent_workers=persistent_workers and num_workers > 0,
            multiprocessing_context=multiprocessing_context if num_workers else None,
            worker_init_fn=worker_init_fn,
            prefetch_factor=prefetch if num_workers else None,
        )

    @property
    def batch_size(self) -> None:
        """None: the pipeline makes the batches. Accelerate, which would split them once more, is told here."""
        refuse_splitters(self._feed.world_size)

    @batch_size.setter
    def batch_size(self, value: object) -> None:
        """Torch's own bookkeeping: there is nothing to remember."""

    @property
    def world_size(self) -> int:
        """How many ranks it is made for."""
        return self._feed.world_size

    @property
    def engine(self) -> Engine[Any]:
        """What runs the pipeline in this job; made once, here in the parent."""
        return self._life.engine

    @property
    def _job(self) -> Job:
        in_steps = self.steps_per_epoch is not None
        return Job(self._feed.world_size, self.num_workers, self._tail, in_steps=in_steps)

    @property
    def _life(self) -> Life:
        if self._found is None:
            feed, spec = self._feed, self.pipe.spec
            job, steps = self._job, self.steps_per_epoch

            def compiled(learnt: bool | None) -> Engine[Any]:
                return self._recorder.counts.during(compile, spec, replace(job, learnt=learnt))

            again = compiled if learns(spec) else None
            self._found = Life(
                compiled(None), spec.epochs, steps, feed.rank, feed.world_size, self.fixed_epoch, again, self._tail
            )
            self._found.name = self._named
        return self._found

    def _watched_by(
        self, log: Any, callbacks: Sequence[Logger | HasScalars], every: int, progress: str | None
    ) -> Watchers | None:
        def make() -> Log:
            return Log(log, feed.rank, feed.world_size)

        feed = self._feed
        watchers = Watchers(callbacks, every, progress, None if log is None else make)
        return watchers if watchers.any else None

    def set_epoch(self, epoch: int) -> None:
        """The next pass is the one of this epoch. Where that comes next anyway nothing changes.

        A state that was loaded stands in the epoch ``state["epoch"]``: naming that one goes on where the state is,
        naming another gives the state up, with a warning.
        """
        check_number("set_epoch", "epoch", epoch, 0)
        if self._found is None:
            self._named = epoch
        elif self._life.set_epoch(epoch):
            self._close()

    def report(
        self, format: str = "text", path: str | os.PathLike[str] | None = None, *, all_ranks: bool = False
    ) -> str:
        """What this loader did so far, and where the time went; the first sentence says what to change.

        Args:
            format: ``"text"``; ``"json"``; ``"html"``, a page that needs nothing else, with a timeline if the loader
                was made with ``trace=True``; ``"trace"``, that timeline for Perfetto (ui.perfetto.dev); or
                ``"counts"``, all that was counted, for ``sp.merged_report``.
            path: a file to write it to as well.
            all_ranks: of all ranks together; all of them must call this.

        ``pipe.report()`` is the sum of the whole process.

        >>> import streampipe as sp
        >>> loader = sp.from_iterable([{"n": i} for i in range(9)]).batch(2).loader()
        >>> batches = list(loader)
        >>> "5 batches" in loader.report()
        True
        """
        return report_of(self._with_told(self._recorder.seen()), self._facts(), format, path, all_ranks)

    def summary(self) -> Summary:
        """The numbers of the report, as values."""
        return look(self._with_told(self._recorder.seen()), self._facts())

    def _with_told(self, seen: Seen) -> Seen:
        """With what the plan leaves out of each epoch: nobody counts that, and one rank tells it for all."""
        if self._found is not None and self._feed.rank == 0:
            sums = seen.counted.sums
            sums.update((at, sums.get(at, 0) + number) for at, number in self._found.engine.drops.items())
        return seen

    def _facts(self) -> Facts:
        feed = self._feed
        if self._found is None:
            return facts_of(None, Crew(self.num_workers, self.threads, 0), self.prefetch)
        engine = self._found.engine
        crew = crew_of(engine, feed.rank, feed.world_size, self.num_workers, self.threads)
        return facts_of(engine, crew, self.prefetch)

    def prometheus(self, registry: Any = None, **labels: object) -> None:
        """Show this loader's numbers to Prometheus: ``prometheus_client.start_http_server(9000)`` serves them.

        Args:
            registry: of ``prometheus_client``; its default one if not given.
            labels: put on every number, as in ``loader.prometheus(loader="train", rank=0)``; they tell loaders apart,
                and one with the labels of another takes its place, as after a restart.

        Raises:
            ConfigError: prometheus_client is not installed; a label's name is none, or ``stage`` or ``reason``.
        """
        show(self.summary, labels, registry)

    def explain(self) -> str:
        """What a pass of this loader will do, as a table."""
        text = explain(self.engine, self._job, self.steps_per_epoch)
        return text if self._choice is None else f"{text}\nchosen  {self._choice}"

    def __len__(self) -> int:
        """Batches of a whole pass: of the one that runs, or else of the next one. Where nothing batches samples, those
        that a stage will drop count, too.

        Raises:
            TypeError: nobody knows: the stream is endless, or its samples are not counted.
        """
        if self.steps_per_epoch is not None:
            return self.steps_per_epoch
        life = self._life
        if life.epochs is None:
            raise TypeError("this loader has no length, because epochs=None makes it endless; give steps_per_epoch=")
        open_pass = self._open() if self._open is not None else None
        name = open_pass.name if open_pass is not None and not open_pass.over else life.name
        found = life.engine.length(name, life.epochs)
        if found is None:
            raise TypeError(f"this loader has no length, because {life.engine.why}; give steps_per_epoch=")
        return found

    @property
    def at_end(self) -> bool:
        """Whether the batch received last is known to be the last of its pass."""
        open_pass = self._open() if self._open is not None else None
        return open_pass is not None and open_pass.complete

    def state_dict(self, all_ranks: bool = False) -> dict[str, Any]:
        """Where training stands: after the batch received last, whatever was made ahead. Small, plain JSON.

        In the indexed level it is the same on every rank. Else each rank has its own, which may be loaded by the same
        rank; a list of them, or what ``sp.merge_states`` makes of it, by any number of ranks. With ``all_ranks`` that
        is made here, and is the same on every rank: all ranks must then call this at the same step. A loader that was
        made with ``state_of="job"`` does so whenever it is asked.

        It counts every batch that the iterator gave out. ``zip(loader, range(n))`` asks for one batch more than it
        hands on, and drops it; a state taken then stands behind that batch. Write ``zip(range(n), loader)``, or
        ``itertools.islice(loader, n)``, or break out of a plain loop: these take what they give.

        >>> import itertools, streampipe as sp
        >>> loader = sp.from_iterable([{"n": i} for i in range(9)]).batch(2).loader()
        >>> [batch["n"] for batch in itertools.islice(loader, 2)]
        [tensor([0, 1]), tensor([2, 3])]
        >>> resumed = sp.from_iterable([{"n": i} for i in range(9)]).batch(2).loader()
        >>> resumed.load_state_dict(loader.state_dict())
        >>> next(iter(resumed))["n"]
        tensor([4, 5])
        """
        all_ranks = all_ranks or self.state_of == "job"
        open_pass = self._open() if self._open is not None else None
        if open_pass is not None and not open_pass.complete:
            refuse_reading_ahead(self.__len__)
        if self._watchers is not None:
            self._watchers.state_taken()
        return self.gathered(self._life.state()) if all_ranks else self.rank_state()

    def rank_state(self) -> dict[str, Any]:
        """Where this rank stands, as ``state_dict`` says it; no other rank is asked, and nothing is checked or written.
        For who notes the state of each batch.
        """
        if self._found is not None:
            return self._found.state()
        epochs = self.pipe.spec.epochs if self.steps_per_epoch is None else None
        new = {"kind": "new", "epoch": self._named, "step": 0, "epochs": epochs, "steps": self.steps_per_epoch}
        told = options_of(self._tail, self.fixed_epoch)  # and by how many readers: lanes may follow from that
        return {"streampipe": VERSION, **new, **told, "ranks": self._feed.world_size, "workers": self.num_workers}

    def rewind(self, state: Mapping[str, Any], running: bool) -> None:
        """The pass that is open was left behind a state of it (``rank_state``); what came later was not given out. For
        who makes batches ahead of a loop. ``running``: the pass had more then.
        """
        self._life.rewind(checked_state(state), running)
        self._close()

    def gathered(self, state: dict[str, Any]) -> dict[str, Any]:
        """A state of this rank as that of all: every rank must call this with its own of the same step.

        Raises:
            ConfigError: torch.distributed is not there to gather them.
        """
        if self._feed.world_size == 1 or state["kind"] != "lanes":
            return state
        if not has_process_group():
            raise ConfigError("state_dict(all_ranks=True) needs torch.distributed; without it use sp.merge_states")
        return merge_states(of_all_ranks(state))

    def load_state_dict(self, state: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
        """The next pass continues with the batch after the one that ``state`` was taken at; an open iterator ends.

        A list of the states of all ranks, or what ``sp.merge_states`` makes of it, may be loaded on other numbers of
        ranks and workers.

        Raises:
            ConfigError: this is no state; or it is of another dataset, seed, ... than this loader.
        """
        given = [state] if isinstance(state, Mapping) or not isinstance(state, (list, tuple)) else list(state)
        if not given:
            raise ConfigError("load_state_dict takes a state, or the states of all ranks, not an empty list")
        self._life.load([checked_state(each) for each in given])
        self._close()

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise ConfigError(
            "a loader is not copied or pickled, because what it gives out is counted once: copy or pickle the "
            "pipeline, and make a loader there with pipe.loader(...), which goes on from this one's state_dict()"
        )

    def __iter__(self) -> Any:
        return self._begun(self._watchers)

    def _unwatched(self) -> Pass:
        """A pass for who makes batches ahead of a loop, and tells who watches the loader of what the loop is given."""
        return self._begun(None)

    def _begun(self, watchers: Watchers | None) -> Pass:
        """A pass, begun."""
        if self._world_was_found:
            check_world(self._feed.rank, self._feed.world_size)
        life = self._life
        refusal = None if life.loaded else lost_state()
        goes_on = self._flow is not None and life.epochs is None and not life.loaded and not life.fixed
        self._close(keep_flow=goes_on)
        life.begin()
        self._recorder.begin()
        if watchers is not None:
            watchers.begins(self._length(), self.summary, life.state)
        found = Pass(self, life, watchers, refusal)
        self._open = weakref.ref(found)
        return found

    def _length(self) -> int | None:
        """Batches of a whole pass, or None where nobody knows; see ``len``."""
        try:
            return len(self)
        except TypeError:
            return None

    def _close(self, keep_flow: bool = False) -> None:
        """End the iterator that is open."""
        if self._open is not None and (open_pass := self._open()) is not None:
            open_pass.valid = False
        self._open = None
        if not keep_flow:
            self._stop()

    def _stop(self) -> None:
        """End what makes items ahead."""
        self._leave_to_parent()
        flow, self._flow = self._flow, None
        if flow is not None:
            self._feed.give_up()
            flow.close()
            memory.trim()

    def _forget(self) -> None:
        """What comes has ended."""
        self._flow = None

    def _leave_to_parent(self) -> None:
        """In a fork: what makes items is the parent process's. It begins anew here, where this loader stands."""
        if self._process != os.getpid():
            self._process = os.getpid()
            _of_parents.append((self._flow, self._iterator))
            self._flow = self._iterator = None
            self._feed.leave_to_parent()

    def _received(self) -> Iterator[Received]:
        """What comes from here on; begun when the first item is wanted."""
        self._leave_to_parent()
        if self._flow is None:
            life, feed = self._life, self._feed
            at, engine = life.at, life.engine
            if at != engine.first(engine.epoch_of(at)) or (feed.task and feed.task.engine is not engine):
                self._iterator = None  # persistent workers can only begin at an epoch's beginning, with their engine
            crew = crew_of(engine, feed.rank, feed.world_size, self.num_workers, self.threads)
            if crew.workers < self.num_workers:
                idle = self.num_workers - crew.workers
                warnings.warn(
                    f"{idle} of {self.num_workers} workers stay idle: the lanes of this pipeline are shared by numbers "
                    f"of workers that divide them; explain() says which",
                    UserWarning,
                    stacklevel=3,
                )
            feed.begin(Task(engine, at, life.until, crew))
            parcels = self._from_workers() if self.num_workers else feed.parcels(self._pins)
            self._judge = engine.spec.policy.fresh()
            self._flow = unpack(
                parcels, crew.consumers, self._judge, self._recorder, self.pipe.spec.yields is Takes.BATCHES
            )
        return self._flow

    def _from_workers(self) -> Generator[Parcel, None, None]:
        if self._iterator is None:  # workers begin anew
            self._feed.shelf = Shelf()
        self._feed.is_asked = True
        try:
            parcels: Iterator[Parcel] = super().__iter__()
        except UNPICKLABLE as error:
            raise not_handed(error) from error
        finally:
            self._feed.is_asked = False
        return _let_go(parcels)

    @property
    def _pins(self) -> bool:
        """Whether tensors are brought into pinned memory: there must be something that gains from it."""
        return self.pin_memory and torch.accelerator.is_available()


def _chosen(pipe: HasSpec, world: tuple[int, int], prefetch: int, context: Any, init: Any) -> Choice:
    """The fastest setting for a pipeline; the first rank's, where all of them ask."""

    def measure(setting: Setting) -> float:
        endless = replace(pipe.spec, epochs=None)
        of_workers = {"multiprocessing_context": context, "worker_init_fn": init} if setting.workers else {}
        loader = Loader(_Bare(endless), *setting[:1], threads=setting.threads, rank=world[0], world_size=world[1],
                        prefetch=prefetch, **of_workers)  # fmt: skip
        with closing(iter(loader)) as batches:
            return rate_of(batches, partial(length_of, batched=pipe.spec.yields is Takes.BATCHES))

    if world[1] == 1 or not has_process_group():
        return choose(pipe.spec, measure, world[1])
    choice: Choice = of_first_rank(choose(pipe.spec, measure, world[1]) if world[0] == 0 else None)
    return choice


_of_parents: list[Any] = []
"""In a fork: what its parent runs. It is held for ever, because ending it here would end it there."""


@dataclass(frozen=True)
class _Bare:
    """A spec without a face."""

    spec: Spec


def _let_go(parcels: Iterator[Parcel]) -> Generator[Parcel, None, None]:
    """The same, but a worker's error ends the workers at once.

    The traceback of such an error holds torch's iterator, in a circle with itself. When the collector finds it, its
    queues are gone already, and it waits in vain for each worker to end: 5 s each, in whatever thread it happens to be.
    """
    try:
        yield from parcels
    except Exception as error:
        traceback.clear_frames(error.__traceback__)
        del parcels
        raise


def _as_it_is(item: Any) -> Any:
    return item
