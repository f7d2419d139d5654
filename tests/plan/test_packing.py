"""Packs in integers: nothing lost, nothing above the budget, nearly full, and the same on any ranks."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampipe.plan.packing import (
    ROUND,
    PackOrder,
    Packs,
    fine_class,
    first_fit_decreasing,
    fit,
    merge_classes,
)

BUDGET = 36_864


def realistic(samples, seed=0):
    """Costs of images with captions, texts alone and short videos, as patches of 16 x 16 and tokens."""
    rng = np.random.default_rng(seed)
    kind = rng.random(samples)
    side = np.clip(np.exp(rng.normal(np.log(640), 0.45, samples)), 128, 2048)
    ratio = np.exp(rng.normal(0, 0.35, samples))
    image = (side * np.sqrt(ratio)).astype(int) * (side / np.sqrt(ratio)).astype(int) // 256
    frames = np.where(kind < 0.05, rng.integers(2, 8, samples), 1)
    text = np.clip(np.exp(rng.normal(np.log(80), 0.8, samples)), 4, 1024).astype(int)
    costs = np.where(kind > 0.85, 0, image * frames) + text
    return costs[costs <= 16_384]


def classes_of(costs):
    """The class of each sample, and what each class counts as."""
    fine = fine_class(costs)
    most = np.zeros(fine.max() + 1, int)
    np.maximum.at(most, fine, costs)
    ends = merge_classes(np.bincount(fine), np.bincount(fine, costs), most)
    return np.searchsorted(ends, fine), most[ends]


def packs_of(costs, budget=BUDGET):
    own, tops = classes_of(costs)
    return Packs(tops.tolist(), np.bincount(own, minlength=len(tops)).tolist(), budget), own


def walk(packs, seed=0):
    order = PackOrder(packs, seed)
    return [order.at(number) for number in range(packs.number)]


def check_cover(packs, found):
    """Every draw of every class once, each class in order."""
    drawn = Counter()
    for pack in found:
        for number, first, samples in pack:
            assert first == drawn[number]
            drawn[number] += samples
    assert [drawn[c] for c in range(len(packs.counts))] == list(packs.counts)


def test_packs_are_full_and_the_ranks_of_a_step_alike():
    costs = realistic(300_000)  # benchmarks/packing.py has a million
    packs, own = packs_of(costs)
    found = walk(packs)
    check_cover(packs, found)
    by_class = [costs[own == c].tolist() for c in range(len(packs.counts))]
    real = np.array([sum(sum(by_class[c][a : a + n]) for c, a, n in pack) for pack in found])
    assert real.max() <= BUDGET
    assert real.sum() / (len(real) * BUDGET) >= 0.99
    assert len(real) % 24 == 0
    for ranks in (2, 3, 4, 6, 8):
        steps = real.reshape(-1, ranks)
        uneven = steps.max(1) / steps.mean(1)
        assert uneven.mean() < 1.005
        assert (uneven >= 1.02).mean() < 1e-3


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=120), st.integers(60, 200))
def test_every_sample_is_in_one_pack_and_no_pack_above_the_budget(costs, budget):
    packs, _ = packs_of(np.array(costs), budget)
    found = walk(packs)
    check_cover(packs, found)
    assert all(0 < sum(packs.costs[c] * n for c, _, n in pack) <= budget for pack in found)
    assert packs.number % ROUND == 0 or packs.number == len(costs) < ROUND


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.integers(1, 50), st.integers(1, 12), min_size=1, max_size=12), st.integers(50, 120))
def test_patterns_are_what_first_fit_decreasing_gives_sample_by_sample(histogram, budget):
    costs = sorted(histogram)
    patterns = first_fit_decreasing(costs, [histogram[cost] for cost in costs], budget)
    made = Counter()
    for each in patterns:
        made[tuple((costs[c], n) for c, n in zip(each.classes, each.uses, strict=True))] += each.times
    singly = [cost for cost in costs for _ in range(histogram[cost])]
    plain = Counter()
    for pack in fit(singly, budget):
        plain[tuple(sorted(Counter(singly[i] for i in pack).items(), reverse=True))] += 1
    assert made == plain


@pytest.mark.parametrize("at", [0, 1, 700, 1500])
def test_any_pack_is_found_without_those_before_it(at):
    packs, _ = packs_of(realistic(30_000, seed=2))
    whole = walk(packs, seed=5)
    assert len({str(pack) for pack in whole}) == packs.number == len(whole) > 1501
    order = PackOrder(packs, 5)
    assert [order.at(number) for number in (at, at + 1, packs.number - 1, at)] == [
        whole[number] for number in (at, at + 1, packs.number - 1, at)
    ]
    assert walk(packs, seed=6) != whole


def test_a_class_is_as_narrow_as_its_packs_must_be_alike():
    rng = np.random.default_rng(1)
    for costs in (realistic(50_000), rng.integers(1, BUDGET, 50_000), np.full(1000, 9216), np.array([1])):
        own, tops = classes_of(costs)
        assert (costs <= tops[own]).all()
        assert tops[own].sum() <= 1.012 * costs.sum()
        assert len(tops) <= 512


def test_costs_that_divide_the_budget_waste_nothing():
    packs, _ = packs_of(np.full(4 * 24 * 10, 9216))
    assert packs.number == 240


def test_planning_does_not_grow_with_the_number_of_samples():
    _, tops = classes_of(realistic(20_000))
    counts = [10**9 // len(tops)] * len(tops)
    packs = Packs(tops.tolist(), counts, BUDGET)
    whole = sum(cost * n for cost, n in zip(packs.costs, counts, strict=True))
    assert whole / (packs.number * BUDGET) > 0.98
    assert sum(len(band.patterns) for band in packs.bands) < 5 * len(tops)
    order, far = PackOrder(packs, 0), packs.number * 2 // 3
    assert 0 < sum(packs.costs[c] * n for c, _, n in order.at(far)) <= BUDGET
