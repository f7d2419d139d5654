"""Trainers that ask a loader for what would be wrong in their hands. A loader is told nothing of them, so it looks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from streampipe.errors import ConfigError

_LIGHTNING = ("lightning.pytorch.", "pytorch_lightning.")


def refuse_reading_ahead(length: Callable[[], int]) -> None:
    """Refuse a state to who has taken one batch more than it has handed on, because the loader has no length.

    Raises:
        ConfigError: Lightning asks for it, in mid-pass.
    """
    if _caller("utilities.combined_loader") is None:
        return
    try:
        length()
    except TypeError as error:
        raise ConfigError(
            f"Lightning reads one batch ahead of a loader without a length, so this state would stand one batch too "
            f"far: give loader(steps_per_epoch=n), or keep checkpoints at the end of epochs ({error})"
        ) from None


def lost_state() -> ConfigError | None:
    """The error of a pass that begins anew though there is a state for it; None where all is well.

    It is Lightning that resumes from a checkpoint of an epoch's end, of which it restores no loader. What is raised
    while it begins the pass it loses, so the pass must raise this at its first batch.
    """
    loop = _caller("loops.fit_loop", "setup_data")
    if loop is not None and getattr(loop, "_combined_loader_states_to_load", None):
        return ConfigError(
            "Lightning restores no loader from a checkpoint that was written at an epoch's end, so the first epoch's "
            "order would come again: give the Trainer streampipe.compat.lightning.LoaderModule(lambda: "
            "pipe.loader(...)), which does; or load_state_dict what the checkpoint has under loops, fit_loop, "
            "state_dict, combined_loader"
        )
    return None


def reads_ahead(length: Callable[[], int]) -> str:
    """Who begins a pass and takes a batch more than it hands on; empty where nobody does. torchdata's loader, in
    whoever's hands, keeps the states of the batches itself.
    """
    found = ""
    frame: Any = sys._getframe(1)
    while frame is not None:
        name = str(frame.f_globals.get("__name__"))
        if name.startswith("torchdata."):
            return ""
        if name == "accelerate.data_loader":
            found = "Accelerate"
        elif name.startswith(_LIGHTNING) and name.endswith("utilities.combined_loader") and not _has(length):
            found = "Lightning"
        frame = frame.f_back
    return found


def _has(length: Callable[[], int]) -> bool:
    try:
        length()
    except TypeError:
        return False
    return True


def _caller(module: str, method: str = "") -> Any:
    """The object of a module of Lightning's whose method is running, or None. (A comprehension's frame has no self.)"""
    frame: Any = sys._getframe(2)
    while frame is not None:
        name = str(frame.f_globals.get("__name__"))
        if name.startswith(_LIGHTNING) and name.endswith(module) and method in ("", frame.f_code.co_name):
            found = frame.f_locals.get("self")
            if found is not None:
                return found
        frame = frame.f_back
    return None
