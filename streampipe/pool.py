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

from streampipe.errors import ConfigError


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


def refused(what: str, error: RuntimeError) -> str:
    """The sentence where no thread could be started to do something with."""
    return (
        f"no thread can be started to {what} with ({error}); let this user have more processes (ulimit -u), or read "
        f"with fewer workers and threads"
    )


class Pool(ThreadPoolExecutor):
    """A pool of threads for generators: closed, they wait for the calls that run; collected, they do not.

    Where no further thread can be started, those that there are do the work.
    """

    def _adjust_thread_count(self) -> None:
        try:
            super()._adjust_thread_count()
        except RuntimeError as error:
            if not self._threads:
                raise ConfigError(refused("work", error)) from error

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the threads."""
        super().shutdown(wait and not is_collecting(), cancel_futures=cancel_futures)
