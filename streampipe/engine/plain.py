"""A plain pass: a pipeline that is iterated itself, in this process or in a worker of a DataLoader of torch's own."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from torch.utils.data import get_worker_info

from streampipe.context import Consumer
from streampipe.engine.clock import Clock
from streampipe.engine.compile import compile
from streampipe.engine.engine import is_nothing
from streampipe.engine.state import VERSION, was_learnt
from streampipe.errors import ConfigError
from streampipe.spec import Job, Spec
from streampipe.stages.grouping import check_decoded

_SPLITS_AGAIN = ("accelerate.data_loader",)


class PlainPass:
    """One consumer's pass. What it is gets decided when it begins, not at its first sample."""

    def __init__(self, spec: Spec, consumer: Consumer, clock: Clock, state: Mapping[str, Any] | None) -> None:
        refuse_splitters(consumer.world_size)
        self._consumer = consumer
        self._ends = spec.epochs
        epochs = spec.epochs or 1
        identity = clock.start()
        workers = consumer.num_workers if consumer.num_workers > 1 else 0
        in_worker = get_worker_info() is not None
        learnt = was_learnt(state) if state is not None else None
        if in_worker and learnt is None:
            learnt = False  # workers that begin one after the other could see different shards learnt
        self.engine = compile(spec, Job(consumer.world_size, workers, learnt=learnt))
        if spec.epochs is not None:
            self.engine.check(True, consumer.world_size)
        self._clock, self._identity, self._in_worker = clock, identity, in_worker
        if in_worker and state is not None and not clock.takes_state(identity):
            state = None
        self._loaded, self._whole = state is not None, self.engine
        if state is None:
            self._begin(clock.begin(identity, epochs) if in_worker else clock.next(epochs))
        elif state["kind"] == "new":
            self._begin(state["epoch"])
        else:
            self._resume(state)
        if in_worker:
            clock.claim(identity, self.name)
        self.valid = True
        self.reader = ""  # who has taken one item more than it has handed on, as long as the pass runs
        self._stride = self.engine.stride(consumer)

    def _begin(self, epoch: int) -> None:
        self.name, self._taken, self._complete, self._resumed = epoch, 0, False, False
        self._at = self.engine.later(self.engine.first(epoch), self._consumer.worker)

    def _resume(self, state: Mapping[str, Any]) -> None:
        consumer, saved = self._consumer, state.get("worker")
        mine = [consumer.worker, consumer.num_workers]
        if saved is not None and list(saved) != mine:
            raise ConfigError(
                f"the state is of worker {saved[0]} of {saved[1]}, this is worker {mine[0]} of {mine[1]}: keep the "
                f"number of workers, or save and load with pipe.loader()"
            )
        if state["kind"] != self.engine.kind:
            raise ConfigError(
                f"the state was saved by a {state['kind']} pipeline, this one is {self.engine.kind}"
                f"{': ' + self.engine.why if self.engine.why else ''}; load it where it was saved, or start anew"
            )
        self.engine, self._at = self.engine.load([state], consumer.rank, consumer.world_size)
        if saved is None:
            self._at = self.engine.later(self._at, consumer.worker)
        self.name, self._taken, self._complete, self._resumed = state["epoch"], state["step"], False, True
        epoch = self.engine.epoch_of(self._at)
        if self._ends is None or state["steps"] is not None:
            self.name = epoch
        elif saved is None and not self.name <= epoch < self.name + self._ends:
            self.name = epoch  # a worker's rest may be empty: whether the pass is over, its siblings know

    def __iter__(self) -> Iterator[Any]:
        self._is_asked()
        self._check_valid()
        while True:
            given = 0
            for item in self._items():
                given += 1
                yield item
                self._check_valid()
            if given or not self._resumed or self._ends is None or not self._alone:
                break
            self._over()  # nothing was left of the pass that was resumed: the next one follows
            self._clock.claim(self._identity, self.name)
        self.reader = ""
        if self._ends is None:
            raise ConfigError(
                "the endless pass has no more samples: its shards hold none, or all of them were skipped or dropped "
                "(report() counts it)"
            )
        if self._alone:
            self._over()

    def _is_asked(self) -> None:
        """An iterator that nobody asks for an item is no pass: what it was to be is left to the one that is asked."""
        clock = self._clock
        if not self._in_worker:
            coming = clock.next(self._ends or 1)  # another one if a pass, or set_epoch, came between
            late = not clock.takes_state(self._identity) if self._loaded else coming != self.name
            if late:
                self.engine = self._whole
                self._begin(coming)
        clock.claim(self._identity, self.name)

    def _check_valid(self) -> None:
        if not self.valid:
            raise ConfigError(
                "this iterator of the pipeline has ended: since then load_state_dict was called; use a newer one"
            )

    @property
    def _alone(self) -> bool:
        """Whether no other worker shares the pass: else one that has ended cannot know whether the pass has."""
        return self._consumer.num_workers == 1

    def _items(self) -> Iterator[Any]:
        until = None if self._ends is None else self.name + self._ends
        policy = self.engine.spec.policy.fresh()
        for item, moved, more in self.engine.items(self._at, until, self._consumer, own=True, policy=policy):
            self._at = self.engine.later(self.engine.behind(self._at, moved), self._stride - 1)
            if not more:
                self._complete = True
            if not is_nothing(item):
                if not self._taken:
                    for chain in self.engine.spec.chains:
                        check_decoded(chain, item)
                self._taken += 1
                yield item
            del item
        if until is not None and not self._resumed and self._alone:
            policy.end()

    def _over(self) -> None:
        self._begin(self.name + (self._ends or 0))

    @property
    def complete(self) -> bool:
        """Whether no item of this consumer can follow in the pass."""
        return self._complete

    def state(self) -> dict[str, Any]:
        """Plain JSON that names the next item of this consumer."""
        consumer, engine = self._consumer, self.engine
        at, name, taken = self._at, self.name, self._taken
        if self._complete and self._ends is not None and self._alone:
            name, taken = name + self._ends, 0
            at = engine.later(engine.first(name), consumer.worker)
        state: dict[str, Any] = {
            "streampipe": VERSION,
            "epoch": name,
            "step": taken,
            "epochs": self._ends,
            "steps": None,
        }
        state |= engine.state(at, consumer.rank, consumer.world_size)
        if consumer.num_workers > 1:
            state["worker"] = [consumer.worker, consumer.num_workers]
        return state


def refuse_splitters(world_size: int) -> None:
    """Refuse to be read by what would split the samples among the ranks once more.

    Raises:
        ConfigError: Accelerate prepared a DataLoader over this pipeline, on several ranks.
    """
    if world_size == 1:
        return
    frame: Any = sys._getframe()
    while frame is not None:
        if frame.f_globals.get("__name__") in _SPLITS_AGAIN:
            raise ConfigError(
                f"this pipeline is prepared by Accelerate, which splits its samples among {world_size} ranks "
                f"once more, so most would be lost: use pipe.loader() and do not give it to accelerator.prepare (it "
                f"reads this rank's share already, and goes on from loader.load_state_dict(state))"
            )
        frame = frame.f_back


def refuse_second_batch() -> None:
    """Refuse to be read by a DataLoader that would make batches of batches.

    Nobody but torch's fetcher knows whether a ``batch_size`` was given, and it asks for an iterator.

    Raises:
        ConfigError: one was, or its default of 1.
    """
    frame: Any = sys._getframe()
    while frame is not None:
        if frame.f_globals.get("__name__") == "torch.utils.data._utils.fetch":
            if frame.f_locals.get("auto_collation"):
                raise ConfigError(
                    "this pipeline makes batches already, and the DataLoader would put them into batches once more: "
                    "give it batch_size=None, as in DataLoader(pipe, batch_size=None), or use pipe.loader()"
                )
            return
        frame = frame.f_back
