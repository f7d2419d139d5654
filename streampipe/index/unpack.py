"""Few threads of a process unpack what many fetch.

Arrow's allocator keeps a megabyte or more for each thread that ever used it. Indexes are fetched by as many threads as
there are requests on their way; were they unpacked there, a process had 100 MB more than it used.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TypeVar

from streampipe.pool import Pool

T = TypeVar("T")
_THREADS = 2
_NAME = "streampipe-unpack"
_pool: Pool | None = None
_lock = threading.Lock()


def unpack(function: Callable[[], T]) -> T:
    """What a function gives that makes much of few bytes, and waits for nothing.

    >>> unpack(lambda: 1 + 1)
    2
    """
    global _pool
    thread = threading.current_thread()
    if thread is threading.main_thread() or thread.name.startswith(_NAME):
        return function()
    with _lock:
        if _pool is None:
            _pool = Pool(_THREADS, _NAME)
        future = _pool.submit(function)
    return future.result()


def _forked() -> None:
    """In a forked child: the threads are not here, and the lock may be held by one of them."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
