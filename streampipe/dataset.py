"""A pipeline as torch sees it: an IterableDataset whose passes are epochs, and that knows where it stands."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from multiprocessing.context import get_spawning_popen
from typing import Any, NoReturn

from torch.utils.data import IterableDataset, get_worker_info

from streampipe.context import Consumer
from streampipe.engine.clock import Clock, set_token, token_of_workers
from streampipe.engine.compile import compile
from streampipe.engine.engine import Engine
from streampipe.engine.learnt import learns
from streampipe.engine.plain import PlainPass, refuse_second_batch, refuse_splitters
from streampipe.engine.state import VERSION, checked_state
from streampipe.errors import ConfigError
from streampipe.loader.callers import reads_ahead
from streampipe.spec import Job, Spec
from streampipe.stages.values import check_number
from streampipe.traits import Takes
from streampipe.world import find_world


class SpecDataset(IterableDataset[Any]):
    """What a spec yields, iterated in this process, or in the workers of a DataLoader of torch's own."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self._clock = Clock()
        self._resume: dict[str, Any] | None = None
        self._pass: PlainPass | None = None
        self._engine: tuple[int, Engine[Any]] | None = None  # that counted the items, with its number of ranks
        self._world: tuple[int, int] | None = None  # as of_rank said
        self._parents: tuple[int, tuple[int, int]] | None = None  # in a spawned worker: its process, its parent's world
        self._token = 0  # of the set of workers that is handed it

    def __getitem__(self, number: Any) -> NoReturn:
        raise TypeError("a stream has no item by number: next(iter(pipe)) is the first, pipe.skip(n).take(1) another")

    def __add__(self, other: Any) -> NoReturn:
        raise TypeError("pipelines are not added: sp.concat([a, b]) gives one behind the other, sp.mix([a, b]) both")

    def __bool__(self) -> bool:
        return True  # a pipeline is a thing, whatever its length

    def __len__(self) -> int:
        """Items of a plain pass on this rank, over all DataLoader workers: of the one that runs, or else of the next.

        Raises:
            TypeError: nobody knows: the stream is endless, or its samples are not counted.
        """
        epochs = self.spec.epochs
        if epochs is None:
            raise TypeError("this pipeline has no length, because epochs=None makes it endless; see pipe.loader()")
        if self._pass is not None:
            engine, name = self._pass.engine, self._pass.name
        else:
            world = self._world_of()[1]
            if self._engine is None or self._engine[0] != world or learns(self.spec):
                self._engine = world, compile(self.spec, Job(world))
            engine, name = self._engine[1], self._clock.next(epochs)
        found = engine.length(name, epochs)
        if found is None:
            raise TypeError(f"this pipeline has no length, because {engine.why}; see pipe.loader(steps_per_epoch=)")
        return found

    def __iter__(self) -> Iterator[Any]:
        # Not a generator function: what is decided here is decided when the pass begins, not at its first sample.
        rank, world_size = self._world_of()
        info = get_worker_info()
        worker, num_workers = (info.id, info.num_workers) if info else (0, 1)
        if info is not None and self._token:
            set_token(self._token)
        if self.spec.yields is Takes.BATCHES:
            refuse_second_batch()
        state = self._loaded if info is None else self._resume
        if info is not None:
            self._resume = None
        self._pass = PlainPass(self.spec, Consumer(rank, world_size, worker, num_workers), self._clock, state)
        if info is None:
            self._pass.reader = reads_ahead(self.__len__)
        return iter(self._pass)

    def set_epoch(self, epoch: int) -> None:
        """The next plain pass is epoch ``epoch``, in persistent workers too; a state of another epoch is given up."""
        check_number("set_epoch", "epoch", epoch, 0)
        loaded = self._loaded
        if loaded is not None and loaded["epoch"] != epoch:
            warnings.warn(
                f"the loaded state, which stands in epoch {loaded['epoch']}, is given up by set_epoch({epoch})",
                UserWarning,
                stacklevel=2,
            )
            loaded = self._resume = None
            self._clock.gave_up()
        if loaded is None:
            self._clock.set(epoch)

    @property
    def _loaded(self) -> dict[str, Any] | None:
        """The state that was loaded and that no pass has taken, here or in a worker."""
        if self._resume is not None and self._clock.took_state:
            self._resume = None
        return self._resume

    def state_dict(self) -> dict[str, Any]:
        """Where the plain pass over this pipeline stands, as small plain JSON; of this process or worker alone.

        For torchdata's ``StatefulDataLoader`` and for a DataLoader without workers. ``pipe.loader()`` has its own.

        Raises:
            ConfigError: the pass runs in workers of a plain DataLoader, of which this process knows nothing; or
                Accelerate or Lightning reads it, and is a batch ahead of the loop.
        """
        if self._clock.ran_in_workers:
            raise ConfigError(
                "the last pass over this pipeline ran in the workers of a plain DataLoader, and nobody knows here how "
                "far they are: use pipe.loader(num_workers=n) and its state_dict(), or torchdata's StatefulDataLoader"
            )
        if self._loaded is not None:
            return dict(self._loaded)
        if self._pass is None:
            epochs = self.spec.epochs
            new = {"kind": "new", "epoch": self._clock.next(epochs or 1), "step": 0, "epochs": epochs, "steps": None}
            return {"streampipe": VERSION, **new, "ranks": self._world_of()[1]}  # for sp.replay
        if reader := self._pass.reader:
            raise ConfigError(
                f"{reader} reads one batch ahead of the loop, so this state would stand one batch too far: take it "
                f"behind the pass, or make the loader with streampipe.compat.accelerate.prepare, LoaderModule of "
                f"streampipe.compat.lightning, or as torchdata's StatefulDataLoader (use_stateful_dataloader=True)"
            )
        return self._pass.state()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The next plain pass continues where ``state`` was taken. Only that pass; the one after it is a new epoch."""
        self._resume = checked_state(state)
        if self._pass is not None:
            self._pass.valid = False
            self._pass = None
        self._clock.loaded()

    def _world_of(self, rank: int | None = None, world_size: int | None = None) -> tuple[int, int]:
        """The rank, of how many: as given here, else as ``of_rank`` said, else as the environment does."""
        if rank is None and world_size is None and self._world is not None:
            return self._world
        if rank is None and world_size is None and self._parents is not None and get_worker_info() is not None:
            process, world = self._parents
            if process == os.getpid():  # and not one that it forked, which knows its own
                return world
        return find_world(rank, world_size)

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "_pass": None, "_engine": None, "_parents": None}  # a pass is live: open shards
        if get_spawning_popen() is not None:
            world = self._world_of()  # a spawned worker knows nothing of the parent's process group
            refuse_splitters(world[1])
            state |= {"_parents": world, "_token": token_of_workers()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if (world := state.get("_parents")) is not None:
            self._parents = (os.getpid(), world)
