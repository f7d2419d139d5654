import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampipe.observe import Histogram


def of(durations):
    times = Histogram()
    for each in durations:
        times.add(each)
    return times


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=60), st.sampled_from([0.5, 0.95, 0.99]))
def test_quantiles_are_right_to_five_percent(durations, share):
    expected = float(np.quantile(durations, share, method="inverted_cdf"))
    assert of(durations).quantile(share) == pytest.approx(expected, rel=0.06)


@given(st.lists(st.floats(0, 100), max_size=30), st.lists(st.floats(0, 100), max_size=30))
def test_merging_is_counting_together(some, more):
    merged = of(some)
    merged.merge(of(more))
    assert merged.counts == of(some + more).counts
    merged = of(some)
    merged.add_all(more)
    assert merged.counts == of(some + more).counts


def test_what_takes_longer_is_told_with_its_share_of_the_time():
    number, seconds, every = of([0.01] * 99 + [1.0]).above(0.04)
    assert number == 1
    assert seconds / every == pytest.approx(1 / 1.99, rel=0.1)


def test_without_durations_there_is_nothing():
    assert Histogram().quantile(0.5) == 0
    assert Histogram().above(1) == (0, 0, 0)
