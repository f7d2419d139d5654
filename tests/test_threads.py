"""Calls in threads: in order, bounded, and a slow one holds up no other."""

import threading

import pytest

from streampipe.context import Run
from streampipe.threads import end_shared, ordered


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
    run = Run(in_lane=True)
    assert begun_behind_a_slow_one(3) == begun_behind_a_slow_one(3, run=run) == 2 * 3
    end_shared(run)


def test_all_lanes_of_a_reader_have_the_same_threads_and_one_that_is_left_ends_those_of_no_other():
    run, used = Run(stage="map", in_lane=True), set()

    def call(i):
        used.add(threading.current_thread())
        return i

    lanes = [ordered(call, range(50), 2, run=run) for _ in range(8)]
    assert [next(lane) for lane in lanes] == [0] * 8
    lanes[0].close()
    assert [list(lane) for lane in lanes[1:]] == [list(range(1, 50))] * 7
    assert len(used) <= 2
    end_shared(run)
    assert not any(thread.is_alive() for thread in used)


def test_a_lane_that_is_left_waits_for_its_calls_and_begins_no_more():
    run, begun, let_go = Run(in_lane=True), [], threading.Event()
    entered = threading.Event()

    def call(i):
        begun.append(i)
        if i == 1:
            entered.set()
            let_go.wait()
        return i

    lane = ordered(call, range(50), 1, run=run, ahead=4)
    assert next(lane) == 0
    entered.wait()
    threading.Timer(0.05, let_go.set).start()
    lane.close()
    assert let_go.is_set()
    assert begun == [0, 1]
    end_shared(run)


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
