import itertools
import logging
import multiprocessing
import pickle
import threading
import time

import numpy as np
import pytest
import torch

import streampipe as sp
from streampipe.counters import counters
from tests.decorators import functions

DECORATORS = {
    "timed": sp.timed,
    "logged": sp.logged,
    "cached": sp.cached,
    "retry": sp.retry(first_wait=0),
    "on_error": sp.on_error("skip"),
}
ORDERS = [*itertools.permutations(DECORATORS, 2), *itertools.permutations(DECORATORS, 3)]


@pytest.fixture(autouse=True)
def _clean():
    counters.take()


@pytest.mark.parametrize("order", ORDERS)
def test_decorators_compose_in_any_order_on_functions(order):
    fn = functions.plain
    for name in order:
        fn = DECORATORS[name](fn)
    assert (fn(4), fn(4)) == (8, 8)
    assert (fn.__name__, fn.__doc__, fn.__wrapped__ is not None) == ("plain", "Doubles.", True)
    copy = pickle.loads(pickle.dumps(fn))
    assert copy(3) == 6


@pytest.mark.parametrize("order", ORDERS)
def test_decorators_compose_in_any_order_on_stages(order):
    for target in (functions.bare, functions.bare(by=1)):
        decorated = target
        for name in order:
            decorated = DECORATORS[name](decorated)
        stage = decorated(by=1) if target is functions.bare else decorated
        assert list(stage([1, 2])) == [2, 3]
        assert repr(stage) == "bare(by=1)"
        assert list(pickle.loads(pickle.dumps(stage))([5])) == [6]
        assert list(sp.from_iterable([1, 2]).apply(stage)) == [2, 3]


@pytest.mark.parametrize("name", ["timed_only", "stacked", "grow", "inner"])
def test_decorated_names_of_a_module_are_pickled_by_name(name):
    original = getattr(functions, name)
    assert pickle.loads(pickle.dumps(original)) is original


def test_decorated_functions_reach_spawned_processes():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(functions.stacked, [1, 2]) == [2, 4]
        assert pool.map(sp.timed(functions.plain), [3]) == [6]


def test_decorators_work_on_methods():
    class Model:
        factor = 3

        @sp.timed
        @sp.on_error("default", value=0)
        def step(self, value):
            return self.factor * value

    assert Model().step(2) == 6
    assert Model().step(None) == 0
    assert any(name.endswith("Model.step") and what == "calls" for name, what in counters.snapshot())


def test_what_is_no_function_is_refused():
    with pytest.raises(sp.ConfigError, match="function or a stage"):
        sp.timed(3)


# timed


def test_timed_counts_calls_and_seconds_also_of_failures():
    @sp.timed(name="work")
    def work(fail):
        time.sleep(0.01)
        return 1 / fail

    work(1)
    with pytest.raises(ZeroDivisionError):
        work(0)
    assert counters.get("work", "calls") == 2
    assert counters.get("work", "seconds") >= 0.02


def test_a_timed_stage_counts_its_own_time_not_its_sources():
    @sp.timed(name="quick")
    @sp.stage
    def quick(samples):
        yield from samples

    def source():
        for i in range(3):
            time.sleep(0.05)
            yield i

    for _ in quick(source()):
        time.sleep(0.02)
    assert counters.get("quick", "calls") == 3
    assert counters.get("quick", "seconds") < 0.03


# logged


def test_logged_shows_samples_by_key_and_never_bytes(caplog):
    @sp.logged(name="look", every=2)
    def look(sample, extra):
        return b"x" * 100

    with caplog.at_level(logging.INFO, "streampipe"):
        for i in range(4):
            look({"__key__": f"k{i}", "jpg": b"secret"}, b"bytes")
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == 2
    assert texts[0].startswith("look(sample 'k0', 5 bytes) gave 100 bytes in")


def test_logged_reports_errors_always(caplog):
    @sp.logged(every=1000)
    def fails(x):
        raise ValueError("no")

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            fails(1)
    assert len(caplog.records) == 2


# retry


def test_retry_waits_longer_and_longer_then_raises_the_error_itself():
    waits = []

    @sp.retry(tries=4, first_wait=1, factor=2, longest_wait=3, errors=(OSError,), sleep=waits.append, name="fetch")
    def fetch():
        raise OSError("busy")

    with pytest.raises(OSError, match="busy"):
        fetch()
    assert len(waits) == 3
    assert all(0 <= wait <= most for wait, most in zip(waits, (1, 2, 3), strict=True))
    assert counters.get("fetch", "retries") == 3
    assert counters.get("fetch", "gave up") == 1


def test_retry_leaves_other_errors_and_global_randomness_alone():
    import random

    random.seed(1)
    before = random.getstate()

    @sp.retry(first_wait=0)
    def fails():
        raise KeyError("no")

    with pytest.raises(KeyError):
        fails()
    assert random.getstate() == before
    assert counters.get("fails", "retries") == 0


def flaky_stage(failures, kind=OSError):
    left = dict(failures)

    @sp.stage
    def flaky(samples):
        for sample in samples:
            if left.get(sample, 0):
                left[sample] -= 1
                raise kind(f"at {sample}")
            yield sample

    return flaky


def test_retry_on_a_stage_gives_the_sample_once_more():
    assert list(sp.retry(tries=3, first_wait=0)(flaky_stage({2: 2, 4: 1}))([1, 2, 3, 4])) == [1, 2, 3, 4]
    with pytest.raises(OSError, match="at 2"):
        list(sp.retry(tries=3, first_wait=0)(flaky_stage({2: 3}))([1, 2, 3]))


def broken_source():
    yield 1
    raise OSError("the source broke")


@pytest.mark.parametrize(
    "decorator", [sp.retry(first_wait=0), sp.on_error("skip"), sp.on_error("default", value=0), sp.logged]
)
def test_errors_of_the_source_pass_through_a_decorated_stage(decorator):
    out = []
    with pytest.raises(OSError, match="the source broke"):
        for item in decorator(functions.bare)(broken_source()):
            out.append(item)
    assert out == [2]


# on_error


def test_on_error_skips_in_a_pipeline_and_counts_by_type():
    @sp.on_error("skip", name="invert")
    def invert(n):
        return 1 / n

    assert invert(0) is sp.SKIP
    pipe = sp.from_iterable([{"__key__": str(n), "n": n} for n in (1, 0, 2, "x")]).map(invert, "n")
    assert [s["n"] for s in pipe] == [1, 0.5]
    assert counters.get("invert", "skipped: ZeroDivisionError") == 2
    assert counters.get("invert", "skipped: TypeError") == 1


def test_on_error_gives_a_default_or_computes_it():
    assert sp.on_error("default", value=7)(functions.plain)(object()) == 7
    assert sp.on_error("default", value=lambda x: [x])(int)("seven") == ["seven"]


def test_on_error_has_a_budget():
    skipping = sp.on_error("skip", budget=2, name="f")(int)
    assert [skipping(x) for x in ("1", "a", "b")] == [1, sp.SKIP, sp.SKIP]
    with pytest.raises(sp.TooManyErrors, match=r"f failed 3 times in 4 calls.*budget of 2.*ValueError"):
        skipping("c")
    share = sp.on_error("skip", budget=0.1)(int)
    for i in range(99):
        share("x" if i % 5 == 0 else "1")
    with pytest.raises(sp.TooManyErrors):
        share("x")
    for wrong in (-1, 1.5):
        with pytest.raises(sp.ConfigError):
            sp.on_error("skip", budget=wrong)


def fails_at_fives(n):
    if n % 5 == 0:
        raise ValueError(n)
    return n


@pytest.mark.parametrize("workers", [0, 2])
def test_a_budget_is_of_a_pass_and_of_all_its_workers(workers):
    """Two workers fail four times each of twenty."""
    samples = [{"__key__": f"{n:02d}", "n": n} for n in range(1, 41)]

    def loader(budget):
        return sp.from_iterable(samples).map(sp.on_error(budget=budget, name="f")(fails_at_fives), "n").loader(workers)

    enough = loader(8)
    for _ in range(2):  # the budget is the same for each pass
        assert len(list(enough)) == 32
    with pytest.raises(sp.TooManyErrors, match="f failed 8 times in .* calls, more than its budget of 7"):
        list(loader(7))


def test_a_share_is_judged_at_the_end_of_a_pass_too_where_calls_were_few():
    samples = [{"__key__": f"{n:02d}", "n": n} for n in range(1, 61)]
    pipe = sp.from_iterable(samples).map(sp.on_error(budget=0.19, name="f")(fails_at_fives), "n")
    with pytest.raises(sp.TooManyErrors, match=r"f failed 12 times in 60 calls, more than its budget of 0.19"):
        list(pipe)
    assert len(list(sp.from_iterable(samples).map(sp.on_error(budget=0.2)(fails_at_fives), "n"))) == 48


def test_a_stages_budget_is_counted_in_its_pass():
    flaky = sp.on_error(budget=2, name="g")(flaky_stage({2: 9, 3: 9}))
    for _ in range(2):
        assert list(sp.from_iterable([1, 2, 3, 4]).apply(flaky())) == [1, 4]
    few = sp.on_error(budget=1, name="g")(flaky_stage({2: 9, 3: 9}))
    with pytest.raises(sp.TooManyErrors, match="g failed 2 times"):
        list(sp.from_iterable([1, 2, 3, 4]).apply(few()))


def test_on_error_handles_only_what_it_is_told_to():
    handled = sp.on_error("skip", errors=KeyError)(int)
    with pytest.raises(ValueError, match="invalid literal"):
        handled("x")
    with pytest.raises(sp.ConfigError):
        sp.on_error("ignore")


def test_on_error_on_a_stage_goes_on_with_the_rest():
    assert list(sp.on_error("skip")(flaky_stage({2: 9, 3: 9}))([1, 2, 3, 4])) == [1, 4]
    assert list(sp.on_error("default", value=-1)(flaky_stage({2: 9}))([1, 2, 3])) == [1, -1, 3]


# cached


def test_cached_remembers_by_value_and_is_bounded():
    calls = []

    @sp.cached(size=2, name="f")
    def f(x, y=0):
        calls.append(x)
        return [x]

    for x in (1, 1, 2, 3, 1):
        f(x).append("mutated")
    assert f(1) == [1]
    assert calls == [1, 2, 3, 1]
    assert counters.get("f", "hits") == 2
    assert counters.get("f", "misses") == 4
    assert counters.get("f", "evictions") == 2
    f(1, y=1)
    assert calls[-1] == 1
    assert len(calls) == 5


def test_cached_tells_samples_apart_by_key_and_by_content():
    calls = []

    @sp.cached
    def f(sample):
        calls.append(sample["__key__"])
        return sample["x"]

    f({"__key__": "a", "x": 1})
    f({"__key__": "a", "x": 1, "__position__": sp.Position(1, 2, 3)})
    f({"__key__": "a", "x": 2})
    f({"__key__": "b", "x": 1})
    assert calls == ["a", "a", "b"]


def test_cached_keeps_neither_errors_nor_skips():
    calls = []

    @sp.cached
    def f(x):
        calls.append(x)
        if x == 0:
            return sp.SKIP
        raise ValueError

    for _ in range(2):
        assert f(0) is sp.SKIP
        with pytest.raises(ValueError):  # noqa: PT011
            f(1)
    assert calls == [0, 1, 0, 1]


VALUES = {
    "text": ("é", 1, None, True, 2.5, float("inf"), b"\x00"),
    "array": np.arange(6, dtype=np.int16).reshape(2, 3),
    "empty": torch.empty(0, 3),
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "scalar": torch.tensor(3),
    "nested": [{"a": (1, [2])}],
}


def test_cached_on_disk_gives_back_the_same_value(tmp_path):
    f = sp.cached(disk=tmp_path, name="f")(lambda x: VALUES)
    for _ in range(2):
        found = f(1)
        assert found["text"] == VALUES["text"]
        assert found["array"].dtype == np.int16
        assert found["array"].tolist() == [[0, 1, 2], [3, 4, 5]]
        for name in ("empty", "half", "scalar"):
            assert torch.equal(found[name], VALUES[name])
            assert found[name].dtype == VALUES[name].dtype
        assert found["nested"] == VALUES["nested"]
    assert counters.get("f", "hits") == 1


def test_cached_on_disk_outlives_the_process_and_takes_damage_for_a_miss(tmp_path):
    calls = []

    def f(x):
        calls.append(x)
        return x * 2

    for _ in range(2):
        assert sp.cached(disk=tmp_path)(f)(4) == 8
    assert calls == [4]
    (file,) = tmp_path.rglob("*.value")
    data = bytearray(file.read_bytes())
    for damage in (bytes(data[:-1]), bytes([*data[:-1], data[-1] ^ 1]), b""):
        file.write_bytes(damage)
        assert sp.cached(disk=tmp_path)(f)(4) == 8
    assert calls == [4] * 4
    assert not list(tmp_path.rglob("*.part"))


def test_cached_on_disk_is_bounded_and_leaves_foreign_files_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    f = sp.cached(disk=tmp_path, disk_bytes=20_000)(lambda x: bytes(1000))
    for i in range(60):
        f(i)
    assert sum(file.stat().st_size for file in tmp_path.rglob("*.value")) <= 20_000
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_cached_never_pickles(tmp_path):
    with pytest.raises(sp.ConfigError, match="a object cannot be cached on disk"):
        sp.cached(disk=tmp_path)(lambda x: object())(1)


def test_cached_versions_and_functions_do_not_mix(tmp_path):
    assert sp.cached(disk=tmp_path, version="1")(functions.plain)(2) == 4
    assert sp.cached(disk=tmp_path, version="2")(lambda x: x + 5)(2) == 7
    assert sp.cached(disk=tmp_path, version="1", name="other")(lambda x: x + 5)(2) == 7


def test_cached_is_safe_in_threads():
    f = sp.cached(size=5)(functions.plain)
    wrong = []

    def work():
        for i in range(300):
            if f(i % 11) != 2 * (i % 11):
                wrong.append(i)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_cached_on_a_stage_works_sample_by_sample():
    seen = []

    @sp.cached
    @sp.stage
    def twice(samples):
        for sample in samples:
            seen.append(sample)
            yield sample
            yield sample

    assert list(twice([1, 2, 1])) == [1, 1, 2, 2, 1, 1]
    assert seen == [1, 2]
