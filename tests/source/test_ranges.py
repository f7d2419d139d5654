"""Parts of an object: each as soon as it is there, in memory that the reader's own thread has allocated."""

import gc
import os
import random
import signal
import threading

import pytest

from streampipe.source import versions as module
from streampipe.source.ranges import Answer, Part, Ranges
from streampipe.source.store import Pin
from streampipe.source.traffic import Traffic
from streampipe.source.versions import Version
from streampipe.source.web import web
from streampipe.testing import Cut, Reset
from tests.source.conftest import DATA, QUICK, bounded


def test_parts_are_exactly_their_bytes(server):
    ranges = Ranges(web({}, QUICK), Version(server.url("a.tar")), QUICK, Traffic(QUICK), threading.Event())
    parts = [Part(0, 1), Part(1, 70_000), Part(70_100, 70_100), Part(300_000, 600_000)]
    answer = ranges.ask(parts)
    assert [answer.part(number) for number in range(4)] == [DATA[start:end] for start, end in parts]
    assert len(server.requests) == 1


@pytest.mark.parametrize("seed", range(8))
def test_any_parts_are_exactly_their_bytes_wherever_the_connection_breaks(server, seed):
    rng, at, parts = random.Random(seed), 0, []
    most = rng.choice([50, 5_000, 200_000])
    while at < len(DATA) - most and len(parts) < 40:
        start = at + rng.choice([0, 0, rng.randrange(most)])  # mostly one behind the other
        at = min(len(DATA), start + rng.randrange(most))
        parts.append(Part(start, at))
    server.script("a.tar", *(rng.choice([None, Cut(rng.randrange(at)), Reset(rng.randrange(at))]) for _ in range(4)))
    ranges = Ranges(web({}, QUICK), Version(server.url("a.tar")), QUICK, Traffic(QUICK), threading.Event())
    answer = ranges.ask(parts)
    found = [bounded(answer.part, number) for number in range(len(parts))]
    assert all(each == DATA[part.start : part.end] for each, part in zip(found, parts, strict=True))


def test_parts_are_received_into_memory_that_was_used_before(server):
    traffic = Traffic(QUICK)
    ranges = Ranges(web({}, QUICK), Version(server.url("a.tar")), QUICK, traffic, threading.Event())
    places = set()
    for start in range(0, 600_000, 50_000):
        answer = ranges.ask([Part(start, start + 20_000), Part(start + 30_000, start + 50_000)])
        first, second = bounded(answer.part, 0), bounded(answer.part, 1)
        assert (first, second) == (DATA[start : start + 20_000], DATA[start + 30_000 : start + 50_000])
        places |= {first.obj.ctypes.data, second.obj.ctypes.data}
        answer.drop(0)
        answer.drop(1)
        del first, second
    assert len(places) < 8


def test_a_part_is_counted_for_itself_and_not_with_views_that_its_thread_still_has(server):
    """Without a GIL, CPython counts the views of one buffer without a lock: two threads may miscount them."""
    store, kept = web({}, QUICK), []

    class Keeping:
        def __getattr__(self, name):
            return getattr(store, name)

        def get_into(self, url, start, end, pin, memory):
            return store.get_into(url, start, end, pin, lambda at: kept.append(memory(at)) or kept[-1])

    parts = [Part(0, 20_000), Part(20_000, 400_000)]
    answer = Ranges(Keeping(), Version(server.url("a.tar")), QUICK, Traffic(QUICK), threading.Event()).ask(parts)
    found = [bounded(answer.part, number) for number in range(2)]
    assert found == [DATA[part.start : part.end] for part in parts]
    counts = {id(each) for views in kept for each in gc.get_referents(*views)}
    assert counts
    assert not counts & {id(each) for each in gc.get_referents(*found)}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_while_another_thread_agrees_on_a_version_does_not_block_the_child(server):
    """Workers are forked while the parent may have requests on the way."""
    with module._lock:
        child = os.fork()
        if not child:
            try:
                signal.alarm(5)
                ranges = Ranges(web({}, QUICK), Version(server.url("a.tar")), QUICK, Traffic(QUICK), threading.Event())
                ranges._version.agree(Pin(1))
                os._exit(0 if ranges.size == 1 else 1)
            finally:
                os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_parts_that_are_dropped_in_a_collection_amid_one_that_comes_do_not_wait_for_themselves(monkeypatch):
    """A reader that the garbage collector ends drops its parts, in whatever thread the collector begins."""
    answer, done = Answer(2), threading.Event()
    notify = answer._changed.notify_all

    class Ended:
        def __del__(self):
            answer.drop(1)

    def collecting():
        ended = Ended()
        ended.me = ended
        del ended
        gc.collect()
        notify()

    monkeypatch.setattr(answer._changed, "notify_all", collecting)
    answer._awaited = True
    threading.Thread(target=lambda: (answer.put(0, memoryview(b"a")), done.set()), daemon=True).start()
    assert done.wait(60)
    assert (answer.part(0), answer.part(1)) == (b"a", b"")
