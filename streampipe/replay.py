"""``replay``: the batch of a step again, to look at."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from streampipe.context import Consumer
from streampipe.engine.compile import compile
from streampipe.engine.engine import Engine, is_nothing
from streampipe.engine.indexed import IndexedEngine
from streampipe.engine.learnt import learns
from streampipe.engine.state import checked_state, was_learnt
from streampipe.errors import ConfigError
from streampipe.kinds import checked
from streampipe.lineage import Lineage
from streampipe.pipeline import Pipeline
from streampipe.plan.planned import Cursor
from streampipe.spec import Job
from streampipe.world import find_world

State = Mapping[str, Any]


@checked
def replay(
    pipe: Pipeline,
    where: State | Sequence[State] | str | os.PathLike[str],
    step: int,
    *,
    rank: int = 0,
    world_size: int | None = None,
) -> Any:
    """The batch of a step again, exactly as training got it: same samples, same pixels, same captions.

    Args:
        pipe: the pipeline of then.
        where: a state of the loader's (``state_dict()``), or the states of all ranks; or the folder that
            ``loader(log=...)`` wrote. Where batches are planned, any state of the run will do, of an earlier or a later
            step, and only that batch is read. Else the batches from the state (or the beginning of the log's file)
            up to the step are made again.
        step: the batches that each rank had received before, since training began: 0 is the first.
        rank, world_size: whose batch; of how many, if it is not what the state or the log says.

    Raises:
        ConfigError: the state or log is of another dataset, seed or pipeline; or does not reach to that step.

    >>> import streampipe as sp
    >>> pipe = sp.from_iterable([{"n": i} for i in range(9)]).batch(2)
    >>> loader = pipe.loader()
    >>> state = loader.state_dict()
    >>> [batch["n"].tolist() for batch in loader][3], replay(pipe, state, 3)["n"].tolist()
    ([6, 7], [6, 7])
    """
    if not isinstance(pipe, Pipeline):
        raise ConfigError(f"replay takes a pipeline, as sp.stream(...) gives it, not {pipe!r:.80}")
    if step < 0:
        raise ConfigError(f"replay: steps count from 0, not {step}")
    keys = None
    if isinstance(where, (str, os.PathLike)):
        log = Lineage(where)
        part = log.part_of(step, rank)
        states: list[dict[str, Any]] = [checked_state({**part.state, "ranks": part.ranks})]
        keys = log.step(step, rank)["key"].to_pylist()
    else:
        states = [checked_state(each) for each in ([where] if isinstance(where, Mapping) else where)]
    if not states:
        raise ConfigError("replay takes a state, or the states of all ranks, not an empty list")
    if states[0]["kind"] != "new" and "batches" not in states[0]:
        raise ConfigError(
            "the state is of a plain pass over the pipeline, which does not count steps: give one of pipe.loader()"
        )
    ranks = find_world(rank, _ranks_of(states[0]) if world_size is None else world_size)[1]
    item = _batch(pipe, states, step, rank, ranks)
    if keys is not None and isinstance(item, Mapping) and item.get("__key__", keys) not in (keys, keys[0]):
        raise ConfigError(
            f"step {step} of rank {rank} is made of other samples now than the log says: the pipeline or its data "
            f"changed since, or samples that were bad then are good now; restore them to see that batch"
        )
    return item


def _batch(pipe: Pipeline, states: Sequence[Mapping[str, Any]], step: int, rank: int, ranks: int) -> Any:
    state = states[0]
    before, told = step - state.get("batches", 0), state.get("loader") or {}
    if state["kind"] == "new" and learns(pipe.spec):
        raise ConfigError(
            "the state is from before training, and does not say which index was learnt then: give a later state of "
            "the epoch that step is in, or the folder that loader(log=...) wrote"
        )
    job = Job(ranks, state.get("workers", 0), told.get("tail"), was_learnt(state), state.get("steps") is not None)
    engine: Engine[Any] = compile(pipe.spec, job)
    if told.get("fixed_epoch"):
        _check_pass(engine, state, step, before)
    if state["kind"] == "new":
        at: Any = engine.first(state["epoch"])
    elif state["kind"] != engine.kind:
        raise ConfigError(f"the state was saved by a {state['kind']} pipeline, this one is {engine.kind}; restore it")
    else:
        engine, at = engine.load(states, rank, ranks)
    if isinstance(engine, IndexedEngine):
        return next(_items(engine, _place(engine, at, before, state, step), None, rank, ranks))
    if before < 0:
        raise ConfigError(
            f"the state stands behind step {step}, and the batches of this pipeline cannot be planned: give a state "
            f"from before that step, or the folder that loader(log=...) wrote"
        )
    until = None if state["epochs"] is None else state["epoch"] + state["epochs"]
    for number, item in enumerate(_items(engine, at, until, rank, ranks)):
        if number == before:
            return item
    raise ConfigError(f"the pass that the state stands in has ended before step {step}; give a later state, or the log")


def _check_pass(engine: Engine[Any], state: Mapping[str, Any], step: int, before: int) -> None:
    """Refuse a step of another pass where every pass is the same one."""
    most = state["steps"] or engine.length(state["epoch"], state["epochs"])
    number = state["step"] + before
    if number < 0 or (most is not None and number >= most):
        last = "" if most is None else f" to {step - number + most - 1}"
        raise ConfigError(
            f"step {step} is in another pass than the state, and under fixed_epoch=True every pass is the same: ask "
            f"for one of the state's own steps, {step - number}{last}"
        )


def _place(engine: IndexedEngine, at: Cursor, steps: int, state: Mapping[str, Any], step: int) -> Cursor:
    """The place so many steps later than the state's, or earlier."""
    plan = engine.plan
    if steps >= 0:
        return plan.after(at, steps)
    first = plan.known
    had = plan.since(first, at)
    found = plan.after(first, max(had + steps, 0))
    if had + steps < 0 or (found.epoch < at.epoch and not _whole(engine, first, had, state)):
        raise ConfigError(
            f"step {step} lies before this run began or went on with another global batch or schedule, or before an "
            f"epoch that was left before its end, or while an index was being learnt: give a state from before that, "
            f"or the folder that loader(log=...) wrote"
        )
    return found


def _whole(engine: IndexedEngine, first: Cursor, had: int, state: Mapping[str, Any]) -> bool:
    """Whether all batches that a run had are those of its plan, as far as that can be told: from the beginning of an
    epoch on, each epoch to its end. A change of the global batch is known until its epoch is over.
    """
    if learns(engine.spec):
        return False
    if first != Cursor(0, 0, None):
        return True
    return state["batches"] <= had and engine.plan.after(first, had - state["batches"]).step == 0


def _items(engine: Engine[Any], at: Any, until: int | None, rank: int, ranks: int) -> Iterator[Any]:
    for item, _, _ in engine.items(at, until, Consumer(rank, ranks)):
        if not is_nothing(item):
            yield item


def _ranks_of(state: Mapping[str, Any]) -> int:
    """How many ranks the job had, as its state says."""
    if "ranks" not in state:
        raise ConfigError("the state does not say of how many ranks the job was: give world_size=")
    return int(state["ranks"])
