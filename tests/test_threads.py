"""Calls in threads: in order, bounded, and a slow one holds up no other."""

import threading

import pytest

from streampipe.context import Run
from streampipe.threads import ordered


def pulled(upto):
    """Numbers, and a list of those that were asked for."""
    asked = []

    def numbers():
        for i in range(upto):
            asked.append(i)
            yield i

    return asked, numbers()


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_are_in_order(threads):
    assert list(ordered(lambda x: x * x, range(100), threads)) == [x * x for x in range(100)]


def begun_behind_a_slow_one(threads, size=1, **options):
    """How many of 1000 calls are begun while the first one waits."""
    let_go, done = threading.Event(), threading.Semaphore(0)

    def call(i):
        if i == 0:
            let_go.wait()
        done.release()
        return bytes(size)

    asked, items = pulled(1000)
    results = ordered(call, items, threads, **options)
    consumer = threading.Thread(target=lambda: next(results))
    consumer.start()
    try:
        while done.acquire(timeout=0.5):
            pass
        return len(asked)
    finally:
        let_go.set()
        consumer.join()
        assert sum(1 for _ in results) == 999


def test_while_one_is_slow_the_others_go_on_and_more_are_pulled_but_not_all():
    assert begun_behind_a_slow_one(3, run=Run()) == 8 * 3


def test_in_lanes_and_where_results_are_whole_files_no_more_are_held():
    assert begun_behind_a_slow_one(3) == begun_behind_a_slow_one(3, run=Run(in_lane=True)) == 2 * 3


def test_large_results_are_bounded_in_bytes(monkeypatch):
    monkeypatch.setattr("streampipe.threads._ROOM", 10_000)
    assert 2 * 3 < begun_behind_a_slow_one(3, size=1000, run=Run()) <= 14


def test_while_all_are_as_slow_no_more_are_pulled_than_twice_the_threads():
    threads, let_go, begun = 3, threading.Event(), threading.Semaphore(0)

    def call(i):
        begun.release()
        let_go.wait()
        return i

    asked, items = pulled(1000)
    results = ordered(call, items, threads)
    found = []
    consumer = threading.Thread(target=lambda: found.append(next(results)))
    consumer.start()
    for _ in range(threads):
        assert begun.acquire(timeout=60)
    assert len(asked) <= 2 * threads
    let_go.set()
    consumer.join()
    results.close()


def test_an_error_comes_where_its_result_would_have_come():
    def call(i):
        if i == 7:
            raise ValueError("seven")
        return i

    results = ordered(call, range(20), 4)
    assert [next(results) for _ in range(7)] == list(range(7))
    with pytest.raises(ValueError, match="seven"):
        next(results)
