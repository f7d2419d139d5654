"""Calls in threads: in order, bounded, and a slow one holds up no other."""

import threading

import pytest

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


def test_while_one_is_slow_the_others_go_on_and_more_are_pulled_but_not_all():
    threads, let_go, done = 3, threading.Event(), threading.Semaphore(0)

    def call(i):
        if i == 0:
            let_go.wait()
        else:
            done.release()
        return i

    asked, items = pulled(1000)
    results = ordered(call, items, threads)
    found = []
    consumer = threading.Thread(target=lambda: found.append(next(results)))
    consumer.start()
    for _ in range(8 * threads - 1):  # all that may be taken but the slow one
        assert done.acquire(timeout=60)
    assert not done.acquire(timeout=0.05)
    let_go.set()
    consumer.join()
    assert found == [0]
    assert len(asked) == 8 * threads
    assert list(results) == list(range(1, 1000))


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
