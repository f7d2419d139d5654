"""How many bytes a reader may ask for before their turn.

Bytes that come with a request before their turn save requests later, and cost time of the link now. What they cost must
not be time for which somebody waits. So they are bought with what lies ready: as many may be on their way as a share of
the bytes that came in the order of need and were not used yet. Where that store grows, the link has more to give than
is taken, and requests grow; where it is empty, only what is needed next is asked for.

Each byte that is early saves its sample a request, whichever byte it is; what it costs is the time until it is used. So
those come first that are due soon: a request reaches over neighbours within so many steps that the room is just used.

Who takes all he can get never has such a store, and waits most of the time whatever comes first. For him early bytes
grow by a fifth of what he uses, until requests are as long as can be: who only makes good what he missed at first looks
the same, and must not starve for it. At the beginning, as long as nobody knows, a part of a second is risked.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from streampipe.counters import network_wait
from streampipe.reading.wanted import Wanted
from streampipe.source.link import Link
from streampipe.source.ranges import Answer

_SHARE = 0.5  # of what lies ready
_RISKED = 0.2  # seconds of the link, at the beginning
_LEAST = 2 << 20  # bytes, as long as its rate is not known
_GAIN = 0.2  # of what such a reader uses: by so much what waits for its turn may grow
_GREEDY = 0.9  # of the time is waited for
_SPAN = 10.0  # seconds over which a reader is judged, and so many latencies at least
_LATENCIES = 50
_FIRST = 0.3  # of the steps that are known: what a request may reach to, as soon as there is not room for all
_LESS, _MORE = 0.98, 1.02  # times that, with each request that found no room, or that had room left
_now = time.perf_counter


class Pace:
    """One reader's way of taking steps, and what lies ready for it."""

    def __init__(self) -> None:
        self.greedy = False  # it takes all it can get
        self._held = 0.0  # bytes that may be had before their turn, on their way or not, where all is taken that comes
        self._new = True  # it was not judged yet
        self._begun: float | None = None  # when what is judged began
        self._waited = 0.0  # seconds since then
        self._asked: deque[Wanted] = deque()  # in the order of need, from the first on that is not ready
        self._ready = 0  # bytes that came in the order of need
        self._coming: deque[tuple[Answer, int, int]] = deque()  # answers, their last part, what of them is early
        self._early = 0  # bytes of those
        self.reach = math.inf  # steps within which bytes must be used that come before their turn
        self._short = False  # it is the pace, not the memory, that is short

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count how long reading has to wait."""
        start = _now()
        try:
            with network_wait():
                yield
        finally:
            self._waited += _now() - start

    def step(self, link: Link) -> None:
        """A step was given out. Who waited most of the time, though what he needs next came first, takes all he can."""
        now = _now()
        if self._begun is None:
            self._begun, self._waited = now, 0.0
        elif now - self._begun > max(_SPAN, _LATENCIES * link.latency):
            self.greedy = self._waited > _GREEDY * (now - self._begun)
            self._begun, self._waited, self._new = now, 0.0, False
            if not self.greedy:
                self._held = 0.0

    def asked(self, wanted: Wanted) -> None:
        """A sample's turn came. What was not asked for, such as one of a shard that is kept, says nothing of the link:
        it would only be held here, and its shard with it.
        """
        if wanted.answer is not None:
            self._asked.append(wanted)

    def asked_early(self, answer: Answer, last: int, size: int) -> None:
        """So many bytes of an answer were asked for before their turn; the last of them is part ``last``."""
        if size:
            self._coming.append((answer, last, size))
            self._early += size

    def given(self, wanted: Wanted) -> None:
        """A sample was used."""
        if self.greedy:
            self._held += _GAIN * (wanted.span.end - wanted.span.start)
        if wanted.ready:
            wanted.ready = False
            self._ready -= wanted.span.end - wanted.span.start
        self._look()

    def _look(self) -> None:
        """What came by now, in the order of need. What was used is let go."""
        while self._coming and self._coming[0][0].ready(self._coming[0][1]):
            self._early -= self._coming.popleft()[2]
        while self._asked and _is_ready(self._asked[0]):
            wanted = self._asked.popleft()
            if not wanted.given:
                wanted.ready = True
                self._ready += wanted.span.end - wanted.span.start

    def room(self, link: Link, memory: int, early: int) -> int:
        """Bytes that may be asked for before their turn now, of those that there is memory for.

        Args:
            early: bytes that were, and whose turn has not come.
        """
        self._short = False
        self._look()
        risked = max(int(_RISKED * link.rate), _LEAST) if self._new else 0
        allowed = max(int(_SHARE * self._ready), risked) - self._early
        if self.greedy:
            self._held = max(self._held, early)
            allowed = max(allowed, int(self._held) - early)
        self._short = allowed < memory
        return min(allowed, memory)

    def ended(self, full: bool, late: bool, known: int) -> None:
        """A request ended at a neighbour for which there was no room (``full``), or one that is due too ``late``.

        Args:
            known: how many steps are known.
        """
        if full and self._short:
            self.reach = _LESS * (_FIRST * known if self.reach == math.inf else self.reach)
        elif late and not full:
            self.reach *= _MORE


def _is_ready(wanted: Wanted) -> bool:
    return wanted.given or wanted.answer is None or wanted.answer.ready(wanted.number)
