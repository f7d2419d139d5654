"""Parts of an object: each as soon as it is there, in memory that the reader's own thread has allocated."""

import threading
import tracemalloc

from streampipe.source import Network
from streampipe.source.http import HttpStore
from streampipe.source.ranges import Part, Ranges
from streampipe.source.traffic import Traffic
from tests.source.conftest import DATA, QUICK


def test_parts_are_exactly_their_bytes(server):
    ranges = Ranges(HttpStore(QUICK), server.url("a.tar"), QUICK, Traffic(QUICK), {}, threading.Event())
    parts = [Part(0, 1), Part(1, 70_000), Part(70_100, 70_100), Part(300_000, 600_000)]
    answer = ranges.ask(parts)
    assert [answer.part(number) for number in range(4)] == [DATA[start:end] for start, end in parts]
    assert len(server.requests) == 1


def test_memory_is_allocated_by_whoever_asks_not_by_the_threads_that_fetch(server):
    """Allocated in one thread's heap and freed by another, it was cut up: half as much again as the budget was used."""

    class Never(Traffic):
        def submit(self, function, first=False):
            self.held = function

    network = Network()
    ranges = Ranges(HttpStore(network), server.url("a.tar"), network, Never(network), {}, threading.Event())
    tracemalloc.start()
    try:
        ranges.ask([Part(0, 400_000), Part(400_000, 700_000)])
        assert tracemalloc.get_traced_memory()[0] > 700_000
    finally:
        tracemalloc.stop()
