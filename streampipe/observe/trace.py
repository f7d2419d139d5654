"""Spans of time, kept for a timeline: what which thread of which process did when."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

_MOST = 200_000
_Own = tuple[str, str, float, float, float, str]
"""A span of this process without that: a tuple is made in a third of the time."""


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
    >>> trace.add("MainThread", "decode", 1.0, 0.5, 0.5, "0001")
    >>> [(span.name, span.seconds, span.key) for span in trace.take()]
    [('decode', 0.5, '0001')]
    """

    def __init__(self, process: str) -> None:
        self.process = process
        self._own: deque[_Own] = deque(maxlen=_MOST)
        self._others: deque[Span] = deque(maxlen=_MOST)

    def add(self, thread: str, name: str, began: float, seconds: float, own: float, key: str = "") -> None:
        """One more span."""
        self._own.append((thread, name, began, seconds, own, key))

    def take(self) -> list[Span]:
        """The spans, and forget them: what a worker sends."""
        spans = []
        while self._others:
            spans.append(self._others.popleft())
        while self._own:
            spans.append(Span(self.process, *self._own.popleft()))
        return spans

    def merge(self, spans: Iterable[Span]) -> None:
        """Add those of another process."""
        self._others.extend(spans)

    @property
    def spans(self) -> list[Span]:
        """A copy of them all, by when they began."""
        own = (Span(self.process, *each) for each in self._own.copy())
        return sorted((*self._others.copy(), *own), key=lambda span: span.began)[-_MOST:]
