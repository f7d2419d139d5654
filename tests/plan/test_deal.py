from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from streampipe.plan.deal import deal
from tests.laws import consumers


@given(st.integers(0, 40), st.integers(1, 6), st.integers(1, 6), st.none() | st.integers(0, 2**60))
def test_every_sample_of_every_shard_goes_to_exactly_one_consumer(shards, world, workers, seed):
    seen = Counter()
    for consumer in consumers(world, workers):
        for portion in deal(shards, consumer, seed):
            seen.update((portion.shard, number) for number in range(24) if number % portion.parts == portion.part)
    assert seen == Counter((shard, number) for shard in range(shards) for number in range(24))


@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 6))
def test_nobody_is_left_without_work_and_at_most_one_shard_is_shared(shards, world, workers):
    for consumer in consumers(world, workers):
        portions = list(deal(shards, consumer))
        assert portions
        assert sum(portion.parts > 1 for portion in portions) <= 1


def test_order_follows_the_seed():
    orders = [[p.shard for c in consumers(1, 1) for p in deal(50, c, seed)] for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
