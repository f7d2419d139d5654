from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from streampipe.plan.deal import deal, shard_order


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(1, 36), st.none() | st.integers(0, 2**60))
def test_every_sample_of_every_shard_goes_to_exactly_one_reader(shards, readers, seed):
    seen = Counter()
    for reader in range(readers):
        for portion in deal(shard_order(shards, seed), reader, readers):
            seen.update((portion.shard, number) for number in range(24) if number % portion.parts == portion.part)
    assert seen == Counter((shard, number) for shard in range(shards) for number in range(24))


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 36))
def test_nobody_is_left_without_work_and_at_most_one_shard_is_shared(shards, readers):
    for reader in range(readers):
        portions = list(deal(range(shards), reader, readers))
        assert portions
        assert sum(portion.parts > 1 for portion in portions) <= 1


@given(st.integers(1, 40), st.integers(1, 36))
def test_without_sharing_every_shard_is_read_whole_once_if_there_are_as_many_as_readers(shards, readers):
    portions = [portion for reader in range(readers) for portion in deal(range(shards), reader, readers, share=False)]
    if shards >= readers:
        assert sorted(portion.shard for portion in portions) == list(range(shards))
        assert {portion.parts for portion in portions} == {1}


def test_order_follows_the_seed():
    orders = [[p.shard for p in deal(shard_order(50, seed), 0, 1)] for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
