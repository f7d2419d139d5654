"""The threads of a process that fetch: as many as allowed, gone when idle; and a budget of bytes that blocks nobody."""

import os
import threading
import time

import pytest

import streampipe as sp
from streampipe.source import Network, Source
from streampipe.source import traffic as module
from streampipe.source.ranges import Part
from streampipe.source.traffic import Traffic, traffic_of
from streampipe.testing import FaultServer
from streampipe.unwanted import Stop
from tests.source.conftest import until


def threads():
    return sum(thread.name == "streampipe-network" for thread in threading.enumerate())


def test_work_runs_at_once_in_no_more_threads_than_allowed():
    traffic = Traffic(Network(requests=4))
    running, most, lock = 0, 0, threading.Lock()

    def work(number):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1
        return number

    futures = [traffic.submit(lambda i=i: work(i)) for i in range(20)]
    assert [future.result(10) for future in futures] == list(range(20))
    assert most == 4


def test_errors_are_raised_where_the_result_is_wanted_and_cancelled_work_never_runs():
    traffic = Traffic(Network(requests=1))
    gate = threading.Event()
    first = traffic.submit(lambda: gate.wait(10))
    second = traffic.submit(lambda: pytest.fail("it was cancelled"))
    third = traffic.submit(lambda: 1 / 0)
    assert second.cancel()
    gate.set()
    assert first.result(10)
    with pytest.raises(ZeroDivisionError):
        third.result(10)


def no_threads(monkeypatch):
    def start(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)


def test_where_no_thread_can_be_started_it_says_so_and_works_once_one_can(monkeypatch):
    traffic = Traffic(Network(requests=4))
    with monkeypatch.context() as patch:
        no_threads(patch)
        for _ in range(8):
            with pytest.raises(sp.SourceError, match=r"no thread can be started .*can't start new thread.*ulimit -u"):
                traffic.submit(lambda: pytest.fail("it was refused"))
    assert [traffic.submit(lambda i=i: i).result(10) for i in range(4)] == [0, 1, 2, 3]


def test_where_no_further_thread_can_be_started_those_that_there_are_do_the_work(monkeypatch):
    traffic, gate = Traffic(Network(requests=4)), threading.Event()
    first = traffic.submit(lambda: gate.wait(10))
    with monkeypatch.context() as patch:
        no_threads(patch)
        others = [traffic.submit(lambda i=i: i) for i in range(8)]
    gate.set()
    assert first.result(10)
    assert [other.result(10) for other in others] == list(range(8))
    until(lambda: traffic._idle == 1)
    assert traffic._threads == 1


def test_bytes_that_could_not_be_asked_for_are_given_back(monkeypatch):
    with FaultServer({"a.tar": bytes(100_000)}) as server:
        source = Source(network=Network(patience=1234.0))
        url, coming = server.url("a.tar"), source.ranges(server.url("a.tar"), Stop())
        with monkeypatch.context() as patch:
            no_threads(patch)
            for _ in range(2):
                with pytest.raises(sp.SourceError):
                    list(source.chunks(url))
                with pytest.raises(sp.SourceError):
                    coming.ask([Part(0, 10)])
        assert source.traffic._taken == 0
        assert b"".join(source.chunks(url)) == bytes(100_000)


def test_idle_threads_end_and_come_back(monkeypatch):
    monkeypatch.setattr(module, "_IDLE", 0.05)
    before = threads()
    traffic = Traffic(Network(requests=4))
    for _ in range(3):
        for future in [traffic.submit(lambda: time.sleep(0.01)) for _ in range(8)]:
            future.result(10)
        until(lambda: threads() == before and traffic._threads == 0)
        assert traffic._idle == 0


def test_the_budget_refuses_what_is_ahead_and_never_what_is_needed():
    traffic = Traffic(Network(memory=100))
    assert traffic.take(60)
    assert not traffic.take(60)
    assert traffic.take(60, needed=True)
    traffic.give_back(60)
    assert traffic.take(40)
    assert traffic._peak == 120


def test_all_sources_of_a_process_share_one_traffic():
    assert traffic_of(Network(window=7)) is traffic_of(Network(window=7))
    assert traffic_of(Network(window=7)) is not traffic_of(Network(window=8))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_a_traffic_of_its_own():
    traffic = traffic_of(Network(window=7))
    traffic.submit(lambda: None).result(10)
    child = os.fork()
    if not child:
        try:
            mine = traffic_of(Network(window=7))
            os._exit(0 if mine is not traffic and mine.submit(lambda: 5).result(10) == 5 else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_windows_of_shuffles_leave_less_to_reading_ahead_and_are_told_of_once_where_they_are_too_large(caplog):
    traffic = Traffic(Network(memory=1 << 20))
    traffic.stream(1)
    assert traffic.share == 1 << 19
    traffic.hold(3 << 18)
    assert traffic.share == 1 << 17
    assert not traffic.take(1 << 19)
    assert not caplog.messages
    for _ in range(2):
        traffic.hold(1 << 19)
    assert len(caplog.messages) == 1
    assert "memory=1 << 20" in caplog.text
    traffic.hold(-(7 << 18))
    assert traffic.take(1 << 19)


def test_the_more_streams_there_are_the_smaller_their_windows():
    traffic = Traffic(Network(memory=64 << 20))
    traffic.stream(384)
    assert traffic.share == (64 << 20) // 768
    traffic.stream(10_000)
    assert traffic.share == 64 << 10


def test_lanes_that_will_come_have_their_share_of_the_memory_from_the_beginning():
    traffic = Traffic(Network(memory=64 << 20))
    with traffic.lanes(16, windows=32 << 20):
        traffic.stream(1)
        assert traffic.share == 1 << 20
        assert traffic.buffers.most == 32 << 20
        assert traffic.take_ahead(1 << 20, needed=False, own=1 << 20)
        assert not traffic.take_ahead(1 << 20, needed=False, own=2 << 20)
        assert traffic.take_ahead(1 << 20, needed=True, own=2 << 20)
        traffic.hold(48 << 20)
        assert traffic.share == 1 << 19
        traffic.hold(-48 << 20)
    assert traffic.share == 32 << 20
    assert traffic.buffers.most == 64 << 20
