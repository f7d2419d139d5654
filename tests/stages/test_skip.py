import pytest

import streampipe as sp
from tests.data import write_shards
from tests.laws import run


def keys(pipe, consumer=None):
    return [each["__key__"] for each in (pipe if consumer is None else run(pipe, consumer, 0))]


@pytest.mark.parametrize("n", [0, 3, 12, 20])
def test_skip_and_take_have_all_samples_together(tmp_path, n):
    all_keys = write_shards(tmp_path, [5, 3, 4])
    pipe = sp.stream(str(tmp_path), tier="sequential")
    assert keys(pipe.take(n)) + keys(pipe.skip(n)) == all_keys


def test_skip_is_shared_by_all_consumers():
    pipe = sp.from_iterable([{"__key__": str(i)} for i in range(12)])
    several = [sp.Consumer(r, 2, w, 2) for r in range(2) for w in range(2)]
    left = [key for consumer in several for key in keys(pipe.skip(7), consumer)]
    first = [key for consumer in several for key in keys(pipe.take(7), consumer)]
    assert len(left) == 5
    assert sorted(left + first, key=int) == [str(i) for i in range(12)]
