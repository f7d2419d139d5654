import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampipe.errors import ConfigError
from streampipe.plan.rotation import Rotation

rotations = st.builds(lambda a, g, t: Rotation(a * g, a, t), st.integers(1, 8), st.integers(1, 4), st.integers(1, 12))


@given(rotations, st.integers(1, 5))
def test_each_lane_gives_its_items_one_after_the_other(rotation, turns):
    lanes, items = rotation.at(np.arange(turns * rotation.columns * rotation.size))
    for lane in range(rotation.number):
        assert items[lanes == lane].tolist() == list(range(turns * rotation.draws))


def test_places_must_divide_the_batch():
    with pytest.raises(ConfigError, match="5 places do not divide a global batch of 12"):
        Rotation(12, 5)
