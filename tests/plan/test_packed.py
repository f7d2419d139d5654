"""Packs in the planned tier: the laws, over shards whose index knows what samples cost."""

import json
from collections import Counter
from itertools import islice

import numpy as np
import pytest

import streampipe as sp
from streampipe.context import Consumer
from streampipe.counters import counters
from streampipe.plan.pack_plan import PackPlan
from tests.data import shard
from tests.laws import engine_of, run

BUDGET = 500


def ids(sample):
    return {**sample, "ids": np.full(sample["json"]["tokens"], int(sample["__key__"]), np.int32)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, rng, number = tmp_path_factory.mktemp("tokens"), np.random.default_rng(0), 0
    for i, samples in enumerate([90, 0, 210, 40]):
        rows = []
        for _ in range(samples):
            tokens = int(np.clip(np.exp(rng.normal(3.5, 1)), 1, 400))
            rows.append((f"{number:04d}", {"json": json.dumps({"tokens": tokens, "n": number})}))
            number += 1
        (folder / f"{i:05d}.tar").write_bytes(shard(rows))
    return folder


def stream(folder, budget=BUDGET, where=None, pack=None, **options):
    pipe = sp.stream(str(folder), seed=3, shuffle=40, **options)
    pipe = pipe if where is None else pipe.where(where)
    return pipe.decode().map(ids).pack(budget, **{"concat": "ids", **(pack or {})})


def packs_of(pipe, ranks=1, workers=1, epoch=0):
    """The packs of all ranks, step after step and rank after rank."""
    made = {
        (rank, worker): run(pipe, Consumer(rank, ranks, worker, workers), epoch)
        for rank in range(ranks)
        for worker in range(workers)
    }
    found = []
    for step in range(10_000):
        packs = [next(made[rank, step % workers], None) for rank in range(ranks)]
        if packs[0] is None:
            assert all(pack is None for pack in packs), "ranks take different numbers of steps"
            return found
        found += packs
    raise AssertionError("endless")


def keys(packs):
    return [tuple(pack["__key__"]) for pack in packs]


def test_ranks_and_workers_have_the_same_packs_the_tail_included(folder):
    alone = packs_of(stream(folder))
    assert len(alone) % 24 == 0
    assert sorted(key for pack in keys(alone) for key in pack) == [f"{i:04d}" for i in range(340)]
    assert all(len(pack["ids"]) <= BUDGET for pack in alone)
    for ranks, workers in ((2, 1), (3, 2), (4, 1), (6, 1), (8, 1)):
        assert keys(packs_of(stream(folder), ranks, workers)) == keys(alone)
    assert keys(packs_of(stream(folder), epoch=1)) != keys(alone)


@pytest.mark.parametrize("ranks", [5, 7, 32])
def test_on_other_numbers_of_ranks_the_last_step_shares_out_what_is_left(folder, ranks):
    alone, found = packs_of(stream(folder)), packs_of(stream(folder), ranks)
    whole = len(alone) // ranks * ranks
    assert keys(found)[:whole] == keys(alone)[:whole]
    assert len(found) == -(-len(alone) // ranks) * ranks
    assert Counter(key for pack in keys(found) for key in pack) == Counter(f"{i:04d}" for i in range(340))
    assert all(0 < len(pack["ids"]) <= BUDGET for pack in found)


def test_a_run_goes_on_at_any_step_and_on_other_ranks(folder):
    whole = keys(packs_of(stream(folder)))
    for ranks, then, step in ((1, 1, 7), (2, 3, 10), (4, 1, 5), (3, 8, 9), (1, 5, 13)):
        first = stream(folder).loader(rank=0, world_size=ranks)
        list(islice(first, step))
        state = json.loads(json.dumps(first.state_dict()))
        assert len(json.dumps(state)) < 1000
        rest = []
        for rank in range(then):
            loader = stream(folder).loader(rank=rank, world_size=then)
            loader.load_state_dict(state)
            rest.append(keys(loader))
        assert len({len(each) for each in rest}) == 1
        found = [pack for packs in zip(*rest, strict=True) for pack in packs]
        left = whole[step * ranks :]
        assert found[: len(left) // then * then] == left[: len(left) // then * then]
        assert sorted(key for pack in found for key in pack) == sorted(key for pack in left for key in pack)


def test_a_state_goes_on_twice_and_names_what_does_not_fit(folder):
    whole = keys(packs_of(stream(folder)))
    first = stream(folder).loader(rank=1, world_size=4)
    list(islice(first, 3))
    second = stream(folder).loader(rank=0, world_size=2)
    second.load_state_dict(first.state_dict())
    assert keys(islice(second, 2)) == [whole[12], whole[14]]
    third = stream(folder).loader()
    third.load_state_dict(second.state_dict())
    assert keys(third) == whole[16:]
    other = stream(folder, budget=600).loader()
    with pytest.raises(sp.ConfigError, match=r"what is packed, .* is '600 by tokens: .* and was '500 by tokens: "):
        other.load_state_dict(second.state_dict())


def test_what_is_left_out_is_decided_by_the_index_and_counted(folder):
    rows = [len(pack["ids"]) for pack in packs_of(stream(folder, where="tokens < 300 and n >= 50"))]
    assert max(rows) <= BUDGET
    counters.take()
    short = packs_of(stream(folder, pack={"limit": 100}))
    found = {key: len(part) for pack in short for key, part in _parts(pack)}
    assert max(found.values()) <= 100
    assert counters.get("pack", "left out, cost above limit") == 340 - len(found) > 0


def _parts(pack):
    ends = pack["cu_seqlens"].tolist()
    return [(key, pack["ids"][a:b]) for key, a, b in zip(pack["__key__"], ends[:-1], ends[1:], strict=True)]


def test_a_sample_above_the_budget_is_an_error_that_names_it_or_is_skipped(folder):
    with pytest.raises(
        sp.StageError,
        match=r"\d+ cost more than the budget of 200; the first is '\d{4}' of .*tar, which costs \d+; leave",
    ):
        packs_of(stream(folder, budget=200))
    counters.take()
    found = packs_of(stream(folder, budget=200, on_error="skip"))
    assert all(len(pack["ids"]) <= 200 for pack in found)
    assert counters.get("pack", "skipped, cost above budget") == 340 - sum(len(pack["__key__"]) for pack in found)
    with pytest.raises(sp.ConfigError, match=r"all 340 samples cost more than limit=1: check it and cost"):
        packs_of(stream(folder, pack={"limit": 1, "cost": "n + 2"}))


def test_every_part_of_a_pack_is_its_sample(folder):
    for pack in packs_of(stream(folder)):
        for key, part in _parts(pack):
            assert part.tolist() == [int(key)] * len(part)
        segments = pack["segment_ids"].tolist()
        assert [pack["__key__"][i] for i in segments] == [f"{n:04d}" for n in pack["ids"].tolist()]
        assert pack["position_ids"].tolist() == [i for _, part in _parts(pack) for i in range(len(part))]


def test_explain_says_the_fill(folder):
    pipe = stream(folder, pack={"limit": 100})
    text = pipe.explain()
    packs = packs_of(pipe)
    fill = sum(len(pack["ids"]) for pack in packs) / (len(packs) * BUDGET)
    assert f"{100 * fill:.1f} % of the budget of 500" in text
    assert f"{len(packs)} an epoch" in text
    assert "samples left out, cost above limit" in text
    assert "the same batches on any ranks and workers; O(1) resume" in text


def test_costs_that_no_index_knows_take_the_chain_into_lanes(folder):
    for pack, why in (
        ({"cost": "length"}, "no index knows what a sample costs"),
        ({"cost": lambda sample: len(sample["ids"])}, "stage pack"),
    ):
        engine = engine_of(stream(folder, pack=pack))
        assert engine.kind == "lanes"
        assert why in engine.why
    assert isinstance(engine_of(stream(folder)).plan, PackPlan)
    taken = sp.stream(str(folder)).take(50).decode().map(ids).pack(BUDGET, concat="ids")
    assert engine_of(taken).kind == "lanes"
    with pytest.raises(sp.ConfigError, match="tier='planned' cannot be: no index knows what a sample costs"):
        engine_of(stream(folder, tier="planned", pack={"cost": "length"}))


def half(sample):
    return int(sample["__key__"][:4]) % 2 == 0


def test_stages_that_drop_or_split_samples_are_packed_behind_in_their_lanes(folder):
    twice = sp.stream(str(folder), shuffle=True, seed=1).decode().flat_map(lambda sample: [sample, sample])
    kept = sp.stream(str(folder), shuffle=True, seed=1).filter(half).decode()
    for pipe, samples in ((kept, 170), (twice, 680), (twice.filter(half), 340)):
        packed = pipe.pack(BUDGET, window=50)
        assert engine_of(packed).kind == "lanes"
        whole = keys(packed.loader())
        assert sum(map(len, whole)) == samples
        first, second = packed.loader(), packed.loader()
        begun = keys(islice(first, 9))
        second.load_state_dict(first.state_dict())
        assert begun + keys(second) == whole


def test_buckets_mixtures_and_tails_say_how_they_go_with_packs(folder):
    plain = sp.stream(str(folder))
    with pytest.raises(sp.ConfigError, match="bucket and pack both decide which samples come together"):
        engine_of(plain.bucket([(8, 8)]).decode().pack(9))
    with pytest.raises(sp.ConfigError, match="all batched, or none"):
        sp.mix([plain.pack(BUDGET), plain])
    with pytest.raises(sp.ConfigError, match="tail= has no meaning with pack"):
        engine_of(stream(folder), tail="drop")
    with pytest.raises(sp.ConfigError, match="batches of batches"):
        stream(folder).batch(2)


def mixed(folder, **options):
    parts = [sp.stream(str(folder), seed=i, shuffle=20).where(where) for i, where in enumerate(("n < 100", "n >= 100"))]
    return sp.mix([part.decode().map(ids) for part in parts], seed=1, **options).pack(BUDGET, concat="ids")


def test_a_mixture_is_packed_as_one_dataset_with_the_shares_of_its_parts(folder):
    alone = packs_of(mixed(folder, repeats=[2, 1]))
    assert Counter(key for pack in keys(alone) for key in pack) == {f"{i:04d}": 1 + (i < 100) for i in range(340)}
    assert all(len(pack["ids"]) <= BUDGET for pack in alone)
    assert any(len({key < "0100" for key in pack}) == 2 for pack in keys(alone))
    for ranks in (3, 8):
        assert keys(packs_of(mixed(folder, repeats=[2, 1]), ranks)) == keys(alone)
    first, second = (mixed(folder, repeats=[2, 1]).loader() for _ in range(2))
    begun = keys(islice(first, 7))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert begun + keys(second) == keys(alone)


def test_a_mixture_by_weights_has_them_over_epochs(folder):
    pipe = mixed(folder, weights=[1, 1])
    seen = Counter()
    for epoch in range(3):
        seen.update(key < "0100" for pack in keys(packs_of(pipe, epoch=epoch)) for key in pack)
    assert abs(seen[True] - seen[False]) <= 0.1 * seen[True]
    assert "of the budget of 500" in pipe.explain()


def test_a_mixture_that_cannot_be_planned_is_packed_as_its_samples_come(folder):
    limited = sp.stream(str(folder)).take(50)
    packs = list(
        sp.mix([limited, sp.stream(str(folder)).where("n >= 100")], repeats=[1, 1]).decode().map(ids).pack(BUDGET)
    )
    assert sum(len(pack["__key__"]) for pack in packs) == 290
