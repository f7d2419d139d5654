"""Which version of each object a process reads: all who read parts of it agree on one, from its first part on.

What is learnt of an object, such as where its samples begin, is kept with the ``Version`` that it is of, and its parts
are asked for of that one. So what was learnt of one version never meets bytes of another, whatever is asked for again.
They are let go when a pass begins, and never within one: a pass reads objects as they are then, kept ones too, and who
holds what is left of an old one has an error, and no bytes of the new one.
"""

from __future__ import annotations

import os
import threading

from streampipe.source.http import check_pin
from streampipe.source.store import Pin

_lock = threading.Lock()


def _forked() -> None:
    """In a forked child: the lock may have been held by a thread of the parent that is not here."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class Version:
    """One version of an object. ``pin`` is what is known of it, None before the first answer."""

    __slots__ = ("pin", "url")

    def __init__(self, url: str, pin: Pin | None = None) -> None:
        self.url = url
        self.pin = pin

    def agree(self, found: Pin) -> None:
        """An answer is of this version; what it says besides is known from here on.

        Raises:
            ShardChanged: it is of another one.
        """
        with _lock:
            known = self.pin or Pin()
            check_pin(self.url, known, found)
            self.pin = known.with_(found)


class Versions:
    """The version of each object that counts now, in a process."""

    def __init__(self) -> None:
        self._of: dict[str, Version] = {}

    def of(self, url: str) -> Version:
        """That of an object."""
        return self._of.get(url) or self._of.setdefault(url, Version(url))

    def __setitem__(self, url: str, pin: Pin) -> None:
        """This is the one that counts from now on."""
        self._of[url] = Version(url, pin)

    def begin(self) -> None:
        """A pass begins: all objects are read as they are now."""
        self._of = {}
