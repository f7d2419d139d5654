"""Locks of a process."""

from __future__ import annotations

import os
import threading
from typing import Any


class ProcessLock:
    """For what all threads of a process share: one for each module that needs it, made once.

    In a forked child it is a new one: a thread of the parent that is not here may have held it. A thread may take it
    again, because what the garbage collector ends in there may want it.

    >>> lock = ProcessLock()
    >>> with lock, lock:
    ...     pass
    """

    def __init__(self) -> None:
        self._renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._held = threading.RLock()

    def __enter__(self) -> None:
        self._held.acquire()

    def __exit__(self, *_: Any) -> None:
        self._held.release()
