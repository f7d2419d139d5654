"""Leftovers of buckets, merged into batches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streampipe as sp
from streampipe.plan.buckets import make
from streampipe.plan.leftovers import merge
from streampipe.plan.ratios import cut_away_between


def test_merging_leftovers_would_enlarge_images():
    pipe = sp.from_iterable([])
    with pytest.raises(sp.ConfigError, match="upscale=False forbids"):
        list(pipe.bucket(sp.Buckets(upscale=False), tail="merge").batch(2))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_merged_batches_hold_every_leftover_once_and_cut_the_least(data):
    buckets = make("sd15")
    sizes = data.draw(st.lists(st.integers(1, 9), min_size=17, max_size=17))
    left = [data.draw(st.integers(0, size - 1)) for size in sizes]
    merged = merge(buckets, left, sizes)
    given_out = [(b, first + i) for each in merged for b, first, n in each.pieces for i in range(n)]
    assert given_out == [(b, i) for b, n in enumerate(left) for i in range(n)]
    assert all(each.samples == sizes[each.target] for each in merged[:-1])
    cut = cut_away_between(buckets.sizes)
    for each in merged:
        own = np.repeat([b for b, _, _ in each.pieces], [n for _, _, n in each.pieces])
        smaller = [t for t in range(17) if sizes[t] == sizes[each.target]]
        assert cut[own, each.target].mean() <= min(cut[own, t].mean() for t in smaller) + 1e-12
