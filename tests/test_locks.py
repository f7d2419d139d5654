"""What threads of one process share and change: exact, however their steps fall among each other."""

import logging
import os
import threading
import time

import pytest

from streampipe.decorators.logged import Logged
from streampipe.locks import ProcessLock
from streampipe.policy import Budget, ErrorPolicy
from streampipe.source import Cache, Source
from streampipe.source import source as module


class Slow(int):
    """A number that another thread can read while this one adds to it, as without a GIL."""

    def __add__(self, more):
        time.sleep(0.005)
        return Slow(int(self) + more)


def in_threads(call, number=3):
    threads = [threading.Thread(target=call) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_calls_that_on_error_watches_in_threads_are_all_counted():
    policy, budget = ErrorPolicy(), Budget("f", 10)
    tally = policy._of(budget)
    tally.good = tally.bad = Slow(0)
    in_threads(lambda: policy.handled_well(budget))
    in_threads(lambda: policy.handled_error(ValueError("x"), budget))
    assert (tally.good, tally.bad) == (3, 3)


def test_of_calls_in_threads_each_so_many_th_is_logged(caplog):
    logged = Logged("f", logging.INFO, 3)
    logged.calls = Slow(0)
    with caplog.at_level(logging.INFO, "streampipe"):
        in_threads(lambda: logged.call(len, ("ab",), {}))
    assert len(caplog.records) == 1


def test_threads_that_begin_at_once_have_one_source(monkeypatch):
    """They agree on the versions of objects there."""
    both, found, source = threading.Barrier(2), [], Source()

    def waits_for_the_other(network):
        try:
            both.wait(0.1)
        except threading.BrokenBarrierError:
            pass
        return traffic_of(network)

    traffic_of = module.traffic_of
    monkeypatch.setattr(module, "traffic_of", waits_for_the_other)
    in_threads(lambda: found.append(source._live), 2)
    assert found[0] is found[1]


def test_a_copy_that_another_thread_lets_go_at_once_is_given_all_the_same(tmp_path, monkeypatch):
    class LetGo(dict):
        def __setitem__(self, key, value):
            pass

    monkeypatch.setattr(module, "Download", lambda *args: "a copy")
    source = Source(cache=Cache(tmp_path))
    source._live.downloads = LetGo()
    assert source.download("http://127.0.0.1:1/a.tar") == "a copy"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_in_a_forked_child_nobody_holds_it():
    lock, held, done = ProcessLock(), threading.Event(), threading.Event()

    def hold():
        with lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if not child:
        os._exit(0 if lock._held.acquire(timeout=5) else 1)
    done.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
