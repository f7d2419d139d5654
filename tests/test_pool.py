"""Nothing waits in a garbage collection, and little is left for one."""

import gc
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import streampipe as sp
from streampipe.loader.ahead import Ahead
from streampipe.pool import Pool, is_collecting
from streampipe.threads import ordered
from tests.data import write_shards


class Circle:
    """Holds what it is given until the garbage collector comes."""

    def __init__(self, held):
        self.held, self.me = held, self


def collected(made):
    """Whether a collection that ends what is made (with it: what a call waits for) returns while the call runs."""
    begun, let_go, done = threading.Event(), threading.Event(), threading.Event()

    def call(item):
        if item == 1:
            begun.set()
            let_go.wait()
        return item

    Circle(made(call))
    begun.wait()
    thread = threading.Thread(target=lambda: (gc.collect(), done.set()))
    thread.start()
    try:
        return done.wait(60)
    finally:
        let_go.set()
        thread.join()


def began(items):
    next(items)
    return items


def test_the_collector_does_not_wait_for_the_calls_of_an_abandoned_generator():
    assert collected(lambda call: began(ordered(call, range(10), threads=2)))


def test_the_collector_does_not_wait_for_what_is_made_ahead():
    assert collected(lambda call: began(Ahead(map(call, range(10)), 2)))


def test_the_end_of_a_pool_waits_for_its_calls():
    let_go, done = threading.Event(), []
    with Pool(1) as pool:
        pool.submit(lambda: (let_go.wait(), done.append(1)))
        let_go.set()
    assert done == [1]


def test_a_collection_is_known_in_its_thread():
    seen = []

    class Told(Circle):
        def __del__(self):
            seen.append(is_collecting())

    Told(None)
    gc.collect()
    assert seen == [True]
    assert not is_collecting()


LEFT = """
import gc
import os
import types
from itertools import islice

import streampipe
from streampipe.context import Consumer
from tests.engine.test_lanes import CHAINS, Memory
from tests.laws import run

def alive():
    found = [each for each in gc.get_objects() if type(each) is types.GeneratorType and each.gi_frame]
    return [each.__qualname__ for each in found if each.gi_code.co_filename.startswith(ours)]

ours = os.path.dirname(streampipe.__file__)
gc.disable()
for chain, make in CHAINS.items():
    for items in (1, None):
        for _ in islice(run(make(Memory([5, 5, 5]).stream(shuffle=3, epochs=1)), Consumer(), 0), items):
            pass
        if alive():
            print(chain, items, alive())
            gc.collect()
"""


def test_streams_that_are_left_end_without_the_collector():
    """In a process of its own: what other tests left alive is not asked about."""
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", LEFT], cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def refuse_threads(monkeypatch):
    def start(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)


REFUSED = r"^no thread can be started to .* with \(can't start new thread\); let this user have more processes \(ulimit"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("where", ["loader", "stage", "plan"])
def test_where_no_thread_can_be_started_one_sentence_says_so(tmp_path, monkeypatch, where):
    write_shards(tmp_path, [4, 4])
    threads = 2 if where == "stage" else 0
    pipe = sp.stream(str(tmp_path), shuffle=where == "plan").map(len, "txt", threads=threads).batch(2)
    loader = pipe.loader(threads=2 if where == "loader" else 0)
    with monkeypatch.context() as patch:
        refuse_threads(patch)
        with pytest.raises(sp.ConfigError, match=REFUSED):
            list(loader)
        gc.collect()
    assert len(list(loader)) == 4


def test_where_no_further_thread_can_be_started_those_of_the_pool_do_the_work(monkeypatch):
    let_go = threading.Event()
    with Pool(2) as pool:
        first = pool.submit(let_go.wait)
        with monkeypatch.context() as patch:
            refuse_threads(patch)
            second = pool.submit(int)
        let_go.set()
        assert (first.result(60), second.result(60)) == (True, 0)
