"""Whether the threads of this process take turns at running Python."""

from __future__ import annotations

import sys


def has_gil() -> bool:
    """Whether they do. Not in free-threaded Python, unless it was told so or a module that needs it was imported.

    >>> isinstance(has_gil(), bool)
    True
    """
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())
