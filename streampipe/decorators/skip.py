"""``SKIP``: what a function returns in place of a value to drop its sample."""

from __future__ import annotations


class _Skip:
    """A single object, also after it was pickled."""

    def __reduce__(self) -> str:
        return "SKIP"

    def __repr__(self) -> str:
        return "SKIP"


SKIP = _Skip()
