from collections import Counter

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from streampipe.errors import ConfigError
from streampipe.plan.cut import Cut, check_ranks

tails = st.sampled_from(["short", "drop", "pad"])


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(1, 8), st.integers(1, 6), tails, st.integers(0, 200), st.integers(0, 9))
def test_the_rest_of_an_epoch_is_cut_to_the_draw_and_ranks_take_the_same_steps(samples, each, ranks, tail, draw, step):
    assume(draw < samples)
    cut = Cut(samples, each * ranks, tail, draw, step)
    of_ranks = [[cut.numbers(t, rank, ranks).tolist() for t in range(step, cut.batches)] for rank in range(ranks)]
    assert len({len(batches) for batches in of_ranks}) == 1
    got = Counter(number for batches in of_ranks for batch in batches for number in batch)
    left, over = samples - draw, (samples - draw) % cut.size
    if tail == "drop":
        assert got == Counter(range(draw, samples - over))
        assert cut.left_out == over
    else:
        assert cut.left_out == 0
        assert all(got[number] >= 1 for number in range(draw, samples))
        more = -left % cut.size if tail == "pad" else max(0, ranks - over) if over else 0
        assert got.total() == left + more


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(1, 30), tails)
def test_draws_before_a_step_are_those_of_the_batches_before_it(samples, size, tail):
    cut = Cut(samples, size, tail)
    for step in range(cut.batches):
        assert cut.before(step) == step * size
    assert cut.before(cut.batches) == samples


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="tail is one of short, drop, pad, not 'cut'"):
        Cut(10, 2, "cut")
    with pytest.raises(ConfigError, match="12 samples cannot be divided among 5 ranks"):
        check_ranks(12, 5)
