"""Results in the order of the items, errors where they belong, and no process left behind."""

import os
import signal
import time

import pytest

import streampipe as sp
from streampipe.processes import ordered


def square(number, tell):
    tell(number)
    return number * number


def slowest_first(number, tell):
    time.sleep(0.2 if number == 0 else 0)
    return number, os.getpid()


def odd(number, tell):
    if number == 3:
        raise sp.PackError("3 is odd")
    if number == 5:
        raise ZeroDivisionError("5")
    return number


def die(number, tell):
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def forever(number, tell):
    tell(os.getpid())
    time.sleep(1000)


def run(function, items, workers, context=None):
    told = []
    return list(ordered(function, items, workers, tell=told.append, context=context)), told


@pytest.mark.parametrize(("workers", "context"), [(0, None), (2, "fork"), (3, "spawn"), (2, "forkserver")])
def test_results_come_in_the_order_of_the_items_and_progress_is_told(workers, context):
    results, told = run(square, range(20), workers, context)
    assert results == [number * number for number in range(20)]
    assert sum(told) == sum(range(20))


def test_a_slow_first_piece_holds_nobody_up_but_what_is_made_ahead_is_bounded():
    pulled = []

    def items():
        for number in range(40):
            pulled.append(number)
            yield number

    results = ordered(slowest_first, items(), 2, tell=print, context="fork")
    assert next(results)[0] == 0
    assert len(pulled) <= 6
    assert [number for number, _ in results] == list(range(1, 40))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_comes_where_its_result_would_have_come(workers):
    results = ordered(odd, range(9), workers, tell=print, context="fork")
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(sp.PackError, match="3 is odd"):
        next(results)


def test_a_foreign_error_says_what_it_was():
    with pytest.raises(sp.PackError, match="ZeroDivisionError: 5"):
        run(odd, [5], 1, "fork")


def test_a_killed_worker_is_an_error_at_once():
    with pytest.raises(sp.PackError, match=r"status -9 \(killed, or out of memory\)"):
        run(die, range(9), 2, "fork")


def test_what_cannot_be_handed_over_is_an_error_that_says_so():
    with pytest.raises(sp.ConfigError, match="cannot be handed to a worker process"):
        run(lambda number, tell: number, [1], 1, "spawn")


def test_workers_are_gone_when_the_results_are_not_wanted_any_more():
    pids = []
    results = ordered(forever, range(2), 2, tell=pids.append, context="fork")
    with pytest.raises(KeyboardInterrupt):
        _interrupted(results, pids)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def _interrupted(results, pids):
    """As Ctrl-C does it: an exception in the parent while it waits for its workers."""

    def interrupt(*_):
        if len(pids) < 2:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
        else:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        next(results)
    finally:
        signal.signal(signal.SIGALRM, before)
        results.close()
