"""Runs spread over an epoch."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streampipe.plan.spread import Spread


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 3000), min_size=1, max_size=6), st.integers(0, 10**9), st.data())
def test_a_spread_gives_each_item_once_in_order_evenly_and_from_anywhere(lengths, seed, data):
    turns = Spread(lengths, seed)
    order = [turns.at(i) for i in range(turns.total)]
    for s, length in enumerate(lengths):
        assert [item for of, item in order if of == s] == list(range(length))
        mine = np.cumsum([of == s for of, _ in order])
        share = length / max(1, turns.total) * np.arange(1, turns.total + 1)
        assert not length or np.abs(mine - share).max() <= 1 + len(lengths)
    for i in data.draw(st.lists(st.integers(0, max(0, turns.total - 1)), max_size=5)) if order else []:
        assert Spread(lengths, seed).at(i) == order[i]
