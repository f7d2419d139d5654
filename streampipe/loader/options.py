"""Options of torch's DataLoader that mean nothing to a loader: refused, with what does the same here."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from streampipe.errors import ConfigError
from streampipe.spelling import meant

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


def check_options(options: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse the options of torch's DataLoader that have their place elsewhere, and those that nobody knows.

    Raises:
        ConfigError: it says where.
    """
    for option in options:
        advice = _ELSEWHERE.get(option)
        if advice is not None:
            raise ConfigError(f"loader has no {option}=: the pipeline decides; {advice}")
        raise ConfigError(f"loader has no {option}={meant('loader', [option], known)}; help(sp.Loader) lists them")


def refuse_of_workers(persistent: bool, timeout: float, context: Any, init: Any) -> None:
    """Refuse options of worker processes where there are none: nobody would notice that they mean nothing."""
    said = {
        "persistent_workers": persistent,
        "timeout": timeout > 0,
        "multiprocessing_context": context is not None,
        "worker_init_fn": init is not None,
    }
    for name in (name for name, is_said in said.items() if is_said):
        raise ConfigError(
            f"loader: {name}= needs num_workers=1 or more: it is of worker processes, and there are none; leave it out"
        )
