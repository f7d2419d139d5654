import streampipe as sp
from streampipe.counters import Counters, counters
from streampipe.report import render


def test_nothing_counted_is_said():
    assert render({}) == "nothing was counted yet"


def test_everything_that_was_counted_is_shown():
    counts = Counters()
    counts.add("fetch", "calls", 4)
    counts.add("fetch", "seconds", 2)
    counts.add("fetch", "retries")
    counts.add("skipped", "DecodeError", 3)
    text = render(counts.snapshot())
    assert "4 calls, 2.00 s, 500.00 ms each, 1 retries" in text
    assert "3 DecodeError" in text


def test_the_step_is_set_against_the_wait_for_data():
    counters.take()

    @sp.timed(step=True)
    def train(batch):
        return batch

    for batch in sp.from_iterable([1, 2, 3]).batch(1).loader():
        train(batch)
    text = sp.from_iterable([1]).report()
    assert "waiting for data:" in text
    assert "% of each step" in text


def test_counts_of_several_processes_add_up():
    parent, worker = Counters(), Counters()
    parent.add("f", "calls", 2)
    worker.add("f", "calls", 3)
    parent.merge(worker.take())
    assert parent.get("f", "calls") == 5
    assert worker.snapshot() == {}
