"""What a saved state must look like. It comes from a file: kinds and bounds are checked before a number of it is used.

Whether it fits this dataset and pipeline is for the engine to say that goes on with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from streampipe.engine.engine import Level
from streampipe.errors import ConfigError

VERSION = 2
_MOST = 1 << 53  # beyond it JSON's numbers are not exact everywhere
_LAST_EPOCH = 1 << 30
_MOST_LANES = 1 << 20
_DEEPEST = 50
_FRACTION = re.compile(r"-?[0-9]{1,2000}(/[1-9][0-9]{0,1999})?")


def checked_state(state: Any) -> dict[str, Any]:
    """The state as a dict.

    Raises:
        ConfigError: it is none.

    >>> checked_state({"streampipe": 2, "kind": "planned", "epoch": -1})
    Traceback (most recent call last):
        ...
    streampipe.errors.ConfigError: this is no state of streampipe: its epoch is -1; load what state_dict() gave
    """
    if not isinstance(state, Mapping):
        raise wrong(f"it is {type(state).__name__}, not a dict")
    found = dict(state)
    if found.get("streampipe") != VERSION:
        raise wrong(f"its version is {found.get('streampipe')!r}, this release reads {VERSION}")
    if not is_number(found.get("epoch")) or found["epoch"] > _LAST_EPOCH:
        raise wrong(f"its epoch is {found.get('epoch')!r}")
    if not is_number(found.get("batches", 0)):
        raise wrong(f"its number of batches is {found['batches']!r}")
    if not is_number(found.get("ranks", 1)) or found.get("ranks") == 0:
        raise wrong(f"its number of ranks is {found['ranks']!r}")
    if not is_number(found.get("workers", 0)):
        raise wrong(f"its number of workers is {found['workers']!r}")
    told = found.get("loader", {})
    if not isinstance(told, Mapping) or told.get("tail") not in (None, "short", "drop", "pad"):
        raise wrong(f"what its loader was told is {told!r:.80}")
    if found.get("kind") == "new":
        return found
    if not is_number(found.get("step")):
        raise wrong(f"its step is {found.get('step')!r}")
    for name in ("epochs", "steps"):
        if found.get(name) is not None and not (is_number(found[name]) and found[name] >= 1):
            raise wrong(f"its {name} is {found[name]!r}")
        found.setdefault(name, None)
    worker = found.get("worker")
    if worker is not None and not (are_numbers(worker, 2) and worker[0] < worker[1]):
        raise wrong(f"its worker is {worker!r}")
    if found.setdefault("level", None) not in (None, *(each.value for each in Level)):
        raise wrong(f"its level is {found['level']!r}")
    if found.get("kind") == "planned":
        _check_planned(found)
    elif found.get("kind") == "lanes":
        _check_lanes(found)
    else:
        raise wrong(f"its kind is {found.get('kind')!r}")
    return found


def _check_planned(state: Mapping[str, Any]) -> None:
    at, batch = state.get("at"), state.get("batch")
    if not are_numbers(at, 2) or at[0] > _LAST_EPOCH:
        raise wrong(f"its place is {at!r}")
    _check_shape(state.get("lanes"))
    for each in batch if is_list(batch) and "buckets" in state else [batch]:
        _check_batch(each)
    if not (state.get("window") is None or is_number(state["window"])):
        raise wrong(f"its window is {state['window']!r}")
    if state.get("begun") is not None:
        _check_begun(state["begun"], state)
    if "course" in state:
        _check_course(state["course"])
    if "parts" in state:
        _check_parts(state)


def _check_shape(lanes: Any) -> None:
    if not are_numbers(lanes, 2) or not 1 <= lanes[0] * lanes[1] <= _MOST_LANES:
        raise wrong(f"its lanes are {lanes!r}")


def _check_batch(batch: Any) -> None:
    if not is_number(batch) or batch < 1:
        raise wrong(f"its batch is {batch!r}")


def _check_begun(begun: Any, state: Mapping[str, Any]) -> None:
    """Where an epoch was begun with another batch."""
    epoch, step = state["at"]
    fault = wrong(f"its begun is {begun!r:.80}, at step {step} of epoch {epoch}")
    if not isinstance(begun, Mapping):
        raise fault
    draws, steps, samples = begun.get("draws"), begun.get("steps"), state.get("samples")
    if "buckets" in state:  # of each bucket so many draws; later epochs go on from there too
        if not is_list(draws) or not are_numbers(draws, len(draws)):
            raise fault
        if not are_numbers(at := [begun.get(name) for name in ("turn", "epoch", "steps")], 3):
            raise fault
        if not (at[0] <= at[1] <= at[0] + 1 and (at[1], at[2]) <= (epoch, step)):
            raise fault
        return
    _check_shape(begun.get("lanes"))
    _check_batch(begun.get("batch"))
    if not (is_number(draws) and is_number(steps) and is_number(samples) and is_number(begun.get("window"))):
        raise fault
    if not (0 < draws < samples and 0 < steps <= step):  # a step of it was taken, but not all its samples
        raise fault


def _check_parts(state: Mapping[str, Any]) -> None:
    """Where the parts of a mixture of batches stand, each as if it were alone."""
    if "course" not in state or not _is_fraction(state.get("steps_of_epoch")) or not is_list(state["parts"]):
        raise wrong(f"its parts are {state['parts']!r:.80}")
    for each in state["parts"]:
        if not isinstance(each, Mapping) or "parts" in each:
            raise wrong(f"a part of it is {each!r:.80}")
        _check_planned(each)


def _check_course(course: Any) -> None:
    """How a mixture's shares went, where they change."""
    if not isinstance(course, Mapping) or not isinstance(course.get("rates"), str):
        raise wrong(f"its course is {course!r:.80}")
    origin, changed = course.get("origin"), course.get("changed")
    legs = _listed(course, "legs")
    if not (origin is None or are_numbers(origin, 4)) or not (changed is None or is_number(changed)):
        raise wrong(f"its course was changed at {changed!r:.80}, {origin!r:.80}")
    before = -1
    for leg in legs or [{}]:
        if not _is_leg(leg, before):
            raise wrong(f"a leg of its course is {leg!r:.80}")
        before = leg["steps"][0]
    if len({len(leg["had"]) for leg in legs}) != 1:
        raise wrong("the legs of its course are of different numbers of parts")


def _is_leg(leg: Any, before: int) -> bool:
    """Whether it is steps behind ``before`` with what each part had, what was due to it, and its share."""
    steps, had, due, shares = (_listed(leg, name) for name in ("steps", "had", "due", "shares"))
    numbers = [leg.get("draw"), leg.get("batch")] if isinstance(leg, Mapping) else []
    if not (are_numbers(numbers, 2) and numbers[1] and len(steps) == 2 and are_numbers(had, len(had) or 1)):
        return False
    first, last = steps
    if not (is_number(first) and before < first and (last is None or (is_number(last) and last > first))):
        return False
    if not (len(had) == len(due) == len(shares) and sum(had) == numbers[0] and all(map(_is_fraction, due))):
        return False
    most = _DEEPEST if last is not None else 1  # nothing changes for ever
    return all(is_list(terms) and 0 < len(terms) <= most and all(map(_is_fraction, terms)) for terms in shares)


def _listed(found: Any, name: str) -> Sequence[Any]:
    """The list of that name; an empty one where there is none."""
    value = found.get(name) if isinstance(found, Mapping) else None
    return value if is_list(value) else ()


def _is_fraction(value: Any) -> bool:
    return isinstance(value, str) and _FRACTION.fullmatch(value) is not None


def _check_lanes(state: Mapping[str, Any]) -> None:
    rank, at = state.get("rank"), state.get("at")
    lanes: Any = state.get("lanes")
    if "rank" not in state or (rank is not None and not (are_numbers(rank, 2) and rank[0] < rank[1] <= _MOST_LANES)):
        raise wrong(f"its rank is {rank!r}")
    _check_shape(lanes)
    if not are_numbers(at, 2) or at[0] > _LAST_EPOCH:
        raise wrong(f"its place is {at!r}")
    turns = state.get("turns", ())
    if not is_list(turns) or not are_numbers(turns, len(turns)) or (turns and rank is not None):
        raise wrong(f"the turns of its ranks are {turns!r:.80}")
    if state.get("stream") is not None:
        _check_stream(state["stream"])
    standing = state.get("standing")
    if not isinstance(standing, Mapping):
        raise wrong("it does not say where its lanes stand")
    for lane, each in standing.items():
        if not (str(lane).isdecimal() and int(lane) < lanes[0] * lanes[1]):
            raise wrong(f"it has a lane {lane!r}, of {lanes[0] * lanes[1]}")
        if not is_list(each) or len(each) != 3 or not are_numbers(each[:2], 2) or not is_mark(each[2], _DEEPEST):
            raise wrong(f"lane {lane} stands at {each!r:.80}")


def _check_stream(numbers: Any) -> None:
    """What lanes were made with."""
    if not isinstance(numbers, Mapping) or not isinstance(numbers.get("together", False), bool):
        raise wrong(f"what its lanes were made with is {numbers!r:.80}")
    if not (numbers.get("window") is None or is_number(numbers["window"])):
        raise wrong(f"the window of its lanes is {numbers['window']!r:.80}")
    if "batch" in numbers:
        _check_batch(numbers["batch"])
        _check_shape(numbers.get("lanes"))


def was_learnt(state: Mapping[str, Any]) -> bool | None:
    """Whether an index was used where a state was saved; None where it does not say."""
    return None if state.get("level") is None else state["level"] != Level.STREAMED.value


def wrong(what: str) -> ConfigError:
    """The error for a state that is none."""
    return ConfigError(f"this is no state of streampipe: {what}; load what state_dict() gave")


def is_number(value: Any) -> TypeGuard[int]:
    """Whether it is a whole number from 0 on."""
    return type(value) is int and 0 <= value < _MOST


def is_list(value: Any) -> TypeGuard[Sequence[Any]]:
    """Whether it is a list."""
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def are_numbers(values: Any, number: int) -> TypeGuard[Sequence[int]]:
    """Whether it is a list of so many whole numbers."""
    return is_list(values) and len(values) == number and all(map(is_number, values))


def is_mark(value: Any, depth: int) -> bool:
    """Whether it is what stages and sources leave behind: numbers, texts, lists and dicts of them, not too deep."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return True
    if depth == 0:
        return False
    if isinstance(value, Mapping):
        return all(isinstance(name, str) and is_mark(each, depth - 1) for name, each in value.items())
    return is_list(value) and all(is_mark(each, depth - 1) for each in value)
