"""The course of a mixture: exact shares at every step, any step alone, and nothing given changes behind a change."""

import pickle
from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streampipe.plan.course import Rates, begin
from streampipe.plan.schedule import Schedule

WEIGHTS = st.sampled_from([0, 0, 1, 2, 3, 7.5, 0.1])


@st.composite
def schedules(draw, parts):
    steps = {0, *draw(st.lists(st.integers(1, 40), max_size=4))}
    weights = st.lists(WEIGHTS, min_size=parts, max_size=parts).filter(any)
    return Schedule({step: draw(weights) for step in sorted(steps)}, linear=draw(st.booleans()))


@st.composite
def rates(draw):
    """Up to five parts, the last of which may be a mixture of two or three."""
    parts = draw(st.integers(1, 3))
    outer, inner = draw(schedules(parts)), draw(schedules(draw(st.integers(1, 3))))
    last = [[(outer, parts - 1), (inner, k)] for k in range(inner.parts)]
    return Rates([*([(outer, k)] for k in range(parts - 1)), *last])


@settings(max_examples=60, deadline=None)
@given(rates(), st.sampled_from([1, 2, 5, 64]))
def test_every_part_has_its_share_within_two_at_every_step_and_its_draws_in_order(rates, size):
    course = begin(rates, size)
    had, due = [0] * len(rates.at(0)), [Fraction()] * len(rates.at(0))
    for step in range(60):
        assert course.had_before(step) == tuple(had)
        owner, number = course.owner(step)
        for k, share in enumerate(rates.at(step)):
            mine = number[owner == k].tolist()
            assert mine == list(range(had[k], had[k] + len(mine)))
            had[k], due[k] = had[k] + len(mine), due[k] + size * share
            assert abs(had[k] - due[k]) <= 2
            if not any(course.leg(step).terms[k]):
                assert not mine  # before its start and behind its end a part gives nothing at all
    assert sum(had) == 60 * size


@settings(max_examples=40, deadline=None)
@given(rates(), st.data(), st.integers(0, 50), st.sampled_from([1, 3, 8]))
def test_a_change_takes_effect_from_its_step_on_and_leaves_what_was_given(rates, data, at, size):
    before = begin(rates, 4)
    parts = len(rates.at(0))
    other = data.draw(schedules(parts))
    after = before.changed(Rates([[(other, k)] for k in range(parts)]), size, at)
    for step in range(max(0, at - 20), at):
        assert [each.tolist() for each in after.owner(step)] == [each.tolist() for each in before.owner(step)]
    first = had = np.array(before.had_before(at))
    due = np.zeros(parts)
    for step in range(at, at + 20):
        owner, number = after.owner(step)
        for k in range(parts):
            mine = number[owner == k].tolist()
            assert mine == list(range(had[k], had[k] + len(mine)))
        had = had + np.bincount(owner, minlength=parts)
        due += [float(size * share) for share in other.at(step)]
    assert np.abs(had - first - due).max() <= 4  # what a part was owed is given too
    assert had.sum() == 4 * at + 20 * size


def test_any_step_of_a_billion_samples_is_had_alone():
    """10^9 samples in steps of 1,000: two ramps, a part that begins late and one that ends, and a mixture within."""
    steps, size = 10**6, 1000
    ramp = Schedule({0: [5, 3, 0], 300_000: [1, 1, 1], 800_000: [0, 1, 7]}, linear=True, end={1: 900_000})
    inner = Schedule({0: [1, 0], 700_000: [0.3, 0.7]}, linear=True, start={1: 1000})
    rates = Rates([[(ramp, 0)], [(ramp, 1)], [(ramp, 2), (inner, 0)], [(ramp, 2), (inner, 1)]])
    course = begin(rates, size)
    rng = np.random.default_rng(0)
    for step in [0, 999, 299_999, 300_000, 899_999, 900_000, steps - 1, *rng.integers(0, steps, 40).tolist()]:
        before, behind = course.had_before(step), course.had_before(step + 1)
        owner, number = course.owner(step)
        assert sum(before) == step * size
        for k in range(4):
            assert number[owner == k].tolist() == list(range(before[k], behind[k]))
        due = course.leg(step).due_before(step)
        assert max(abs(had - share) for had, share in zip(before, due, strict=True)) <= 2
    falling = np.interp(np.arange(steps), [0, 300_000, 800_000], [5 / 8, 1 / 3, 0])
    assert abs(course.had_before(steps)[0] - size * falling.sum()) <= 2
    assert pickle.loads(pickle.dumps(course)) == course
