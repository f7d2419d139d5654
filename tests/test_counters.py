import gc
import threading

from streampipe.counters import Counters, OfLoader, counters, work_for
from streampipe.observe import Histogram


def test_what_a_thread_counts_for_a_loader_is_the_loaders_and_the_processs():
    before = counters.get("here", "calls")
    mine, other = OfLoader(), OfLoader()
    mine.during(counters.add, "here", "calls", 2)
    assert mine.get("here", "calls") == 2
    assert other.get("here", "calls") == 0
    assert counters.get("here", "calls") == before + 2
    counters.add("here", "calls")
    assert mine.get("here", "calls") == 2


def test_loaders_that_work_in_two_threads_do_not_mix():
    loaders = [OfLoader(), OfLoader()]

    def work(loader, times):
        work_for(loader)
        for _ in range(times):
            counters.add("threads", "calls")
            counters.tally("threads").yielded += 1

    threads = [threading.Thread(target=work, args=(each, 100 + n)) for n, each in enumerate(loaders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each.get("threads", "calls") for each in loaders] == [100, 101]
    assert [each.get("threads", "samples out") for each in loaders] == [100, 101]


def test_the_processs_sum_has_what_a_loader_counted_that_is_gone():
    before = counters.get("gone", "samples out")
    loader = OfLoader()
    loader.tally("gone").yielded += 5
    del loader
    gc.collect()
    assert counters.get("gone", "samples out") == before + 5


def test_a_workers_counts_are_merged_once_into_loader_and_process():
    before = counters.get("merged", "calls")
    worker, loader = Counters(), OfLoader()
    worker.add("merged", "calls", 3, example="0001")
    loader.merge(worker.take())
    loader.merge(worker.take())
    assert loader.get("merged", "calls") == 3
    assert loader.counted().examples["merged", "calls"] == ["0001"]
    assert counters.get("merged", "calls") == before + 3


def test_of_many_examples_the_first_few_are_kept():
    counts = Counters()
    for number in range(50):
        counts.add("filter", "dropped", example=number)
    assert counts.counted().examples["filter", "dropped"] == ["0", "1", "2", "3", "4"]


def test_a_sum_that_is_asked_for_while_another_thread_folds_is_never_short():
    class Between(OfLoader):
        """Another thread begins to fold as soon as a sum may be read."""

        def fold(self):
            super().fold()
            if other is not None and not other.ident:
                other.start()
                inside.wait(0.1)

    class Slow:
        name = "slow"

        def new(self):
            if threading.current_thread() is other:
                inside.set()
                asked.wait(5)
            return {}

    inside, asked, other = threading.Event(), threading.Event(), None
    counts = Between()
    counts.add("here", "calls", 3)
    counts.fold()
    counts.with_part(Slow())
    other = threading.Thread(target=OfLoader.fold, args=(counts,))
    assert counts.get("here", "calls") == 3
    asked.set()
    other.join()


def test_a_duration_that_is_added_while_another_thread_folds_is_counted():
    class Midst(Histogram):
        def add(self, seconds):
            counts.fold()
            super().add(seconds)

    counts = Counters()
    tally = counts.tally("decode")
    tally.durations = Midst()
    for seconds, key in (0.5, "a"), (0.25, "b"):
        tally.called(0.0, seconds, 0.0, key)
    took = counts.counted().took["decode", "calls"]
    assert took.durations.number == 2
    assert [slow.key for slow in took.slowest] == ["a", "b"]
