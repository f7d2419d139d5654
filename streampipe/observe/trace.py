"""Spans of time, kept for a timeline: what which thread of which process did when."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

_MOST = 200_000


class Span(NamedTuple):
    """``seconds`` from ``began`` on, by the clock that all processes of a machine share (``time.perf_counter``).

    ``own`` is the part that was not spent in what it called.
    """

    process: str
    thread: str
    name: str
    began: float
    seconds: float
    own: float
    key: str


class Trace:
    """The newest spans of a process, and in a loader's parent those of its workers.

    >>> trace = Trace("loader")
    >>> trace.add("decode", 1.0, 0.5, 0.5, "0001")
    >>> [(span.name, span.seconds, span.key) for span in trace.take()]
    [('decode', 0.5, '0001')]
    """

    def __init__(self, process: str) -> None:
        self.process = process
        self._spans: deque[Span] = deque(maxlen=_MOST)

    def add(self, name: str, began: float, seconds: float, own: float, key: str = "", thread: str = "") -> None:
        """One more span, of this thread if no other is named."""
        thread = thread or threading.current_thread().name
        self._spans.append(Span(self.process, thread, name, began, seconds, own, key))

    def take(self) -> list[Span]:
        """The spans, and forget them: what a worker sends."""
        spans = []
        while self._spans:
            spans.append(self._spans.popleft())
        return spans

    def merge(self, spans: Iterable[Span]) -> None:
        """Add those of another process."""
        self._spans.extend(spans)

    @property
    def spans(self) -> list[Span]:
        """A copy of them all, by when they began."""
        return sorted(self._spans.copy(), key=lambda span: span.began)
