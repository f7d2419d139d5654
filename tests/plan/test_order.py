from unittest import mock

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streampipe.plan.order import window_slice, window_start, windowed
from streampipe.rng import uniform
from tests.laws import check_resume

sizes = st.integers(0, 300)
windows = st.integers(0, 80)
seeds = st.integers(0, 2**63)


@given(sizes, windows, seeds)
def test_heap_and_slice_are_the_same_permutation(n, window, seed):
    whole = window_slice(n, window, seed, 0, n)
    assert sorted(whole.tolist()) == list(range(n))
    assert list(windowed(range(n), window, seed)) == whole.tolist()


@given(sizes, windows, seeds, st.integers(1, 50))
def test_any_slice_is_computed_alone(n, window, seed, step):
    parts = [window_slice(n, window, seed, a, min(n, a + step)) for a in range(0, n, step)]
    assert np.concatenate([*parts, np.array([], int)]).tolist() == window_slice(n, window, seed, 0, n).tolist()


@given(sizes, windows, seeds)
def test_no_sample_moves_further_than_the_window(n, window, seed):
    whole = window_slice(n, window, seed, 0, n)
    assert all(abs(int(item) - place) <= window for place, item in enumerate(whole))


@given(st.integers(0, 60), st.integers(0, 20), seeds)
def test_resumes_from_a_number_alone(n, window, seed):
    check_resume(lambda at: windowed(range(window_start(at, window), n), window, seed, at), n)


def test_heap_holds_no_more_than_the_window():
    pulled = 0

    def source():
        nonlocal pulled
        while pulled < 1000:
            pulled += 1
            yield pulled

    for given_out, _ in enumerate(windowed(source(), 10, 1), start=1):
        assert pulled - given_out <= 11


def test_order_is_that_of_the_published_law():
    keys = np.arange(50) + 7 * uniform(3, 0, 50)
    assert window_slice(50, 7, 3, 0, 50).tolist() == np.argsort(keys, kind="stable").tolist()


@given(st.lists(st.integers(0, 400), max_size=200), windows, seeds, st.sampled_from([1, 2, 10]))
def test_a_window_holds_no_more_bytes_than_its_share_and_loses_nothing(sizes, window, seed, lanes):
    pulled, held = 0, 0

    def source():
        nonlocal pulled, held
        for number, size in enumerate(sizes):
            held += size
            yield number, size

    got = []
    for number, size in windowed(source(), window, seed, size=lambda item: item[1], most=1000 // lanes):
        held -= size
        got.append(number)
        assert held <= 1000 / lanes + 2 * 400  # and the one that just came, and the one that makes it too much
    assert sorted(got) == list(range(len(sizes)))


@given(st.lists(st.integers(0, 400), max_size=60), st.integers(0, 20), seeds)
def test_a_window_in_bytes_resumes_from_a_number_alone(sizes, window, seed):
    items = list(enumerate(sizes))
    with mock.patch("streampipe.plan.order.WINDOW_BYTES", 1000):
        check_resume(
            lambda at: windowed(items[window_start(at, window) :], window, seed, at, lambda item: item[1]), len(items)
        )


@given(sizes, windows, seeds)
def test_small_samples_are_shuffled_as_without_a_bound(n, window, seed):
    assert list(windowed(range(n), window, seed, size=lambda item: 1000)) == list(windowed(range(n), window, seed))


@given(sizes, windows, seeds, st.integers(0, 60))
def test_each_item_that_came_in_is_told_of_once_when_it_leaves_also_where_it_was_given_out_before(n, window, seed, at):
    inside = set()

    def items():
        for i in range(window_start(min(at, n), window), n):
            inside.add(i)
            yield i

    for item in windowed(items(), window, seed, min(at, n), left=inside.remove):
        assert item not in inside
        assert len(inside) <= window + 1
    assert not inside
