"""What a loader's consumer saw, as values that can be sent and merged over ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from streampipe.counters import Counted, Counters
from streampipe.observe import Histogram, Trace


@dataclass
class Seen:
    """All that was counted, the waits for batches by size, and the seconds to the first batch of each pass."""

    counted: Counted
    waits: Histogram = field(default_factory=Histogram)
    first: list[float] = field(default_factory=list)


def merged(every: Sequence[Seen]) -> Seen:
    """What several ranks saw, as one."""
    counters, waits = Counters(Trace("all ranks")), Histogram()
    for rank, each in enumerate(every):
        for span in each.counted.spans if len(every) > 1 else ():
            assert counters.trace is not None
            counters.trace.merge([span._replace(process=f"rank {rank}, {span.process}")])
        each.counted.spans = each.counted.spans if len(every) == 1 else []
        counters.merge(each.counted)
        waits.merge(each.waits)
    return Seen(counters.counted(), waits, [first for each in every for first in each.first])
