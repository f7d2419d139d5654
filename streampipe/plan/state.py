"""What a saved state must look like. It comes from a file: kinds and bounds are checked before a number of it is used.

Whether it fits this dataset and pipeline is for whoever goes on with it to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from streampipe.errors import ConfigError

_MOST = 1 << 53  # beyond it JSON's numbers are not exact everywhere
_LAST_EPOCH = 1 << 30
_MOST_COLUMNS = 1024
_DEEPEST = 50


def checked_state(state: Any) -> dict[str, Any]:
    """The state as a dict.

    Raises:
        ConfigError: it is none.

    >>> checked_state({"streampipe": 1, "tier": "planned", "epoch": -1})
    Traceback (most recent call last):
        ...
    streampipe.errors.ConfigError: this is no state of streampipe: its epoch is -1; load what state_dict() gave
    """
    if not isinstance(state, Mapping):
        raise _wrong(f"it is {type(state).__name__}, not a dict")
    found = dict(state)
    if not _is_number(found.get("epoch")) or found["epoch"] > _LAST_EPOCH:
        raise _wrong(f"its epoch is {found.get('epoch')!r}")
    if not _is_number(found.get("taken", 0)):
        raise _wrong(f"its taken is {found['taken']!r}")
    if found.get("tier") == "planned":
        _check_planned(found)
    elif found.get("tier") == "sequential":
        _check_sequential(found)
    elif found.get("tier") != "new":
        raise _wrong(f"its tier is {found.get('tier')!r}")
    return found


def _check_planned(state: Mapping[str, Any]) -> None:
    if not _is_number(state.get("step")):
        raise _wrong(f"its step is {state.get('step')!r}")
    until, lanes, worker = state.get("until", "not there"), state.get("lanes"), state.get("worker")
    if until is not None and not (_is_number(until) and int(state["epoch"]) <= until <= _LAST_EPOCH):
        raise _wrong(f"its until is {until!r}, at epoch {state['epoch']}")
    _check_lanes(lanes)
    batch = state.get("batch")
    for each in batch if _is_list(batch) and "buckets" in state else [batch]:
        _check_batch(each)
    if not (state.get("window") is None or _is_number(state["window"])):
        raise _wrong(f"its window is {state['window']!r}")
    if state.get("begun") is not None:
        _check_begun(state["begun"], state)
    if worker is not None and not (_are_numbers(worker, 2) and worker[0] < worker[1]):
        raise _wrong(f"its worker is {worker!r}")


def _check_lanes(lanes: Any) -> None:
    if not _are_numbers(lanes, 2) or not (lanes[0] >= 1 and 1 <= lanes[1] <= _MOST_COLUMNS):
        raise _wrong(f"its lanes are {lanes!r}")


def _check_batch(batch: Any) -> None:
    if not _is_number(batch) or batch < 1:
        raise _wrong(f"its batch is {batch!r}")


def _check_begun(begun: Any, state: Mapping[str, Any]) -> None:
    """Where an epoch was begun with another batch."""
    fault = _wrong(f"its begun is {begun!r:.80}, at step {state['step']} of epoch {state['epoch']}")
    if not isinstance(begun, Mapping):
        raise fault
    draws, steps, samples = begun.get("draws"), begun.get("steps"), state.get("samples")
    if "buckets" in state:  # of each bucket so many draws; later epochs go on from there too
        if not _is_list(draws) or not _are_numbers(draws, len(draws)):
            raise fault
        if not _are_numbers(at := [begun.get(name) for name in ("turn", "epoch", "steps")], 3):
            raise fault
        if not (at[0] <= at[1] <= at[0] + 1 and (at[1], at[2]) <= (state["epoch"], state["step"])):
            raise fault
        return
    _check_lanes(begun.get("lanes"))
    _check_batch(begun.get("batch"))
    if not (_is_number(draws) and _is_number(steps) and _is_number(samples) and _is_number(begun.get("window"))):
        raise fault
    if not (0 < draws < samples and 0 < steps <= state["step"]):  # a step of it was taken, but not all its samples
        raise fault


def _check_sequential(state: Mapping[str, Any]) -> None:
    rank, lanes, turn = state.get("rank"), state.get("lanes"), state.get("turn")
    if not _are_numbers(rank, 2) or not rank[0] < rank[1]:
        raise _wrong(f"its rank is {rank!r}")
    if not _is_list(lanes) or not lanes or not all(map(_is_list, lanes)):
        raise _wrong("its lanes are no lists")
    if not _is_number(turn) or turn >= len(lanes):
        raise _wrong(f"its turn is {turn!r}, of {len(lanes)} workers")
    for lane in (lane for of_worker in lanes for lane in of_worker):
        if not _is_list(lane) or len(lane) != 6 or not _are_numbers(lane[:5], 5) or not _is_mark(lane[5], _DEEPEST):
            raise _wrong(f"one of its lanes is {lane!r:.80}")
        if lane[0] >= lane[1] or lane[2] >= lane[3]:
            raise _wrong(f"one of its lanes is of rank {lane[0]} of {lane[1]}, worker {lane[2]} of {lane[3]}")


def _wrong(what: str) -> ConfigError:
    return ConfigError(f"this is no state of streampipe: {what}; load what state_dict() gave")


def _is_number(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < _MOST


def _is_list(value: Any) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _are_numbers(values: Any, count: int) -> TypeGuard[Sequence[int]]:
    return _is_list(values) and len(values) == count and all(map(_is_number, values))


def _is_mark(value: Any, depth: int) -> bool:
    """Numbers and other marks; None: the beginning."""
    if value is None:
        return True
    if not _is_list(value) or not value or depth == 0:
        return False
    return all(_is_number(each) or _is_mark(each, depth - 1) for each in value)
