"""Threads that a garbage collection does not wait for.

The collector ends abandoned generators and runs finalizers wherever it happens to begin: also in a thread that holds a
lock of ``threading`` itself, as each does while it starts. ``Thread.join`` takes the same locks, so a finalizer that
waits for a thread would wait for ever. What the collector ends is told to stop, and not waited for.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any


class _State(threading.local):
    on = False


_state = _State()


def _told(phase: str, info: Mapping[str, Any]) -> None:
    _state.on = phase == "start"


gc.callbacks.append(_told)


def is_collecting() -> bool:
    """Whether the garbage collector runs in this thread, so that what is called now is a finalizer.

    >>> is_collecting()
    False
    """
    return _state.on


class Pool(ThreadPoolExecutor):
    """A pool of threads for generators: closed, they wait for the calls that run; collected, they do not."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the threads."""
        super().shutdown(wait and not is_collecting(), cancel_futures=cancel_futures)
