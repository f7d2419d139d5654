"""Threads of a loader: each makes whole batches, in its turn, as a worker does, and nothing else changes."""

import itertools
import json
import os
import subprocess
import sys
import threading
from functools import partial

import pytest
import torch

import streampipe as sp
from streampipe.loader.ahead import Ahead, in_turn
from streampipe.loader.feed import Crew, crew_of
from tests.data import write_shards
from tests.laws import engine_of
from tests.levels import COUNTS, rows, samples, write_levels

THREADS = (1, 2, 3, 5)


@pytest.fixture(scope="module")
def levels(tmp_path_factory):
    """The shards of every level."""
    folder = tmp_path_factory.mktemp("levels")
    write_levels(folder)
    return folder


CELLS = [("indexed", "each"), ("indexed", "opaque"), ("counted", "filter"), ("streamed", "each"), ("opened", "split")]


@pytest.mark.parametrize(("level", "chain"), CELLS)
@pytest.mark.parametrize("shuffle", [5, False])
def test_any_number_of_threads_gives_the_same_batches_and_goes_on_from_any_of_them(levels, level, chain, shuffle):
    def make(threads):
        return samples(level, chain, levels, shuffle=shuffle).batch(4).loader(threads=threads)

    whole = [rows(batch) for batch in make(0)]
    assert len(whole) >= 8
    for threads in THREADS:
        assert [rows(batch) for batch in make(threads)] == whole
    for step, (before, after) in itertools.product((1, 4, 7), ((2, 0), (0, 3), (3, 2))):
        loader = make(before)
        running = iter(loader)
        for _ in range(step):
            next(running)
        state = json.loads(json.dumps(loader.state_dict()))
        resumed = make(after)
        resumed.load_state_dict(state)
        assert [rows(batch) for batch in resumed] == whole[step:]
        running.close()


def test_each_thread_makes_whole_batches_in_its_turn(tmp_path):
    write_shards(tmp_path, [12, 12])
    pipe = sp.stream(tmp_path).map(lambda sample: {**sample, "thread": threading.get_ident()}).batch(4).map(who)
    makers = [{batch["ident"], *batch["thread"].tolist()} for batch in pipe.loader(threads=2)]
    assert makers == [makers[0], makers[1]] * 3
    assert len(makers[0]) == len(makers[1]) == 1
    assert len({threading.get_ident(), *makers[0], *makers[1]}) == 3


def who(batch):
    batch["ident"] = threading.get_ident()
    return batch


def test_consumers_are_as_many_as_leave_the_order_alone(levels):
    def crew(level, chain, workers, threads, **options):
        engine = engine_of(samples(level, chain, levels, **options).batch(4), 1, workers)
        return crew_of(engine, 0, 1, workers, threads)

    assert crew("indexed", "each", 0, 7) == Crew(0, 7, 0)
    assert crew("indexed", "each", 3, 5) == Crew(3, 5, 0)
    assert crew("indexed", "each", 3, 0) == Crew(3, 0, 0)
    assert crew("indexed", "each", 0, 1) == Crew(0, 1, 0)
    assert crew("streamed", "each", 0, 4, shuffle=False) == Crew(0, 1, 4)
    columns = engine_of(samples("streamed", "each", levels).batch(4)).work.shape.columns
    for workers, threads in itertools.product((0, 1, 2, 3), (1, 2, 3, 4, 8)):
        found = crew("streamed", "each", workers, threads)
        assert columns % found.consumers == 0
        assert found.threads * max(1, found.inner) <= threads


def test_torch_computes_in_one_thread_where_others_make_batches_and_as_before_elsewhere(tmp_path):
    write_shards(tmp_path, [6, 6])
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        pipe = sp.stream(tmp_path).map(lambda sample: {**sample, "n": torch.get_num_threads()}).batch(3)
        assert {n for batch in pipe.loader(threads=2) for n in batch["n"].tolist()} == {1}
        found = []
        other = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        other.start()
        other.join()
        assert (torch.get_num_threads(), found) == (3, [3])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("options", [{}, {"threads": 2}, {"num_workers": 2}])
@pytest.mark.parametrize("level", ["indexed", "streamed"])
def test_a_filter_that_drops_everything_is_an_error_whoever_filters(levels, level, options):
    pipe = sp.stream(levels / level, shuffle=5).filter(never).batch(4)
    with pytest.raises(sp.StageError, match=rf"stage 'filter\(never\)' dropped every one of {sum(COUNTS)} samples"):
        list(pipe.loader(**options))


def never(sample):
    return False


def refuse_threads(worker, name):
    start = threading.Thread.start

    def refused(self):
        if self.name.startswith(name):
            raise RuntimeError("can't start new thread")
        start(self)

    threading.Thread.start = refused


@pytest.mark.parametrize(("name", "what"), [("streampipe-parent", "watch a"), ("streampipe-ahead", "make batches")])
def test_a_worker_that_is_given_no_thread_says_so_in_a_sentence(levels, name, what):
    loader = (
        sp.stream(levels / "indexed")
        .batch(4)
        .loader(num_workers=1, threads=2, worker_init_fn=partial(refuse_threads, name=name))
    )
    with pytest.raises(sp.ConfigError, match=f"^no thread can be started to {what}.*ulimit -u"):
        list(loader)


def counted(number, closed):
    try:
        yield from range(number)
        raise ValueError("boom")
    finally:
        closed.append(number)


def test_errors_come_in_their_turn_and_every_stream_is_closed():
    closed, got = [], []
    with pytest.raises(ValueError, match="boom"):
        for item in in_turn([counted(3, closed), counted(5, closed)], 1):
            got.append(item)
    assert got == [0, 0, 1, 1, 2, 2]
    assert sorted(closed) == [3, 5]


@pytest.mark.parametrize("taken", [0, 1, 4])
def test_a_stream_that_is_left_ends_its_threads_at_once(taken):
    before, closed = threading.active_count(), []
    running = in_turn([counted(10**9, closed), counted(10**9, closed)], 2)
    for _ in range(taken):
        next(running)
    running.close()
    assert threading.active_count() <= before  # another test's may have ended meanwhile
    assert len(closed) == (2 if taken else 0)


def test_a_thread_ends_with_what_holds_it():
    closed = []
    made = Ahead(counted(10**9, closed), 2)
    assert next(made) == 0
    del made
    assert closed == [10**9]


def test_a_fork_waits_for_no_thread_of_its_parent():
    made = Ahead(counted(10**9, []), 2)
    child = os.fork()
    if not child:
        made.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert next(made) == 0


LEFT_OPEN = """
import itertools, streampipe as sp
loader = sp.from_iterable([{"n": i} for i in range(10_000)], epochs=None).batch(2).loader(threads=2)
batches = iter(loader)
print(next(batches)["n"].tolist())
"""


def test_a_process_ends_while_a_pass_is_open():
    result = subprocess.run([sys.executable, "-c", LEFT_OPEN], capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout.strip(), result.stderr) == (0, "[0, 1]", "")


INTERRUPTED_OFTEN = """
import os, signal, threading
import streampipe as sp

signal.signal(signal.SIGINT, signal.default_int_handler)
for number in range(100):
    batches = iter(sp.from_iterable([{"n": i} for i in range(100)], epochs=None).batch(2).loader(threads=2))
    next(batches)
    try:
        threading.Timer(number / 5000, os.kill, (os.getpid(), signal.SIGINT)).start()
        for _ in batches:
            pass
    except KeyboardInterrupt:
        del batches
"""


def test_an_interrupt_at_any_moment_is_only_an_interrupt():
    command = [sys.executable, "-c", INTERRUPTED_OFTEN]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (result.returncode, result.stderr) == (0, "")
