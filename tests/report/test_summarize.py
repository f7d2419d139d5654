"""From counts to numbers: what was seen of some items only tells what all of them took."""

import pytest

from streampipe.counters import Counted, Took
from streampipe.observe import Histogram
from streampipe.report.seen import Seen
from streampipe.report.summarize import summarize
from streampipe.report.summary import READING, Facts, StageFacts

READER = "making batches"


def seen(sums, took=None, **more):
    return Seen(Counted(sums, took=took or {}), **more)


def loaders(**sums):
    return {("loader", name.replace("_", " ")): amount for name, amount in sums.items()}


def test_waits_for_the_network_are_told_as_they_were_though_few_items_were_timed():
    """100 items take 10 s, of which 9 s are waits; the 10 that were timed took 0.1 s, and none of them waited."""
    sums = loaders(batches=100, samples=100, wait_seconds=10.0) | {
        (READER, "busy seconds"): 10.0,
        (READER, "own seconds"): 0.1,
        (READER, "network seconds"): 9.0,
        (READER, "timed network seconds"): 0.0,
        (READING, "own seconds"): 0.08,
        (READING, "samples out"): 100,
        ("batch", "own seconds"): 0.02,
        ("batch", "waiting seconds"): 0.08,
        ("network", "bytes"): 10**6,
    }
    found = summarize(seen(sums), Facts((StageFacts("batch"),), threads=1, remote=True))
    reading, batch = found.stages
    assert reading.own_seconds == pytest.approx(9.8)
    assert batch.own_seconds == pytest.approx(0.2)
    assert batch.waiting_seconds == pytest.approx(9.8)
    assert found.limit == "network"


def test_waits_in_items_that_were_timed_are_not_counted_twice():
    sums = loaders(batches=100, samples=100, wait_seconds=10.0) | {
        (READER, "busy seconds"): 10.0,
        (READER, "own seconds"): 5.0,
        (READER, "network seconds"): 8.0,
        (READER, "timed network seconds"): 4.0,
        (READING, "own seconds"): 4.5,
    }
    (reading,) = summarize(seen(sums), Facts(threads=1)).stages
    assert reading.own_seconds == pytest.approx(8 + 0.5 * 2)


def test_slow_calls_are_those_that_stand_out_and_not_all_that_were_held_up_a_little():
    times = Histogram()
    for seconds, number in ((0.001, 70), (0.006, 25), (0.4, 5)):
        for _ in range(number):
            times.add(seconds)
    sums = loaders(batches=10, samples=100, wait_seconds=3.0) | {
        (READER, "busy seconds"): 3.0,
        (READER, "own seconds"): 3.0,
        ("map(f)", "own seconds"): 2.3,
    }
    took = {("map(f)", "own"): Took(times, [])}
    found = summarize(seen(sums, took), Facts((StageFacts("map(f)", can_thread=True, python=True),)))
    assert found.stages[0].slow_calls == pytest.approx(0.05)
    assert found.stages[0].slow_times == pytest.approx(0.4 / (0.22 / 95), rel=0.1)
    assert "one call in 20 of map(f) takes" in found.verdict


def test_the_rate_is_that_of_a_pass_under_way():
    sums = loaders(batches=11, samples=110, wait_seconds=6.0, step_seconds=5.0)
    found = summarize(seen(sums, first=[5.0]), Facts(workers=2))
    assert found.rate == pytest.approx(100 / 6.0)  # ten batches behind the first one, without the wait for that


def test_ranks_have_their_cores_together():
    together = Facts(cores=4).of_ranks(3)
    assert (together.ranks, together.cores) == (3, 12)


def test_what_readers_could_make_is_told_by_the_items_that_were_measured():
    """Four threads make four batches each of ten samples, one in a second; of the first of each no time is taken."""
    sums = loaders(batches=16, samples=160, wait_seconds=4.0, step_seconds=0.4) | {
        (READER, "samples out"): 16,
        (READER, "samples in"): 12,
        (READER, "busy seconds"): 12.0,
        (READER, "own seconds"): 12.0,
        ("map(f)", "own seconds"): 12.0,
    }
    found = summarize(seen(sums), Facts((StageFacts("map(f)"),), threads=4, cores=64))
    assert (found.made, found.capacity) == (120.0, 40.0)
    assert "threads=17 would feed 170 samples/s" in found.verdict
