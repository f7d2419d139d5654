"""From counts to groups: every draw in one group, equal steps, and any step can be had alone."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streampipe as sp
from streampipe.plan.buckets import make
from streampipe.plan.groups import GroupOrder, Groups

COUNTS = st.lists(st.integers(0, 60), min_size=11, max_size=11)
SIZES = st.lists(st.integers(1, 9), min_size=11, max_size=11)


def of_epoch(groups, epoch, order=None):
    order = order or GroupOrder(groups, 7)
    first, last = groups.steps_before(epoch) * groups.together, groups.steps_before(epoch + 1) * groups.together
    return [order.at(number, epoch) for number in range(first, last)]


def draws(found):
    return Counter((b, first + i) for group in found for b, first, n in group.draws for i in range(n))


@settings(max_examples=100, deadline=None)
@given(COUNTS, SIZES, st.integers(1, 4))
def test_carried_draws_come_once_and_in_order_and_none_is_more_than_a_batch_late(counts, sizes, together):
    groups = Groups(make("photo"), tuple(counts), tuple(sizes), "carry", together)
    order, seen = GroupOrder(groups, 7), Counter()
    for epoch in range(5):
        for group in of_epoch(groups, epoch, order):
            ((bucket, _, n),) = group.draws
            assert (group.target, n) == (bucket, sizes[bucket])
        seen += draws(of_epoch(groups, epoch, order))
        assert not seen or max(seen.values()) == 1
        late = [(epoch + 1) * n - sum(1 for b, _ in seen if b == bucket) for bucket, n in enumerate(counts)]
        if together == 1:
            assert all(0 <= each < size for each, size in zip(late, sizes, strict=True))
        assert sum(late) < sum(sizes) + together * max(sizes)
    for bucket, n in enumerate(counts):
        mine = {draw for b, draw in seen if b == bucket}
        assert mine == set(range(len(mine))) or together > 1
        assert not mine or max(mine) < 5 * n


@settings(max_examples=100, deadline=None)
@given(COUNTS, SIZES, st.integers(1, 4), st.integers(0, 3))
def test_merged_epochs_hold_every_draw_once_and_have_whole_steps(counts, sizes, together, epoch):
    groups = Groups(make("photo"), tuple(counts), tuple(sizes), "merge", together)
    found = of_epoch(groups, epoch)
    assert len(found) % together == 0
    seen = draws(found)
    assert set(seen) == {(b, epoch * n + i) for b, n in enumerate(counts) for i in range(n)}
    repeated = sum(seen.values()) - len(seen)
    assert repeated < together  # and only where single samples had to be given to several ranks
    assert not repeated or all(group.samples == 1 for group in found[-together:])
    assert all(group.samples <= sizes[group.target] for group in found)


@settings(max_examples=60, deadline=None)
@given(COUNTS, SIZES, st.integers(1, 4), st.integers(0, 3))
def test_dropped_epochs_hold_full_batches_only_each_draw_once(counts, sizes, together, epoch):
    groups = Groups(make("photo"), tuple(counts), tuple(sizes), "drop", together)
    found = of_epoch(groups, epoch)
    assert len(found) == sum(n // size for n, size in zip(counts, sizes, strict=True)) // together * together
    assert all(group.samples == sizes[group.target] for group in found)
    seen = draws(found)
    assert not seen or max(seen.values()) == 1
    assert all(epoch * counts[b] <= draw < (epoch + 1) * counts[b] for b, draw in seen)
    assert groups.is_empty == (not found)


@settings(max_examples=60, deadline=None)
@given(COUNTS, SIZES, st.integers(1, 4), st.sampled_from(["carry", "merge", "drop"]), st.data())
def test_any_group_can_be_had_alone_whatever_epoch_is_guessed(counts, sizes, together, leftover, data):
    groups = Groups(make("photo"), tuple(counts), tuple(sizes), leftover, together)
    if groups.is_empty:
        return
    order = GroupOrder(groups, 7)
    whole = [group for epoch in range(4) for group in of_epoch(groups, epoch, order)]
    for number in data.draw(st.lists(st.integers(0, max(0, len(whole) - 1)), max_size=4)) if whole else []:
        assert GroupOrder(groups, 7).at(number, data.draw(st.integers(0, 6))) == whole[number]


EPOCHS = 3


def walk(groups, epoch=0, step=0):
    """Every step from one on: its epoch, its number, its groups."""
    order = GroupOrder(groups, 7)
    while epoch < EPOCHS:
        for at in range(step, groups.steps_in(epoch)):
            first = groups.first(epoch, at)
            yield epoch, at, [order.at(number, epoch) for number in range(first, first + groups.together)]
        epoch, step = epoch + 1, 0


@settings(max_examples=150, deadline=None)
@given(
    COUNTS,
    st.lists(SIZES, min_size=2, max_size=3),
    st.integers(1, 3),
    st.sampled_from(["carry", "merge", "drop"]),
    st.data(),
)
def test_other_sizes_go_on_where_those_before_them_stopped(counts, sizes, together, leftover, data):
    groups = Groups(make("photo"), tuple(counts), tuple(sizes[0]), leftover, together)
    seen, begin = Counter(), (0, 0)
    for size in [*sizes[1:], None]:
        if groups.is_empty:
            return
        steps = list(walk(groups, *begin))
        stop = data.draw(st.integers(0, len(steps))) if size else len(steps)
        for _, _, found in steps[:stop]:
            assert all(group.samples <= groups.sizes[group.target] for group in found)
            mine = draws(found)
            assert not (set(mine) & set(seen)) or (leftover == "merge" and together > 1)
            seen += mine
        if stop == len(steps):
            break
        begin = steps[stop][:2]
        origin = GroupOrder(groups, 7).origin(*begin)
        if leftover != "drop":  # what was had of a bucket is what comes first in it
            assert set(seen) == {(bucket, draw) for bucket, end in enumerate(origin.draws) for draw in range(end)}
        keeps = origin if leftover == "carry" or begin[1] else None
        groups = Groups(make("photo"), tuple(counts), tuple(size), leftover, together, keeps)
    for bucket, n in enumerate(counts):
        mine = sorted(draw for b, draw in seen if b == bucket)
        if leftover == "merge":
            assert mine == list(range(EPOCHS * n))
        elif leftover == "carry":
            assert mine == list(range(len(mine))) or together > 1
            assert together > 1 or 0 <= EPOCHS * n - len(mine) < groups.sizes[bucket]
        elif together == 1:
            for epoch in range(EPOCHS):
                of_epoch = [draw - epoch * n for draw in mine if draw // n == epoch]
                assert of_epoch == list(range(len(of_epoch)))
                assert n - len(of_epoch) < max(size[bucket] for size in sizes)


def test_a_place_before_the_change_to_other_sizes_is_refused_and_not_searched_for_ever():
    groups = Groups(make("photo"), (12,) * 11, (4,) * 11)
    origin = GroupOrder(groups, 7).origin(1, 2)
    with pytest.raises(sp.ConfigError, match="lies 2 batches before the one from which this run went on"):
        GroupOrder(replace(groups, sizes=(6,) * 11, origin=origin), 7).at(-2, 1)


def test_a_bucket_too_rare_for_a_batch_comes_at_last_and_as_often_as_the_others():
    counts = (0,) * 5 + (640,) + (0,) * 4 + (3,)
    groups = Groups(make("photo"), counts, (16,) * 11)
    first = next(e for e in range(100) if any(group.target == 10 for group in of_epoch(groups, e)))
    assert first == 5  # 6 x 3 samples are the first 16
    rare = sum(group.samples for e in range(160) for group in of_epoch(groups, e) if group.target == 10)
    assert rare == 160 * 3


def test_an_unknown_policy_is_refused():
    with pytest.raises(sp.ConfigError, match="leftover is one of carry, merge, drop, not 'keep'"):
        Groups(make("photo"), (1,) * 11, (1,) * 11, "keep")
