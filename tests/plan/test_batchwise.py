"""Turns of whole batches: any step is found alone, however many epochs its part has been through."""

from itertools import chain

import numpy as np

from streampipe.plan import planned
from streampipe.plan.batchwise import batches_of, make
from streampipe.plan.course import Rates
from streampipe.plan.dataset import Dataset
from streampipe.plan.lanes import Shuffle
from streampipe.plan.planned import Cursor
from streampipe.plan.schedule import Schedule, constant


def part(counts, batch, seed=0):
    shards = [f"{i:05d}.tar" for i in range(len(counts))]
    return planned.make(Dataset(shards, None, np.array(counts)), batch, Shuffle(100), seed, "short")


def together(plans, schedule=None):
    steps = list(map(batches_of, plans))
    rates = Rates([[(schedule or constant(steps), k)] for k in range(len(plans))])
    return make(plans, [()] * len(plans), rates, sum(steps), 0, "")


def test_any_step_of_a_billion_samples_is_found_alone_and_shared_by_ranks():
    """A large part, a small one that has been through a million epochs, and one that begins late."""
    plans = [part([10**6] * 1000, 96), part([7, 5], 12, seed=1), part([10**5] * 100, 24, seed=2)]
    plan = together(plans, Schedule({0: [8, 1, 0], 2_000_000: [4, 1, 3]}, linear=True, start={2: 500_000}))
    rng = np.random.default_rng(0)
    for number in [0, 499_999, 500_000, *rng.integers(0, 10**7, 12).tolist()]:
        at = plan.at(number, Cursor(0, 0, None))
        had = plan.course.had_before(number)
        assert sum(had) == number
        turn = plan.turn(at)
        assert turn.at == plans[turn.part].after(Cursor(0, 0, None), had[turn.part])
        whole = plan.dataset.places(plan, 0, 1)(at.epoch, at.step)
        ranks = [plan.dataset.places(plan, rank, 4)(at.epoch, at.step) for rank in range(4)]
        assert [place for slot in zip(*ranks, strict=True) for place in slot] == whole
        assert {place.part for place in whole} == {turn.part}
        assert {place.epoch for place in whole} == {turn.at.epoch}


def test_an_epoch_without_weights_has_every_sample_of_every_part_once():
    plans = [part([30, 41], 12), part([7, 5], 4, seed=1), part([25], 10, seed=2)]
    plan = together(plans)
    places = plan.dataset.places(plan, 0, 1)
    for epoch in range(3):
        assert plan.batches_in(epoch) == 6 + 3 + 3
        found = list(chain(*(places(epoch, step) for step in range(plan.batches_in(epoch)))))
        assert {place.epoch for place in found} == {epoch}
        assert len(set(found)) == len(found) == 71 + 12 + 25
