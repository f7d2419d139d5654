"""Buckets in the planned tier: exact, equal steps, elastic, resumable at any step; and the same words in both tiers."""

import json
import random
from collections import Counter
from itertools import chain, islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import streampipe as sp
from streampipe.counters import counters
from streampipe.index.answers import Tally
from streampipe.plan.bucket_plan import BucketPlaces, make_plan
from streampipe.plan.bucketed import BucketDataset
from streampipe.plan.dataset import Dataset
from streampipe.plan.lanes import Shuffle
from tests.data import shard

SIZES = [(16, 8), (8, 8), (8, 16), (40, 8)]  # (height, width), as all sizes are
SHAPES = [(20, 10), (30, 30), (30, 31), (100, 200), (50, 10)]


def write_sized(folder, counts, shapes=SHAPES, weights=(6, 6, 6, 5, 1), prefix=""):
    """Shards of samples without images, whose json states a width and a height; keys by their size."""
    rng = random.Random(5)
    sizes, number = {}, 0
    for i, count in enumerate(counts):
        rows = []
        for _ in range(count):
            h, w = rng.choices(shapes, weights)[0]
            key, number = f"{prefix}{number:06d}", number + 1
            sizes[key] = h, w
            rows.append((key, {"json": json.dumps({"width": w, "height": h}), "txt": key}))
        (folder / f"{i:05d}.tar").write_bytes(shard(rows))
    return sizes


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sized")
    write_sized(folder, [7, 1, 9, 4, 6, 3, 11])
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    return folder, write_sized(folder, [40, 25, 60, 31] * 12)


def bucketed(folder, size=3, spec=SIZES, leftover="carry", same=None, **options):
    pipe = sp.stream(str(folder), **{"seed": 3, "shuffle": 8, **options})
    return pipe.bucket(spec, tail=leftover, same=same).decode().batch(size)


def keys(batches):
    return [batch["__key__"] for batch in batches]


def seen(batches):
    return [(p.epoch, key) for b in batches for key, p in zip(b["__key__"], b["__position__"], strict=True)]


def check_one_bucket(batch, spec=SIZES, sizes=None):
    (size,) = set(batch["__size__"])
    assert size in spec
    if sizes is not None:
        buckets = sp.Buckets(spec)
        shapes = np.array([sizes[key] for key in batch["__key__"]]).T
        assert {buckets.sizes[i] for i in buckets.assign(*shapes)} == {size}


def test_every_batch_is_full_and_of_one_bucket_and_no_draw_is_lost_over_epochs(many):
    folder, sizes = many
    loader = bucketed(folder, 16).loader()
    everything, lengths = [], []
    for _ in range(4):
        wanted = len(loader)
        batches = list(loader)
        assert len(batches) == wanted
        lengths.append(wanted)
        for batch in batches:
            assert len(batch["__key__"]) == 16
            check_one_bucket(batch, sizes=sizes)
        everything += seen(batches)
    assert len(everything) == len(set(everything)), "a sample came twice in one epoch of its bucket"
    late = 4 * len(sizes) - len(everything)
    assert late < 4 * 16
    assert {epoch for epoch, _ in everything} == {0, 1, 2, 3}


@pytest.mark.parametrize("same", [True, False])
def test_merge_gives_every_sample_once_an_epoch(many, same):
    folder, sizes = many
    for _ in range(2):
        loaders = [
            bucketed(folder, 16, leftover="merge", same=same).loader(rank=rank, world_size=3) for rank in range(3)
        ]
        got = [list(loader) for loader in loaders]
        assert [len(each) for each in got] == [len(loaders[0])] * 3
        assert Counter(chain(*(chain(*keys(each)) for each in got))) == Counter(sizes.keys())
        for step in zip(*got, strict=True):
            for batch in step:
                check_one_bucket(batch)
            if same:
                assert len({batch["__size__"][0] for batch in step}) == 1


@pytest.mark.parametrize("leftover", ["carry", "merge", "drop"])
@pytest.mark.parametrize("same", [True, False])
def test_three_ranks_take_equal_steps_over_seven_shards(shards, leftover, same):
    for epoch in range(5):
        steps = []
        for rank in range(3):
            loader = bucketed(shards, 2, leftover=leftover, same=same, epochs=3).loader(rank=rank, world_size=3)
            loader.set_epoch(epoch)
            wanted = len(loader)
            steps.append([batch["__size__"][0] for batch in loader])
            assert len(steps[-1]) == wanted
        assert len({len(each) for each in steps}) == 1
        if same:
            assert steps[0] == steps[1] == steps[2]
        elif leftover == "carry":
            assert steps[0] != steps[1]


def test_drop_leaves_out_what_fills_no_batch_and_counts_it(many):
    folder, sizes = many
    before = counters.snapshot()
    loader = bucketed(folder, 16, leftover="drop").loader()
    got = list(chain(*keys(loader)))
    assert len(got) == len(set(got)) == 16 * len(loader)
    after = counters.snapshot()
    left = sum(after[at] - before.get(at, 0) for at in after if at[1] == "left out")
    assert left == len(sizes) - len(got) > 0


@pytest.mark.parametrize(("leftover", "workers"), [("carry", 0), ("carry", 1), ("carry", 3), ("merge", 0)])
def test_every_step_resumes_to_the_same_batches_and_the_same_next_epoch(shards, leftover, workers):
    reference = bucketed(shards, leftover=leftover).loader(num_workers=workers)
    whole, following = keys(reference), keys(reference)
    for step in range(len(whole) + 1):
        loader = bucketed(shards, leftover=leftover).loader(num_workers=workers)
        batches = iter(loader)
        got = [next(batches)["__key__"] for _ in range(step)]
        state = json.loads(json.dumps(loader.state_dict()))
        fresh = bucketed(shards, leftover=leftover).loader(num_workers=workers)
        fresh.load_state_dict(state)
        assert fresh.state_dict() == state
        if step == len(whole):
            assert len(fresh) == len(following)
            assert keys(fresh) == following
            continue
        assert len(fresh) == len(whole)
        assert got + keys(fresh) == whole, f"step {step}"
        if step % 4 == 0:
            assert len(fresh) == len(following)
            assert keys(fresh) == following


def test_a_plain_dataloader_resumes_at_every_step(shards):
    whole = keys(DataLoader(bucketed(shards), batch_size=None))
    assert sorted(map(sorted, keys(DataLoader(bucketed(shards), batch_size=None, num_workers=3)))) == sorted(
        map(sorted, whole)
    )
    for step in range(len(whole)):
        pipe = bucketed(shards)
        batches = iter(DataLoader(pipe, batch_size=None))
        got = [next(batches)["__key__"] for _ in range(step)]
        fresh = bucketed(shards)
        fresh.load_state_dict(json.loads(json.dumps(pipe.state_dict())))
        assert got + keys(DataLoader(fresh, batch_size=None)) == whole


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.filterwarnings("ignore")
def test_torchdatas_stateful_dataloader_resumes_at_every_step(shards, workers):
    StatefulDataLoader = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
    whole = keys(StatefulDataLoader(bucketed(shards), batch_size=None, num_workers=workers))
    for step in range(1, len(whole)):
        loader = StatefulDataLoader(bucketed(shards), batch_size=None, num_workers=workers)
        batches = iter(loader)
        got = [next(batches)["__key__"] for _ in range(step)]
        state = loader.state_dict()
        del batches
        fresh = StatefulDataLoader(bucketed(shards), batch_size=None, num_workers=workers)
        fresh.load_state_dict(state)
        assert got + keys(fresh) == whole, f"step {step}"


def global_batches(folder, ranks, workers, state=None, limit=None, size=24, **options):
    """The samples of each step, slot by slot: slot q of a global batch is sample q div R of rank q mod R."""
    loaders = [
        bucketed(folder, size // ranks, **options).loader(num_workers=workers, rank=rank, world_size=ranks)
        for rank in range(ranks)
    ]
    for loader in loaders:
        if state is not None:
            loader.load_state_dict(state)
    batches, running = [], [iter(loader) for loader in loaders]
    while limit is None or len(batches) < limit:
        parts = [next(each, None) for each in running]
        if parts[0] is None:
            assert parts == [None] * ranks
            break
        slots = [None] * sum(len(part["__key__"]) for part in parts)
        for rank, part in enumerate(parts):
            slots[rank::ranks] = part["__key__"]
        batches.append(slots)
    states = [loader.state_dict() for loader in loaders]
    assert all(each == states[0] for each in states)
    return batches, states[0]


@pytest.mark.parametrize("leftover", ["carry", "merge"])
def test_global_batches_are_the_same_slot_by_slot_on_any_ranks_and_workers(many, leftover):
    options = {"leftover": leftover, "shuffle": 50}
    whole, _ = global_batches(many[0], 8, 0, **options)
    first, state = global_batches(many[0], 4, 3, limit=5, **options)
    assert len(json.dumps(state)) < 500
    for ranks, workers in [(1, 0), (2, 2), (6, 0)]:
        rest, _ = global_batches(many[0], ranks, workers, state, **options)
        assert first + rest == whole, f"{ranks} ranks, {workers} workers"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"spec": SIZES[:3]}, r"the set of buckets is 'Buckets\(3 from .*' here and was 'Buckets\(4 from 40x8 to 8x16"),
        ({"leftover": "merge"}, "the policy for leftovers is 'merge' here and was 'carry'"),
        ({"same": False}, r"the number of buckets at a step \(.*\) is 2 here and was 1"),
        ({"seed": 4}, "the seed is 4 here and was 3"),
    ],
)
def test_a_state_of_another_bucket_spec_is_refused_with_both_values(shards, change, words):
    ranks = {"rank": 0, "world_size": 2}
    loader = bucketed(shards, 2).loader(**ranks)
    next(iter(loader))
    other = bucketed(shards, **{"size": 2, **change}).loader(**ranks)
    with pytest.raises(sp.ConfigError, match=words):
        other.load_state_dict(loader.state_dict())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lanes": [1 << 50, 1]}, r"its lanes are \[1125899906842624, 1\]"),
        ({"lanes": [1, 7]}, "buckets have 1 to 48 x 1"),
        ({"at": [0, 1 << 50]}, "the state is at step 1125899906842624 of epoch 0, which has"),
        ({"batch": [3, 4]}, "the state's batch is .* which do not fit 4 buckets: it is damaged"),
        ({"buckets": None}, "the set of buckets is .* and was None"),
    ],
)
def test_a_damaged_state_is_refused(shards, change, words):
    loader = bucketed(shards).loader()
    next(iter(loader))
    fresh = bucketed(shards).loader()
    with pytest.raises(sp.ConfigError, match=words):
        fresh.load_state_dict({**loader.state_dict(), **change})


def test_states_with_and_without_buckets_do_not_mix(shards):
    plain = sp.stream(str(shards), seed=3, shuffle=8).decode().batch(3).loader()
    loader = bucketed(shards).loader()
    for one, other in ((plain, loader), (loader, plain)):
        next(iter(one))
        with pytest.raises(sp.ConfigError, match=r"the set of buckets is .*None"):
            other.load_state_dict(one.state_dict())


def test_a_resume_reads_nothing_of_what_came_before(many):
    loader = bucketed(many[0], 16).loader()
    batches = iter(loader)
    for _ in range(60):
        next(batches)
    fresh = bucketed(many[0], 16).loader()
    fresh.load_state_dict(loader.state_dict())
    before = counters.get("reading", "samples in")
    assert len(next(iter(fresh))["__key__"]) == 16
    assert counters.get("reading", "samples in") - before == 16


def test_batches_have_sizes_of_their_own_or_a_pixel_budget(many):
    sizes = {(16, 8): 4, (8, 8): 6, (8, 16): 5, (40, 8): 1}
    for batch in bucketed(many[0], sizes).loader(num_workers=2):
        assert len(batch["__key__"]) == sizes[batch["__size__"][0]]
    pipe = sp.stream(str(many[0]), shuffle=True).bucket(SIZES).batch(pixels=640)
    for batch in pipe.loader(rank=1, world_size=2):
        height, width = batch["__size__"][0]
        assert len(batch["__key__"]) == 640 // (width * height)


def test_several_areas_are_planned_alike_on_any_ranks_with_a_batch_size_each(many):
    areas = sp.Buckets(base=(8, 16), step=4)

    def steps(ranks, state=None):
        pipe = sp.stream(str(many[0]), seed=3, shuffle=8).bucket(areas).batch({8: 12 // ranks, 16: 4 // ranks})
        loaders = [pipe.loader(rank=rank, world_size=ranks) for rank in range(ranks)]
        for loader in loaders:
            loader.load_state_dict(state or loader.state_dict())
        return [
            (set(chain(*(each["__size__"] for each in parts))), sorted(chain(*(each["__key__"] for each in parts))))
            for parts in zip(*loaders, strict=True)
        ]

    whole = steps(1)
    assert steps(2) == steps(4) == whole
    for (size,), mine in whole:
        assert len(mine) == (12 if areas.areas[size] == 8 else 4)
        assert {areas.sizes[areas.of(*many[1][key])] for key in mine} == {size}
    assert {areas.areas[size] for (size,), _ in whole} == {8, 16}
    loader = sp.stream(str(many[0]), seed=3, shuffle=8).bucket(areas).batch({8: 12, 16: 4}).loader()
    batches = iter(loader)
    for _ in range(7):
        next(batches)
    assert steps(2, loader.state_dict()) == whole[7:]


def test_conditions_before_and_behind_bucket_are_answered_by_the_index(many):
    folder, sizes = many
    stream = sp.stream(str(folder), shuffle=True)
    a = stream.where("json.width > 10").bucket(SIZES, tail="merge").batch(16)
    b = stream.bucket(SIZES, tail="merge").where("json.width > 10").batch(16)
    assert keys(a.loader()) == keys(b.loader())
    assert sorted(chain(*keys(a.loader()))) == [key for key, (_, w) in sizes.items() if w > 10]
    rows = dict(line.split("  ", 1) for line in a.explain(world_size=2).splitlines())
    rows = {name.strip(): text.strip() for name, text in rows.items()}
    assert rows["pushed down"].startswith("where (json.width > 10), bucket(buckets=Buckets(4 from 40x8 to 8x16")
    assert "in the first epoch on each of 2 ranks" in rows["steps"]
    assert "a step is one bucket on all ranks" in rows["steps"]
    assert rows["8x8"].split(",")[0].endswith(" %)")
    assert rows["guarantees"].startswith("every sample once an epoch")
    sequential = sp.stream(str(folder), tier="sequential").bucket(SIZES, tail="merge").where("json.width > 10")
    assert sorted(chain(*keys(sequential.batch(16).loader()))) == sorted(chain(*keys(a.loader())))


def test_images_beyond_max_ar_are_left_out_and_counted(many):
    folder, sizes = many
    pipe = sp.stream(str(folder)).bucket(sp.Buckets(SIZES, max_ar=4), tail="merge").batch(8)
    assert "samples longer than max_ar" in pipe.explain()
    before = counters.get("bucket", "dropped (longer than max_ar)")
    got = sorted(chain(*keys(pipe.loader())))
    wanted = [key for key, (h, w) in sizes.items() if max(w, h) <= 4 * min(w, h)]
    assert got == wanted
    assert counters.get("bucket", "dropped (longer than max_ar)") - before == len(sizes) - len(wanted) > 0


def test_report_has_the_histogram(many):
    counters.take()
    loader = bucketed(many[0], 16).loader(num_workers=2)
    batches = list(loader)
    lines = [line for line in loader.report().splitlines() if line.startswith("bucket ")]
    assert [line.split()[1] for line in lines] == ["40x8", "16x8", "8x8", "8x16"]
    wide = sum(batch["__size__"][0] == (8, 16) for batch in batches)
    assert f"{wide} batches, {16 * wide} samples" in lines[3]
    assert "0.0 % of each cut away" in lines[3]
    assert sum(int(line.split("width)")[1].split()[0]) for line in lines) == len(batches)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 12), min_size=4, max_size=4), min_size=1, max_size=7),
    st.lists(st.integers(1, 4), min_size=4, max_size=4),
    st.sampled_from([None, 0, 5, 40]),
    st.sampled_from(["carry", "merge", "drop"]),
    st.booleans(),
)
def test_places_cover_epochs_in_equal_steps_on_any_ranks(matrix, sizes, window, leftover, same):
    """In integers alone: over ranks every sample of the matrix stands where the policy says, slot by slot the same."""
    counts = np.array(matrix)
    whole = Dataset([f"{i}.tar" for i in range(len(counts))], None, counts.sum(1))
    dataset = BucketDataset(whole, sp.Buckets(SIZES), Tally(counts.astype(np.int32), np.zeros(4)))
    wanted = Counter((shard, i) for shard, n in enumerate(counts.sum(1)) for i in range(n))
    seen = {}
    for ranks in (1, 2, 4) if same else (3,):
        per_rank = [size * 4 // ranks for size in sizes] if same else sizes
        plan = make_plan(dataset, per_rank, ranks, Shuffle(window), 9, "", leftover=leftover, same=same)
        plan = plan.with_lanes(3, 1, window or 0)
        if plan.is_empty:
            return
        readers = [BucketPlaces(dataset, plan, rank, ranks) for rank in range(ranks)]
        for epoch in range(3):
            for step in range(plan.batches_in(epoch)):
                parts = [reader(epoch, step) for reader in readers]
                slots = [None] * sum(map(len, parts))
                for rank, part in enumerate(parts):
                    assert len({place.size for place in part}) == 1
                    slots[rank::ranks] = part if same else slots[rank::ranks]
                seen.setdefault(ranks, []).append((epoch, slots if same else list(chain(*parts))))
    if same and leftover != "merge":  # a short last batch gives every rank a sample, some of them twice
        assert seen.get(1) == seen.get(2) == seen.get(4)
    for batches in seen.values():
        drawn = Counter((place.epoch, place.shard, place.number) for _, batch in batches for place in batch)
        if leftover == "merge":
            for epoch in range(3):
                mine = Counter((p.shard, p.number) for e, batch in batches for p in batch if e == epoch)
                assert set(mine) == set(wanted)
                assert sum(mine.values()) - len(mine) < 4
        else:
            assert not drawn or max(drawn.values()) == 1
            assert {place[1:] for place in drawn} <= set(wanted)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    found = []
    for name, counts, weights in (("a", [40, 30, 50], (6, 6, 6, 5, 1)), ("b", [9, 12], (1, 0, 9, 1, 0))):
        folder = tmp_path_factory.mktemp(name)
        found.append((folder, set(write_sized(folder, counts, weights=weights, prefix=name))))
    return found


def mixed(two, size=8, leftover="merge", **options):
    parts = [sp.stream(str(folder), seed=i, shuffle=20).decode() for i, (folder, _) in enumerate(two)]
    return sp.mix(parts, **options).bucket(SIZES, tail=leftover).batch(size)


def test_a_mixture_has_buckets_over_all_its_parts(two):
    (_, a), (_, b) = two
    got = Counter(chain(*keys(mixed(two).loader())))
    assert got == Counter(a | b)
    for batch in mixed(two, repeats=[1, 3]).loader(num_workers=2):
        check_one_bucket(batch)
    loader = mixed(two, repeats=[1, 3]).loader()
    for _ in range(2):
        got = Counter(chain(*keys(loader)))
        assert {got[key] for key in a} == {1}
        assert {got[key] for key in b} == {3}
    loader = mixed(two, weights=[1, 1], leftover="carry", epochs=6).loader()
    got = Counter(chain(*keys(loader)))
    ours, theirs = (sum(got[key] for key in each) for each in (a, b))
    assert abs(ours - theirs) < 6 * 4 + 4 * 8
    assert set(got) == a | b
    assert max(got[key] for key in b) - min(got[key] for key in b) <= 3


def test_a_mixture_with_buckets_resumes_at_any_step_on_any_ranks(two):
    def whole_steps(ranks, state=None):
        loaders = [mixed(two, 8 // ranks, weights=[2, 1]).loader(rank=r, world_size=ranks) for r in range(ranks)]
        for loader in loaders:
            loader.load_state_dict(state) if state else None
        return [sorted(chain(*(part["__key__"] for part in parts))) for parts in zip(*loaders, strict=True)], loaders

    whole, _ = whole_steps(1)
    for step in range(0, len(whole), 3):
        loader = mixed(two, weights=[2, 1]).loader()
        batches = iter(loader)
        got = [sorted(next(batches)["__key__"]) for _ in range(step)]
        rest, _ = whole_steps(2 if step % 2 else 1, json.loads(json.dumps(loader.state_dict())))
        assert [set(each) for each in got + rest] == [set(each) for each in whole]
    other = mixed(two, weights=[3, 1]).loader()
    with pytest.raises(sp.ConfigError, match="is .* here and was"):
        other.load_state_dict(loader.state_dict())


def test_mistakes_are_refused_early(shards, tmp_path):
    stream = sp.stream(str(shards))
    for make, words in [
        (lambda: stream.batch(pixels=100), r"need bucket\(...\) before"),
        (lambda: stream.batch({(8, 8): 1}), r"need bucket\(...\) before"),
        (lambda: stream.batch(), "a size, or pixels="),
        (lambda: stream.bucket(SIZES, tail="keep"), "tail is one of"),
        (lambda: stream.bucket(SIZES, max_bytes=0), "max_bytes is .* 1 or more bytes, not 0"),
        (lambda: stream.bucket(SIZES).batch(0), "size is a whole number, 1 or more, not 0"),
        (lambda: stream.bucket(SIZES).batch(pixels=0), "pixels is a whole number, 1 or more, or None, not 0"),
        (lambda: stream.bucket(SIZES).batch({(8, 8): 0}), "size is a whole number, 1 or more, not 0"),
        (lambda: stream.bucket(SIZES).batch({(8, 9): 2}).explain(), "no size for"),
        (lambda: stream.bucket(SIZES).shuffle(3).batch(2).explain(), "'shuffle' cannot stand between bucket and batch"),
        (lambda: stream.bucket(SIZES).bucket(SIZES).batch(2).explain(), "bucket and bucket both decide"),
        (lambda: stream.bucket(SIZES).batch(2, tail="drop").explain(), "leave out batch.tail"),
        (lambda: next(iter(bucketed(shards).loader(tail="pad"))), "tail= has no meaning with buckets"),
        (
            lambda: next(iter(sp.stream(str(shards)).filter(bool).bucket("photo").batch(2).loader(tail="drop"))),
            "tail= has no meaning with buckets",
        ),
        (lambda: next(iter(bucketed(shards, 1000).loader())), "no bucket has enough of the 41 samples"),
    ]:
        with pytest.raises(sp.ConfigError, match=words):
            make()
    assert len(list(bucketed(shards, 1000, leftover="merge").loader())) == 1
    (tmp_path / "0.tar").write_bytes(shard([("a", {"txt": "no size"})]))
    with pytest.raises(sp.StageError, match="1 samples have no image whose size can be read.*the first is 'a'"):
        next(iter(sp.stream(str(tmp_path)).bucket(SIZES).batch(1).loader()))


def fails_for(text):
    if text.endswith("3"):
        raise ValueError("bad")
    return text


@pytest.mark.parametrize("tier", ["planned", "sequential"])
@pytest.mark.parametrize("workers", [0, 2])
def test_the_slot_of_a_skipped_sample_is_filled_from_its_own_batch(shards, tier, workers):
    policy = sp.ErrorPolicy("skip", max_share=1.0)
    pipe = sp.stream(str(shards), shuffle=5, seed=1, on_error=policy, tier=tier).bucket(SIZES, tail="drop")
    pipe = pipe.decode().map(fails_for, "txt").batch(4)
    before = counters.get("batch", "slots filled")
    batches = list(pipe.loader(num_workers=workers))
    assert batches
    for batch in batches:
        assert len(batch["__key__"]) == 4
        check_one_bucket(batch)
    assert not any(key.endswith("3") for key in chain(*keys(batches)))
    assert counters.get("batch", "slots filled") > before


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("buckets", [False, True])
def test_a_batch_of_nothing_but_skipped_samples_is_made_of_another_steps(shards, buckets, workers):
    """Batches of one sample: a bad one must not end the run, and the ranks stay in step."""
    policy = sp.ErrorPolicy("skip", max_share=1.0)
    pipe = sp.stream(str(shards), shuffle=5, seed=1, on_error=policy)
    pipe = pipe.bucket(SIZES, tail="drop").decode() if buckets else pipe.decode(32)
    pipe = pipe.map(fails_for, "txt").batch(1)
    what = "batches made of other steps' samples (theirs were all skipped)"
    before = counters.get("batch", what)
    ranks = [list(first_epoch(pipe, workers, rank)) for rank in (0, 1)]
    assert counters.get("batch", what) > before
    assert len(ranks[0]) == len(ranks[1])
    assert not any(key.endswith("3") for rank in ranks for key in chain(*keys(rank)))
    if buckets:
        assert all(a["__size__"] == b["__size__"] for a, b in zip(*ranks, strict=True))
    loader = first_epoch(pipe, workers, 0)
    heard = [batch["__key__"] for batch in islice(loader, 5)]
    resumed = pipe.loader(rank=0, world_size=2)
    resumed.load_state_dict(loader.state_dict())
    assert heard + keys(resumed) == keys(ranks[0])


def first_epoch(pipe, workers, rank):
    pipe.set_epoch(0)
    return pipe.loader(workers, rank=rank, world_size=2)
