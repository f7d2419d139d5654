"""Laws 1 to 4 on whole planned pipelines, bytes included, over every shape of dataset and job."""

import json
from collections import Counter

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import streampipe as sp
from streampipe.context import Run
from streampipe.engine.batches import make_batches
from tests.data import write_shards
from tests.laws import consumers, engine_of


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """Shards of so many samples, written once."""
    known = {}

    def find(sizes):
        if sizes not in known:
            known[sizes] = tmp_path_factory.mktemp("shards")
            write_shards(known[sizes], sizes)
        return known[sizes]

    return find


def job(pipe, ranks, workers, tail, state=None):
    """Each rank's batches, from its workers in turn, and the states behind them."""
    engine = engine_of(pipe, ranks, tail=tail)
    cursor = engine.first(0)
    if state is not None:
        engine, cursor = engine.load([state], 0, ranks)
    cursor = cursor._replace(until=pipe.spec.epochs)
    batches, states = [[] for _ in range(ranks)], {}
    for consumer in consumers(ranks, workers):
        run = Run(seed=pipe.spec.seed, consumer=consumer)
        mine = []
        for made in make_batches(engine.plan, engine.division, run, cursor, consumer.worker, workers):
            mine.append((consumer.worker + len(mine) * workers, made.item))
            states[mine[-1][0]] = json.dumps(engine.state(made.after, consumer.rank, ranks))
        batches[consumer.rank] += mine
    return [[batch for _, batch in sorted(each, key=lambda pair: pair[0])] for each in batches], states


def together(batches):
    """The ranks' batches as global ones: sorted (epoch, key)."""
    return [
        sorted((p.epoch, k) for part in parts for k, p in zip(part["__key__"], part["__position__"], strict=True))
        for parts in zip(*batches, strict=True)
    ]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([1, 2, 5, 11]), min_size=1, max_size=5).map(tuple),
    st.sampled_from([False, True, 1, 7]),
    st.sampled_from([(1, 1), (2, 3), (4, 1), (3, 2), (6, 1)]),
    st.sampled_from([(1, 2), (2, 1), (6, 2), (3, 1), (4, 3)]),
    st.sampled_from([12, 24]),
    st.integers(1, 3),
    st.integers(0, 2**40),
    st.sampled_from(["short", "drop", "pad"]),
    st.data(),
)
def test_any_job_gives_the_same_batches_and_goes_on_as_any_other(
    folder_of, sizes, shuffle, first, second, size, epochs, seed, tail, data
):
    def pipe(ranks):
        return sp.stream(str(folder_of(sizes)), seed=seed, shuffle=shuffle, epochs=epochs).batch(size // ranks)

    total = sum(sizes)
    assume(total >= size or tail != "drop")
    parts, states = job(pipe(first[0]), *first, tail)
    whole = together(parts)
    assert len(whole) == epochs * (total // size if tail == "drop" else -(-total // size))

    got = Counter(pair for batch in whole for pair in batch)
    if tail == "drop":
        assert set(got.values()) == {1}
        assert sum(got.values()) == epochs * (total // size) * size
    else:
        assert len(got) == epochs * total
        if tail == "pad":
            assert {len(batch) for batch in whole} == {size}
        elif total % size >= first[0] or total % size == 0:
            assert set(got.values()) == {1}
    assert all(len({epoch for epoch, _ in batch}) == 1 for batch in whole)

    step = data.draw(st.integers(0, len(whole) - 1), label="step")
    rest, _ = job(pipe(second[0]), *second, tail, json.loads(states[step]))
    # A short last batch with fewer samples than ranks has some twice, to have one for each.
    assert [sorted(set(batch)) for batch in together(rest)] == [sorted(set(batch)) for batch in whole[step + 1 :]]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from([2, 5, 11]), min_size=2, max_size=4).map(tuple), st.integers(1, 2), st.integers(0, 2**40)
)
def test_what_a_condition_leaves_is_dealt_and_resumed_alike(folder_of, sizes, ranks, seed):
    def pipe():
        return sp.stream(str(folder_of(sizes)), seed=seed, shuffle=4).where("key >= '0000001'").batch(4 // ranks)

    parts, states = job(pipe(), ranks, 2, "short")
    whole = together(parts)
    wanted = {f"{number:03d}{i:04d}" for number, n in enumerate(sizes) for i in range(n)} - {"0000000"}
    assert {key for batch in whole for _, key in batch} == wanted
    for step in range(len(whole)):
        rest, _ = job(pipe(), ranks, 1, "short", json.loads(states[step]))
        assert together(rest) == whole[step + 1 :]
