"""Worker processes end with the process that they work for, wherever they are and however they were started.

A worker that waits for a network, a lock or room in a pipe does not notice that nobody is there any more; it would live
on, hold memory and connections, and finish what nobody wants. So each has a thread that waits for its parent's end.

Strategy: multiprocessing gives every child a pipe that closes when its parent is gone, behind a fork server too. It is
waited for, which costs nothing. Forked workers that are started later inherit the writing end of that pipe, so a worker
started directly by its parent also looks, every second, whether it was handed to another parent. (The kernel's own
signal for this, ``PR_SET_PDEATHSIG``, goes by the thread that made the child, which may end long before the process.)
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing.connection import wait

from streampipe.errors import ConfigError
from streampipe.pool import refused

_LOOK = 1.0  # seconds between two looks at who the parent is
_watched = 0  # the process that has a thread; a fork does not take threads along


def end_with_parent() -> None:
    """End this worker process when its parent has died. Further calls in the same process do nothing.

    It ends at once, by ``os._exit``: nobody is left to give anything to, and files appear whole or not at all.

    Raises:
        ConfigError: the system gives it no thread.
    """
    global _watched
    if _watched == os.getpid():
        return
    try:
        threading.Thread(target=_watch, args=(os.getppid(),), name="streampipe-parent", daemon=True).start()
    except RuntimeError as error:
        raise ConfigError(refused("watch a worker's parent", error)) from error
    _watched = os.getpid()


def _watch(parent: int) -> None:
    made_for = multiprocessing.parent_process()
    direct = made_for is None or made_for.pid == parent  # else a fork server made us, and may end before our parent
    sentinels = [] if made_for is None else [made_for.sentinel]
    never = threading.Event()
    while not (direct and os.getppid() != parent):
        if not sentinels:
            never.wait(_LOOK)
        elif wait(sentinels, _LOOK):
            break
    os._exit(1)
