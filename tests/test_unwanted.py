"""A thread that waits for others gives up when nobody wants what it makes."""

import threading
from concurrent.futures import Future

import pytest

from streampipe.unwanted import Stop, Unwanted, asking, is_unwanted, pause, result, wait


def test_a_thread_that_was_told_nothing_waits_for_what_comes():
    future = Future()
    threading.Timer(0.05, future.set_result, ("there",)).start()
    assert result(future) == "there"
    assert not pause(threading.Event(), 0.01)
    assert not is_unwanted()()


def test_every_wait_ends_when_nothing_is_wanted_any_more():
    changed = threading.Condition()
    with asking(lambda: True):
        with changed, pytest.raises(Unwanted):
            wait(changed)
        with pytest.raises(Unwanted):
            result(Future())
        with pytest.raises(Unwanted):
            pause(Stop(), 1e6)
        done = Future()
        done.set_exception(TimeoutError("of a socket"))
        with pytest.raises(TimeoutError, match="of a socket"):  # what is there is given, whatever it is
            result(done)
    assert not is_unwanted()()


def test_it_is_asked_while_the_wait_lasts():
    asked = []

    def unwanted():
        asked.append(True)
        return len(asked) > 3

    with asking(unwanted), pytest.raises(Unwanted):
        pause(Stop(), 1e6)
    assert len(asked) == 4


def test_what_stops_a_pause_is_told():
    stop = Stop()
    with asking(lambda: False):
        threading.Timer(0.05, stop.set).start()
        assert pause(stop, 1e6)


def test_a_stop_is_told_to_all_who_wait_and_to_those_who_come_later():
    stop, seen = Stop(), []
    waiting = [threading.Thread(target=lambda: seen.append(stop.wait())) for _ in range(3)]
    for thread in waiting:
        thread.start()
    assert not stop.wait(0)
    stop.set()
    for thread in waiting:
        thread.join()
    assert seen == [True] * 3
    assert stop.wait(1e6)
