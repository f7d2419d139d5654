"""Parts of an object: each as soon as it is there, in memory that the reader's own thread has allocated."""

import os
import signal
import threading
import tracemalloc

import pytest

from streampipe.source import Network
from streampipe.source import ranges as module
from streampipe.source.ranges import Part, Ranges
from streampipe.source.store import Pin
from streampipe.source.traffic import Traffic
from streampipe.source.web import web
from tests.source.conftest import DATA, QUICK


def test_parts_are_exactly_their_bytes(server):
    ranges = Ranges(web({}, QUICK), server.url("a.tar"), QUICK, Traffic(QUICK), {}, threading.Event())
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
    ranges = Ranges(web({}, network), server.url("a.tar"), network, Never(network), {}, threading.Event())
    tracemalloc.start()
    try:
        ranges.ask([Part(0, 400_000), Part(400_000, 700_000)])
        assert tracemalloc.get_traced_memory()[0] > 700_000
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_while_another_thread_agrees_on_a_version_does_not_block_the_child(server):
    """Workers are forked while the parent may have requests on the way."""
    with module._lock:
        child = os.fork()
        if not child:
            try:
                signal.alarm(5)
                ranges = Ranges(web({}, QUICK), server.url("a.tar"), QUICK, Traffic(QUICK), {}, threading.Event())
                ranges._agree(Pin(1))
                os._exit(0 if ranges.size == 1 else 1)
            finally:
                os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
