"""The options of a loader, checked; and those of a DataLoader of torch's that mean nothing to it, refused."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from math import inf
from typing import Any

from streampipe.errors import ConfigError
from streampipe.spelling import meant
from streampipe.stages.values import TAILS, check_choice, check_flag, check_function, check_kind, check_number

_ELSEWHERE = {
    "batch_size": "put batch(n) at its end",
    "shuffle": "give sp.stream(..., shuffle=True)",
    "drop_last": "give batch(n, tail='drop'), or loader(tail='drop')",
    "collate_fn": "put map(fn) behind batch(n)",
    "prefetch_factor": "give loader(prefetch=n)",
    "sampler": "give sp.stream(..., shuffle=True); the order is a function of seed and epoch",
    "batch_sampler": "put batch(n) at its end, behind bucket(...) for batches of like images",
    "generator": "give sp.stream(..., seed=n): every order and random choice follows from it",
    "in_order": "batches always come in their order; a slow sample holds up its own batch alone",
    "pin_memory_device": "give pin_memory=True",
    "dataset": "it is the pipeline itself",
}
"""Options of torch's DataLoader, and what does the same here."""


def refuse_unknown(options: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse the options of torch's DataLoader that have their place elsewhere, and those that nobody knows.

    Raises:
        ConfigError: it says where.
    """
    for option in options:
        advice = _ELSEWHERE.get(option)
        if advice is not None:
            raise ConfigError(f"loader has no {option}=: the pipeline decides; {advice}")
        raise ConfigError(f"loader has no {option}={meant('loader', [option], known)}; help(sp.Loader) lists them")


def check_options(given: Mapping[str, Any]) -> None:
    """Refuse values that are of a wrong kind or out of bounds, and options that do not go together.

    Raises:
        ConfigError: it names the first, with its value.
    """
    for name, least in (("num_workers", 0), ("threads", 0), ("prefetch", 1), ("callback_every", 1)):
        check_number("loader", name, given[name], least)
    check_number("loader", "steps_per_epoch", given["steps_per_epoch"], 1, optional=True)
    check_choice("loader", "tail", given["tail"], (None, *TAILS))
    check_choice("loader", "state_of", given["state_of"], ("rank", "job"))
    check_choice("loader", "progress", given["progress"], (None, "line", "table"))
    check_kind("loader", "log", given["log"], (str, os.PathLike), "a folder")
    for name in ("auto", "fixed_epoch", "pin_memory", "trace", "persistent_workers"):
        check_flag("loader", name, given[name])
    check_function("loader", "worker_init_fn", given["worker_init_fn"], optional=True)
    timeout = given["timeout"]
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 <= timeout < inf:
        raise ConfigError(f"loader: timeout is seconds, 0 (none) or more, not {timeout!r}")
    if given["auto"] and (given["num_workers"] or given["threads"]):
        raise ConfigError("auto=True chooses num_workers and threads; leave them out, or leave out auto")
    if not given["num_workers"] and not given["auto"]:
        _refuse_of_workers(given)


def _refuse_of_workers(given: Mapping[str, Any]) -> None:
    """Refuse options of worker processes where there are none: nobody would notice that they mean nothing."""
    said = {
        "persistent_workers": given["persistent_workers"],
        "timeout": given["timeout"] > 0,
        "multiprocessing_context": given["multiprocessing_context"] is not None,
        "worker_init_fn": given["worker_init_fn"] is not None,
    }
    for name in (name for name, is_said in said.items() if is_said):
        raise ConfigError(
            f"loader: {name}= needs num_workers=1 or more: it is of worker processes, and there are none; leave it out"
        )
