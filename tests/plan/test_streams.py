"""Lanes of shards that are read forward follow from the global batch and the number of shards alone, within bounds."""

from hypothesis import given
from hypothesis import strategies as st

from streampipe.plan.streams import choose_streams


@given(st.integers(1, 4096), st.integers(1, 100_000))
def test_lanes_are_no_more_than_shards_or_the_bound_and_places_divide_the_batch(size, shards):
    found = choose_streams(size, shards)
    assert found.number <= min(shards, max(64, 12 * max(1, size // 16)))
    assert size % found.places == 0
    assert 12 % found.columns == 0
