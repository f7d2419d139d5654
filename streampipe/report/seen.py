"""What a loader's consumer saw, as values that can be sent and merged over ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter, time

from streampipe.counters import Counted, Counters
from streampipe.observe import Histogram, Trace

LOADER, DEVICE, DEVICE_LOOP = "loader", "device", "loop over the device's batches"


@dataclass
class Seen:
    """All that was counted, the waits for batches by size, and the seconds to the first batch of each pass; and what
    time it was when the clock of spans began, which is another one on each machine.
    """

    counted: Counted
    waits: Histogram = field(default_factory=Histogram)
    first: list[float] = field(default_factory=list)
    clock: float = field(default_factory=lambda: time() - perf_counter())


def merged(every: Sequence[Seen]) -> Seen:
    """What several ranks saw, as one."""
    counters, waits = Counters(Trace("all ranks")), Histogram()
    for rank, each in enumerate(every):
        for span in each.counted.spans if len(every) > 1 else ():
            assert counters.trace is not None
            began = span.began + (each.clock - every[0].clock)
            counters.trace.merge([span._replace(process=f"rank {rank}, {span.process}", began=began)])
        each.counted.spans = each.counted.spans if len(every) == 1 else []
        counters.merge(each.counted)
        waits.merge(each.waits)
    return Seen(counters.counted(), waits, [first for each in every for first in each.first])


def on_device(seen: Seen) -> Seen:
    """The same from where a training loop stands whose batches come through a device: it waits for the device, and the
    device for the loader.

    ``seen`` has the loop's own waits, and what the loader counted too.
    """
    sums = dict(seen.counted.sums)
    loaders = {what: sums.pop((name, what)) for name, what in list(sums) if name == LOADER}
    loops = {what: sums.pop((name, what)) for name, what in list(sums) if name == DEVICE_LOOP}
    sums |= {(LOADER, what): amount for what, amount in loops.items()}
    sums[DEVICE, "waiting seconds"] = loaders.get("wait seconds", 0.0)
    return replace(seen, counted=replace(seen.counted, sums=sums))
