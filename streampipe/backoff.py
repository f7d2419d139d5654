"""How long to wait before another try, for stores and for ``@sp.retry`` alike.

The pause is drawn evenly from nothing up to a bound that grows with each try ("full jitter"): many readers that a store
threw out at once do not come back at once.
https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/
"""

from __future__ import annotations

import random

_random = random.SystemRandom()  # pauses must differ between processes, and move nobody's seed


def pause(made: int, first_wait: float, longest_wait: float, factor: float = 2.0) -> float:
    """Seconds to wait after the ``made``-th try: up to ``first_wait * factor**(made - 1)``, at most ``longest_wait``.

    >>> pause(1, 0.0, 20.0)
    0.0
    """
    grown = first_wait * factor ** min(made - 1, 64)
    return _random.uniform(0, min(longest_wait, grown))
