"""Pools of encoded samples: what goes in comes out, in groups of one bucket, bounded, and the same after a resume."""

import io
import json
from collections import Counter
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

import streampipe as sp
from streampipe import stages
from streampipe.context import Consumer, Run
from streampipe.counters import counters
from streampipe.plan.buckets import make
from streampipe.policy import ErrorPolicy
from streampipe.stages.bucket import MAX_BYTES, Pools
from tests.data import shard
from tests.laws import check_lazy, check_picklable, run
from tests.plan.test_bucketed import SIZES, check_one_bucket, keys, write_sized


def stated(key, width, height, size=0):
    return {"__key__": key, "json": json.dumps({"width": width, "height": height}).encode(), "txt": b"x" * size}


def groups(samples, buckets="photo", size=3, leftover="carry", max_bytes=MAX_BYTES, run=None):
    buckets = make(buckets)
    pools = Pools(buckets, (size,) * len(buckets), leftover, max_bytes, run or Run(stage="bucket"))
    return [group.samples for group in pools.groups(samples)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 4000), st.integers(1, 4000)), max_size=60),
    st.sampled_from(["carry", "merge", "drop"]),
    st.integers(1, 5),
    st.sampled_from([MAX_BYTES, 500, 1]),
)
def test_every_sample_comes_out_once_in_a_group_of_one_size_or_is_counted(shapes, leftover, size, max_bytes):
    counters.take()
    samples = [stated(f"{i}", *shape, size=100) for i, shape in enumerate(shapes)]
    found = groups(samples, size=size, leftover=leftover, max_bytes=max_bytes)
    for group in found:
        assert 1 <= len(group) <= size
        assert len({each["__size__"] for each in group}) == 1
    given_out = Counter(each["__key__"] for group in found for each in group)
    assert max(given_out.values(), default=1) == 1
    left = sum(n for (_, what), n in counters.take().sums.items() if what == "left out")
    assert len(given_out) + left == len(shapes)
    if leftover == "drop":
        assert all(len(group) == size for group in found)
    else:
        assert not left
    if leftover == "merge" and max_bytes == MAX_BYTES:
        assert len(found) == -(-len(shapes) // size) if size == 1 else True


@pytest.mark.parametrize("max_bytes", [400, 3000])
def test_pools_never_hold_more_than_max_bytes(max_bytes):
    shapes = [(100, 100 + 40 * (i % 9)) for i in range(200)]
    samples = [stated(f"{i}", *shape, size=60) for i, shape in enumerate(shapes)]
    held = most = 0
    for leftover in ("carry", "merge", "drop"):
        pools = Pools(make("sdxl"), (50,) * 33, leftover, max_bytes, Run(stage="bucket"))

        def watched(pools=pools):
            nonlocal most
            for sample in samples:
                most = max(most, sum(pools._bytes))
                yield sample

        held += sum(len(group.samples) for group in pools.groups(watched()))
    assert most <= max_bytes
    assert held >= 400  # under carry and merge, all of them


def test_a_group_filled_in_time_is_not_cut_short_and_one_that_is_is_counted():
    counters.take()
    samples = [stated(f"{i}", 100, 100, size=100) for i in range(6)]
    assert [len(group) for group in groups(samples, max_bytes=400)] == [3, 3]
    assert [len(group) for group in groups(samples, size=5, max_bytes=400)] == [4, 2]
    assert counters.get("bucket", "batches cut short by max_bytes") == 1


def test_merged_leftovers_go_to_the_size_that_cuts_least():
    samples = [stated("a", 1000, 1000), stated("b", 1250, 1000), stated("c", 1000, 1000), stated("d", 400, 1000)]
    (one, other) = groups(samples, leftover="merge")
    assert ([each["__key__"] for each in one], one[0]["__size__"]) == (["d", "a", "c"], (1024, 1024))
    assert ([each["__key__"] for each in other], other[0]["__size__"]) == (["b"], (912, 1152))


@pytest.fixture(scope="module")
def sized(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sized")
    return folder, write_sized(folder, [40, 25, 60, 31] * 2)


def sequential(folder, size=5, leftover="carry", **options):
    pipe = sp.stream(str(folder), tier="sequential", **{"seed": 3, "shuffle": 20, **options})
    return pipe.bucket(SIZES, tail=leftover).decode().batch(size)


def test_8_ranks_with_8_workers_lose_nothing_under_carry(sized):
    """A pool in each of 64 workers, far fewer samples than would fill all of them: every one comes once an epoch."""
    folder, sizes = sized
    pipe = sequential(folder, 16, epochs=3)
    seen = Counter()
    for number in range(64):
        for batch in run(pipe, Consumer(number % 8, 8, number // 8, 8), 0):
            check_one_bucket(batch, sizes=sizes)
            seen.update(zip(batch["__key__"], (p.epoch for p in batch["__position__"]), strict=True))
    assert seen == Counter((key, epoch) for key in sizes for epoch in range(3))


def test_pools_carry_over_the_epochs_of_a_pass(sized):
    batches = list(sequential(sized[0], 16, epochs=4).loader())
    short = [batch for batch in batches if len(batch["__key__"]) < 16]
    assert len(short) <= len(SIZES)
    assert batches[-len(short) :] == short
    endless = sequential(sized[0], 16, epochs=None).loader(num_workers=2)
    assert all(len(batch["__key__"]) == 16 for batch, _ in zip(endless, range(150), strict=False))


@pytest.mark.parametrize("leftover", ["carry", "merge", "drop"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_sequential_pass_resumes_at_any_step(sized, leftover, workers):
    def loader():
        return sequential(sized[0], 16, leftover).loader(num_workers=workers)

    whole = keys(loader())
    for step in (0, 1, len(whole) // 2, len(whole) - 1):
        first = loader()
        batches = iter(first)
        got = [next(batches)["__key__"] for _ in range(step)]
        fresh = loader()
        fresh.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert got + keys(fresh) == whole, f"step {step}"


CALLS = []


def remember(text):
    CALLS.append(text)
    return text


@pytest.mark.parametrize("threads", [0, 2])
def test_a_sequential_resume_decodes_nothing_of_what_was_given_out(sized, threads):
    def loader():
        stream = sp.stream(str(sized[0]), tier="sequential", seed=3, shuffle=20, epochs=None)
        return stream.bucket(SIZES).map(remember, "txt").batch(16).map(dict).loader(threads=threads)

    assert "what was yielded is not decoded again" in loader().explain()
    first = loader()
    batches = iter(first)
    for _ in range(30):
        next(batches)
    state = json.loads(json.dumps(first.state_dict()))
    following = [next(batches)["__key__"] for _ in range(3)]
    batches.close()
    fresh = loader()
    fresh.load_state_dict(state)
    CALLS.clear()
    assert [batch["__key__"] for _, batch in zip(range(3), fresh, strict=False)] == following
    assert len(CALLS) <= 16 * 3 + threads * 16 * 4  # what threads make ahead


def test_another_spec_is_refused_in_the_sequential_tier_too(sized):
    first = sequential(sized[0]).loader()
    next(iter(first))
    other = sp.stream(str(sized[0]), tier="sequential", seed=3, shuffle=20).bucket(SIZES[:3]).decode().batch(5).loader()
    with pytest.raises(sp.ConfigError, match=r"(?s)Buckets\(3 from.*here and was.*Buckets\(4 from"):
        other.load_state_dict(first.state_dict())


def test_ranks_cannot_agree_on_a_bucket_without_counts(sized):
    pipe = sp.stream(str(sized[0]), tier="sequential").bucket(SIZES, same=True).batch(2)
    with pytest.raises(sp.ConfigError, match="same=True.* needs samples that are counted"):
        next(iter(pipe.loader(rank=0, world_size=2, steps_per_epoch=3)))
    assert len(list(pipe.loader())) > 1


def test_a_plain_dataloader_over_pools(sized):
    folder, sizes = sized
    batches = list(DataLoader(sequential(folder, 16), batch_size=None, num_workers=2))
    assert sorted(chain(*keys(batches))) == sorted(sizes)


@pytest.mark.parametrize("tier", ["planned", "sequential"])
def test_alone_the_stage_writes_down_sizes(sized, tier):
    folder, sizes = sized
    pipe = sp.stream(str(folder), tier=tier).bucket(sp.Buckets(SIZES, max_ar=4))
    found = {sample["__key__"]: sample["__size__"] for sample in pipe}
    wanted = {key for key, (h, w) in sizes.items() if max(w, h) <= 4 * min(w, h)}
    assert set(found) == wanted
    buckets = sp.Buckets(SIZES)
    for key, (height, width) in found.items():
        (number,) = buckets.assign(*np.array([sizes[key]]).T)
        assert buckets.sizes[number] == (height, width)


def image(width, height, orientation=1):
    picture = Image.new("RGB", (width, height), (90, 120, 30))
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    picture.save(file, "JPEG", exif=exif.tobytes())
    return file.getvalue()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Images in all orientations, some with a json that states another size."""
    folder = tmp_path_factory.mktemp("pictures")
    rows, shown = [], {}
    for i in range(48):
        w, h = [(60, 40), (48, 48), (40, 60)][i % 3]
        turned = 1 + i % 8
        shown[f"{i:03d}"] = (h, w) if turned > 4 else (w, h)
        lie = {"json": json.dumps({"width": 1000, "height": 10})} if i % 5 == 0 else {}
        rows.append((f"{i:03d}", {"jpg": image(w, h, turned), "txt": "a", **lie}))
    (folder / "0.tar").write_bytes(shard(rows))
    return folder, shown


@pytest.mark.parametrize("tier", ["planned", "sequential"])
@pytest.mark.parametrize("options", [{"num_workers": 0}, {"threads": 2}])
def test_images_are_decoded_straight_to_their_buckets_size_as_shown(pictures, tier, options):
    folder, shown = pictures
    spec = [(16, 24), (16, 16), (24, 16)]
    counters.take()
    pipe = sp.stream(str(folder), tier=tier).bucket(spec, tail="merge").decode().rename(image="jpg").select("image")
    batches = list(pipe.batch(4).loader(**options))
    whole = [batch for batch in batches if len({shown[key] for key in batch["__key__"]}) == 1]
    assert len(whole) >= len(batches) - 2
    for batch in whole:
        (height, width) = batch["__size__"][0]
        assert batch["image"].shape == (4, 3, height, width)
        w, h = shown[batch["__key__"][0]]
        assert (width > height) == (w > h)
        assert (width < height) == (w < h)
    assert sorted(chain(*keys(batches))) == sorted(shown)
    assert counters.get("bucket", "json sizes that are not the image's") == 10


@pytest.mark.parametrize("tier", ["planned", "sequential"])
def test_decode_and_batch_in_one_give_the_pixels_that_they_give_apart(pictures, tier):
    pipe = sp.stream(str(pictures[0]), tier=tier, seed=2, shuffle=9).select("jpg") if tier == "sequential" else None
    pipe = pipe or sp.stream(str(pictures[0]), seed=2, shuffle=9)
    pipe = pipe.bucket([(24, 16), (16, 16), (16, 24)], tail="merge").decode(crop="random", fields=("jpg",))
    fused = list(pipe.batch(5, collate=only_images).loader())
    apart = list(pipe.map(same).batch(5, collate=only_images).loader())
    assert len(fused) == len(apart) > 8
    for (keys_a, a), (keys_b, b) in zip(fused, apart, strict=True):
        assert keys_a == keys_b
        assert torch.equal(a, b)


def only_images(samples):
    return [sample["__key__"] for sample in samples], torch.stack([sample["jpg"] for sample in samples])


def same(sample):
    return sample


def test_both_tiers_put_every_sample_into_the_same_bucket(pictures, sized):
    for folder, spec in ((pictures[0], "sd15"), (sized[0], "photo")):
        by_tier = [
            {s["__key__"]: s["__size__"] for s in sp.stream(str(folder), tier=tier).bucket(spec)}
            for tier in ("planned", "sequential")
        ]
        assert by_tier[0] == by_tier[1]


def test_samples_without_a_size_are_errors_or_counted_skips(tmp_path):
    rows = [("a", {"txt": "x"}), ("b", {"jpg": image(40, 40)}), ("c", {"jpg": b"\xff\xd8 broken"})]
    (tmp_path / "0.tar").write_bytes(shard(rows))
    for tier in ("planned", "sequential"):
        with pytest.raises(sp.StageError, match=r"sample.*'a'.*on_error='skip'"):
            list(sp.stream(str(tmp_path), tier=tier).bucket("sd15").select("jpg").batch(1).loader())
        policy = ErrorPolicy("skip", max_share=1)
        batches = list(
            sp.stream(str(tmp_path), tier=tier, on_error=policy).bucket("sd15").select("jpg").batch(1).loader()
        )
        assert keys(batches) == [["b"]]


def test_decoded_images_are_refused(pictures):
    with pytest.raises(sp.StageError, match="bucket stands before decode"):
        list(sp.stream(str(pictures[0]), tier="sequential").select("jpg").decode().bucket("sd15").batch(2).loader())


def test_the_stage_is_picklable_lazy_and_does_not_change_its_samples():
    samples = [stated(f"{i}", 100 + i, 100) for i in range(20)]
    stage = stages.bucket(buckets=make("sdxl"))
    check_picklable(stage, samples)
    check_lazy(stage, samples, ahead=0)
    assert all("__size__" not in sample for sample in samples)
