from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampipe.errors import ConfigError
from streampipe.plan.cut import Cut
from streampipe.plan.rotation import Rotation

rotations = st.builds(lambda a, g, t: Rotation(a * g, a, t), st.integers(1, 8), st.integers(1, 4), st.integers(1, 12))


@settings(deadline=None)
@given(rotations, st.integers(1, 5))
def test_each_lane_gives_its_items_one_after_the_other(rotation, turns):
    lanes, items = rotation.at(np.arange(turns * rotation.columns * rotation.size))
    for lane in range(rotation.number):
        assert items[lanes == lane].tolist() == list(range(turns * rotation.draws))
        for step in range(turns * rotation.columns + 1):
            assert rotation.before(lane, step) == (lanes[: step * rotation.size] == lane).sum()


@settings(deadline=None)
@given(rotations, st.integers(1, 8), st.integers(0, 13))
def test_a_lane_is_drawn_from_by_its_owner_alone_and_everyone_has_as_many(rotation, ranks, most):
    workers = rotation.workers(most)
    assert 1 <= workers <= max(1, most)
    if not rotation.fits(ranks):
        with pytest.raises(ConfigError, match="lanes cannot be divided"):
            rotation.owned(0, ranks, 0, workers)
        return
    owner = {}
    for rank in range(ranks):
        for worker in range(workers):
            mine = rotation.owned(rank, ranks, worker, workers)
            assert mine == sorted(mine)
            assert len(mine) * ranks * workers == rotation.number
            owner.update(dict.fromkeys(mine, (rank, worker)))
    assert owner == {lane: rotation.owner(lane, ranks, workers) for lane in range(rotation.number)}
    cut = Cut(10**6, rotation.size)
    for t in range(2 * rotation.columns):
        for rank in range(ranks):
            lanes = rotation.at(cut.numbers(t, rank, ranks))[0].tolist()
            assert {owner[lane] for lane in lanes} == {(rank, t % workers)}
            assert len(set(Counter(lanes).values())) == 1


def test_places_must_divide_the_batch():
    with pytest.raises(ConfigError, match="5 places do not divide a global batch of 12"):
        Rotation(12, 5)
