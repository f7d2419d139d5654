import time

import pytest

from streampipe.counters import Counters
from streampipe.stages.guard import watched


def slow(items, seconds):
    for item in items:
        time.sleep(seconds)
        yield item


def test_own_time_is_apart_from_the_time_of_what_is_pulled():
    counts = Counters()
    inner, outer = counts.tally("inner"), counts.tally("outer")
    inner.stack.on = True
    samples = [{"__key__": str(n)} for n in range(5)]
    for _ in watched(slow(watched(slow(samples, 0.02), inner), 0.004), outer):
        pass
    sums = counts.snapshot()
    assert sums["inner", "own seconds"] >= 5 * 0.02
    assert sums["outer", "own seconds"] >= 5 * 0.004
    assert sums["outer", "waiting seconds"] == pytest.approx(sums["inner", "own seconds"], rel=0.05)
    assert sums["outer", "samples out"] == 5


def test_without_times_samples_are_counted_still():
    counts = Counters()
    assert len(list(watched([{}] * 3, counts.tally("decode")))) == 3
    assert counts.snapshot() == {("decode", "samples out"): 3}


def test_the_slowest_are_known_by_their_keys():
    counts = Counters()
    counts.tally("reading").stack.on = True

    def one_slow():
        for number in range(20):
            time.sleep(0.05 if number == 7 else 0.0005)
            yield {"__key__": f"{number:04d}"}

    list(watched(one_slow(), counts.tally("reading")))
    assert counts.counted().took["reading", "own"].slowest[0].key == "0007"


def test_what_is_taken_is_taken_once():
    counts = Counters()
    tally = counts.tally("decode")
    tally.yielded += 3
    assert counts.take().sums == {("decode", "samples out"): 3}
    tally.yielded += 2
    assert counts.take().sums == {("decode", "samples out"): 2}
    assert counts.take().sums == {}
