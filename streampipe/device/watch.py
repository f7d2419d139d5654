"""What happens between a loader and a device: how long the training loop waits, what decoding and copying take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from threading import current_thread
from time import perf_counter

from streampipe.loader import Loader
from streampipe.loader.recorder import Recorder
from streampipe.report import Facts, Seen, on_device
from streampipe.report.seen import DEVICE, DEVICE_LOOP


class Watch:
    """Of one device's loader, for its whole life. What it counts goes to the loader's counters."""

    def __init__(self, loader: Loader, device: str, prefetch: int) -> None:
        self._loader, self._device, self._prefetch = loader, device, prefetch
        counts = loader._recorder.counts
        self.counts = counts
        self.loop = Recorder(False, counts, DEVICE_LOOP)  # used by the thread that iterates
        self.opening, self.making = (_Thread(counts.meter(DEVICE), loader) for _ in range(2))

    def seen(self) -> Seen:
        """What was seen, from where the training loop stands."""
        return on_device(self._loader._with_told(self.loop.seen()))

    def facts(self) -> Facts:
        """How it runs."""
        return replace(self._loader._facts(), device=self._device, prefetch=self._prefetch)


class _Thread:
    """The times of one of the two threads that work for the device."""

    def __init__(self, sums: dict[str, float], loader: Loader) -> None:
        self._sums, self._trace = sums, loader._recorder.counts.trace

    @contextmanager
    def time(self, what: str) -> Iterator[None]:
        """What happens inside is counted under this name."""
        began = perf_counter()
        try:
            yield
        finally:
            seconds = perf_counter() - began
            self._sums[f"{what} seconds"] += seconds
            if self._trace is not None:
                self._trace.add(current_thread().name, f"{what} on the device", began, seconds, seconds)
