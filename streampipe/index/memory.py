"""The user's own folder of what is remembered between runs: scans of local shards, answers about datasets."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from streampipe.atomic import sweep
from streampipe.source import planted

log = logging.getLogger("streampipe")
_swept: set[str] = set()
"""Folders in which this process has deleted what killed ones left."""


def memory(what: str = "index") -> str:
    """The folder of what is remembered: under ``STREAMPIPE_CACHE``, else in the user's cache folder."""
    given = os.environ.get("STREAMPIPE_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(given or os.path.join(base, "streampipe"), what)


def own_folder(folder: str, ours: Callable[[str], bool], lost: str) -> str | None:
    """A folder of remembered files, made if it is not there; None if it is not this user's alone to write to.

    ``ours`` names the files that are kept there; ``lost`` says for a warning what is not kept then.
    """
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        why = planted(os.stat(folder))
    except OSError as error:
        why = f"cannot be made ({error})"
    if why:
        log.warning("%s %s: %s", folder, why, lost)
        return None
    if folder not in _swept:
        _swept.add(folder)
        sweep(folder, ours)
    return folder
