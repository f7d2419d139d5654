"""Planned reading checks what it reads against the index; a limit is exact over all ranks."""

from collections import Counter

import fsspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streampipe as sp
from streampipe.index import index
from streampipe.plan.dataset import Dataset
from streampipe.plan.lanes import Lanes, Shuffle
from streampipe.plan.mixed import MixDataset, Part
from streampipe.plan.planned import Plan, make
from streampipe.query.condition import Condition, Keep
from streampipe.source import Source
from streampipe.urls import ShardList
from tests.data import shard, write_shards
from tests.laws import engine_of


@pytest.fixture
def folder(tmp_path):
    write_shards(tmp_path, [6, 4])
    index(ShardList([str(tmp_path / "00000.tar"), str(tmp_path / "00001.tar")]), Source(), progress=False)
    return tmp_path


def test_a_flipped_byte_in_a_payload_is_found(folder):
    path = folder / "00000.tar"
    data = bytearray(path.read_bytes())
    at = data.index(b"text 0000003")
    data[at + 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(sp.CorruptShard, match=r"00000.tar, sample '0000003', byte \d+: .*\(crc32\)"):
        list(sp.stream(str(folder)))
    keys = [sample["__key__"] for sample in sp.stream(str(folder), on_error=sp.ErrorPolicy("skip", max_share=1))]
    assert len(keys) == 9
    assert "0000003" not in keys


def test_another_shard_of_the_same_size_is_refused(folder):
    (folder / "00001.tar").write_bytes(
        shard([(f"x{i:06d}", {"txt": "text 000000", "cls": "000000"}) for i in range(4)])
    )
    with pytest.raises((sp.IndexMismatch, sp.CorruptShard)):
        list(sp.stream(str(folder)))


def test_remote_shards_with_an_index_are_planned_and_without_one_sequential(folder):
    store = fsspec.filesystem("memory")
    for path in folder.iterdir():
        if path.suffix == ".tar":
            store.pipe_file(f"/planned/{path.name}", path.read_bytes())
    pipe = sp.stream("memory://planned/{00000..00001}.tar", shuffle=3).batch(3)
    assert "has no index" in engine_of(pipe).why
    index(ShardList(["memory://planned/00000.tar", "memory://planned/00001.tar"]), Source(), progress=False)
    pipe = sp.stream("memory://planned/{00000..00001}.tar", shuffle=3).batch(3)
    loader = pipe.loader()
    assert len(loader) == 4
    local = sp.stream(str(folder), shuffle=3).batch(3).loader()
    assert [batch["txt"] for batch in loader] == [batch["txt"] for batch in local]


def test_the_index_may_lie_elsewhere(tmp_path):
    write_shards(tmp_path / "data", [5])
    (tmp_path / "facts").mkdir()
    shards = ShardList([str(tmp_path / "data" / "00000.tar")])
    index(shards, Source(), folder=str(tmp_path / "facts"), progress=False)
    store = fsspec.filesystem("memory")
    store.pipe_file("/apart/00000.tar", (tmp_path / "data" / "00000.tar").read_bytes())
    pipe = sp.stream("memory://apart/00000.tar", index=str(tmp_path / "facts")).batch(2)
    assert len(pipe.loader()) == 3
    assert sum(len(batch["__key__"]) for batch in pipe) == 5


def dataset_of(counts):
    return Dataset([f"{i}.tar" for i in range(len(counts))], None, np.array(counts))


def everything(plan, epoch, ranks=1):
    """All places of an epoch, whoever has them."""
    places = [plan.dataset.places(plan, rank, ranks) for rank in range(ranks)]
    return [place for find in places for step in range(plan.batches_in(epoch)) for place in find(epoch, step)]


counts_of_shards = st.lists(st.integers(0, 12), min_size=1, max_size=8).filter(sum)
limits = st.tuples(st.integers(0, 40), st.integers(1, 40) | st.none())


@settings(max_examples=150, deadline=None)
@given(counts_of_shards, limits, st.sampled_from([None, 0, 3, 50]), st.sampled_from([1, 2, 3]), st.integers(0, 2))
def test_a_limit_has_exactly_its_samples_over_all_ranks_and_what_is_skipped_is_the_rest(
    counts, limit, window, ranks, epoch
):
    whole = dataset_of(counts)
    first, last = limit[0], None if limit[1] is None else limit[0] + limit[1]
    plans = [make(whole.limited(*each), 6, Shuffle(window), 5, "short") for each in [(0, first), (first, last)]]
    if last is not None:
        plans.append(make(whole.limited(last), 6, Shuffle(window), 5, "short"))
    got = [set(everything(plan, epoch, ranks)) for plan in plans]
    n = len(range(whole.samples)[first:last])
    assert len(got[1]) == plans[1].dataset.samples == n
    assert Counter(place for each in got for place in each) == Counter(
        everything(make(whole, 6, Shuffle(window), 5, "short"), epoch)
    )
    if n % 6 == 0 or n % 6 >= ranks:
        assert len(everything(plans[1], epoch, ranks)) == n
    if window is None:
        listed = [(shard, number) for shard, count in enumerate(counts) for number in range(count)]
        assert [place[:2] for place in everything(plans[1], epoch)] == listed[first:last]


@settings(deadline=None)
@given(counts_of_shards, limits, limits)
def test_limits_behind_one_another_are_one(counts, one, two):
    whole = dataset_of(counts)
    numbers = range(whole.samples)[one[0] : one[1]][two[0] : two[1]]
    both = whole.limited(*one).limited(*two)
    assert range(both.first, both.last) == numbers or (not numbers and both.samples == 0)
    other = whole.limited(0, max(0, whole.samples - 1))
    assert whole.limited(0).fingerprint == whole.fingerprint != other.fingerprint


@settings(max_examples=50, deadline=None)
@given(counts_of_shards, st.integers(0, 20), st.integers(1, 20), st.integers(0, 2))
def test_of_a_mixture_a_limit_has_the_draws_of_each_epoch(counts, first, n, epoch):
    parts = [Part(dataset_of(counts), 1, Shuffle(3), (), ""), Part(dataset_of([3, 4]), 2, Shuffle(), (), "")]
    whole = MixDataset(parts, None, [1, 2])
    some = whole.limited(first, first + n)
    plans = [Plan(each, Lanes(each.samples, 4), 7, False) for each in (whole, some)]
    assert everything(plans[1], epoch) == everything(plans[0], epoch)[first : first + n]
    assert some.fingerprint != whole.fingerprint or some.samples == whole.samples


def test_a_limit_counts_what_a_condition_keeps(folder):
    source = sp.stream(str(folder)).source
    keep = Keep((Condition("key >= '0000002'"),))
    dataset = source.dataset(keep)
    assert dataset.samples == 8
    plan = make(dataset.limited(3, 6), 2, Shuffle(), 0, "short", keep.text)
    assert [(place.shard, place.number) for place in everything(plan, 0)] == [(0, 3), (1, 0), (1, 1)]
