"""Clips of videos as samples: the same in every tier, planned where an index counts them, none lost and none twice."""

import json
from collections import Counter
from itertools import islice

import numpy as np
import pyarrow.parquet as pq
import pytest

import streampipe as sp
from streampipe import stages
from streampipe.counters import counters
from streampipe.decoding.clip import Clip
from streampipe.plan.clips import Clips, make_clips, numbered
from tests.data import photo, shard
from tests.laws import check_cover, check_picklable, check_rows, check_state, engine_of
from tests.videos import numbers, video

LENGTHS = (30, 9, 4, 21)


@pytest.fixture(scope="module")
def videos():
    """By their number of frames: tall and wide ones, of several containers."""
    return {
        30: ("mp4", video(30, size=(32, 48), gop=10)),
        9: ("webm", video(9, size=(48, 32), format="webm")),
        4: ("mov", video(4, size=(32, 48), format="mov")),
        21: ("depth.mkv", video(21, size=(32, 48), format="matroska")),
    }


@pytest.fixture(scope="module")
def samples(videos):
    rows = []
    for i in range(23):
        name, data = videos[LENGTHS[i % 4]]
        fields = {name: data} if i % 6 else {"jpg": photo(i, 48, 32)}
        rows.append((f"{i:04d}", {**fields, "txt": f"text {i}"}))
    return rows


@pytest.fixture
def folder(tmp_path, samples):
    for number, (a, b) in enumerate([(0, 7), (7, 8), (8, 17), (17, 23)]):
        (tmp_path / f"{number}.tar").write_bytes(shard(samples[a:b]))
    return tmp_path


def expected(samples, frames=(5,), fps=10.0, rule="chunk", **options):
    cut = make_clips(frames, fps, rule, options.get("n"), options.get("stride"), False)
    keys = []
    for i, (key, fields) in enumerate(samples):
        clips = cut.of_image() if "jpg" in fields else cut.of(LENGTHS[i % 4], LENGTHS[i % 4] / 10)
        keys += [f"{key}-{each.number}" for each in clips]
    return keys


def starts(rule, frames=20, length=5, **options):
    cut = make_clips(length, None, rule, **{"n": None, "stride": None, **options}, audio=False)
    return [each.first for each in cut.of(frames, 2.0)]


def test_rules_say_where_clips_begin():
    assert starts("head") == [0]
    assert starts("chunk", 23) == [0, 5, 10, 15]
    assert starts("chunk", 23, n=3) == [0, 5, 10]
    assert starts("slide") == [0, 2, 4, 6, 8, 10, 12, 14]
    assert starts("slide", stride=6) == [0, 6, 12]
    assert starts("uniform", n=4) == [0, 5, 10, 15]
    assert starts("uniform", n=1) == [7]
    assert starts("uniform", 6, n=9) == [0, 1]
    assert starts("head", 4) == starts("chunk", 4) == starts("uniform", 4, n=2) == []
    (full,) = make_clips(None, 16.0, "full", None, None, False).of(300, 3.0)
    assert (full.first, full.frames, full.fps) == (0, 45, 16.0)  # the largest 4k+1 of 48
    assert make_clips((1, 17, 33), 16.0, "chunk", None, None, True).of(90, 3.0) == [Clip(0, 0, 33, 16.0, audio=48000)]


def test_columns_are_counted_as_each_video_is():
    rng = np.random.default_rng(0)
    frames = rng.integers(1, 400, 300)
    duration = frames / rng.choice([10, 23.976, 25, 30, 60], 300)
    for cut in (
        Clips((17,), 16.0, "chunk"),
        Clips((5, 9, 33), None, "slide", None, 3),
        Clips((1, 17), 24.0, "uniform", 3),
        Clips((25,), 8.0, "head"),
    ):
        total, length = cut.lengths(frames, duration)
        counts = cut.counts(total, length)
        for i in range(len(frames)):
            clips = cut.of(int(frames[i]), float(duration[i]))
            assert len(clips) == counts[i]
            assert [each.number for each in clips] == list(range(len(clips)))
            assert all(0 <= each.first <= total[i] - each.frames for each in clips)
            assert len({each.first for each in clips}) == len(clips)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "frames is a number of frames"),
        ({"frames": (0, 5)}, "frames is a number of frames"),
        ({"frames": 5, "fps": 0}, "fps is frames a second"),
        ({"frames": 5, "rule": "random"}, "rule is one of"),
        ({"frames": 5, "n": 2}, "n is a number, 1 or more, of rule 'chunk' or"),
        ({"frames": 5, "rule": "chunk", "stride": 2}, "stride is a number, 1 or more, of rule 'slide'"),
        ({"frames": 5, "rule": "uniform"}, "needs n"),
        ({"frames": 5, "audio": -1}, "audio is True, or samples a second"),
    ],
)
def test_what_makes_no_rule_is_refused_when_the_pipeline_is_made(options, words):
    with pytest.raises(sp.ConfigError, match=words):
        sp.from_iterable([]).clips(**options)


def test_the_stage_keeps_its_laws(samples):
    rows = [{"__key__": key, "__url__": "u", **fields} for key, fields in samples[:8]]
    stage = stages.clips(frames=5, fps=10, rule="chunk")
    check_picklable(stage, rows)
    check_rows(stage, rows)
    check_state(stage, rows)


def test_an_index_knows_what_videos_are(folder, samples):
    sp.index([str(folder / "0.tar")], progress=False)
    table = pq.read_table(folder / "0.index.parquet")
    rows = {row["key"]: row for row in table.to_pylist()}
    assert (rows["0004"]["video.frames"], rows["0004"]["video.duration"], rows["0004"]["video.fps"]) == (30, 3.0, 10.0)
    assert (rows["0001"]["height"], rows["0001"]["width"], rows["0001"]["video.rotation"]) == (48, 32, 0)
    assert rows["0000"]["video.frames"] is None
    keys = [each["__key__"] for each in sp.stream(str(folder)).where("video.frames >= 21 and not video.audio")]
    assert keys == [key for i, (key, _) in enumerate(samples) if i % 6 and LENGTHS[i % 4] >= 21]


@pytest.mark.parametrize("tier", [None, "sequential"])
def test_every_clip_comes_once_under_its_own_key_in_every_tier(folder, samples, tier):
    counters.take()
    pipe = sp.stream(str(folder), tier=tier).clips(frames=5, fps=10, rule="chunk")
    found = list(pipe)
    assert [each["__key__"] for each in found] == expected(samples)
    assert all("__piece__" not in each for each in found)
    assert counters.get("clips", "dropped, shorter than a clip") == sum(
        LENGTHS[i % 4] < 5 for i in range(len(samples)) if i % 6
    )
    assert engine_of(pipe).kind == ("planned" if tier is None else "lanes")
    assert [each["__clip__"].first for each in found if each["__key__"].startswith("0004-")] == [0, 5, 10, 15, 20, 25]


def test_no_clip_is_lost_on_eight_ranks_of_eight_workers(folder, samples):
    pipe = sp.stream(str(folder), shuffle=True, seed=3).clips(frames=(2, 5), fps=10, rule="slide", stride=1)
    keys = expected(samples, (2, 5), 10.0, "slide", stride=1)
    assert len(keys) > 200
    check_cover(pipe, keys, 8, 8)
    check_cover(pipe, keys, 1, 3, epoch=1)


def test_batches_of_clips_are_the_same_on_any_ranks_and_resume(folder):
    def batches(world_size, rank, **options):
        pipe = sp.stream(str(folder), shuffle=True, seed=1).clips(frames=5, fps=10, rule="chunk").select("txt")
        return pipe.batch(12 // world_size).loader(rank=rank, world_size=world_size, **options)

    whole = [batch["__key__"] for batch in batches(1, 0)]
    for ranks in (2, 3, 4):
        of_ranks = [[batch["__key__"] for batch in batches(ranks, rank)] for rank in range(ranks)]
        for t, batch in enumerate(whole):
            slots = [key for parts in zip(*(mine[t] for mine in of_ranks), strict=False) for key in parts]
            assert len(batch) < 12 or slots == batch
    for stop in range(len(whole)):
        loader = batches(1, 0)
        list(islice(loader, stop))
        again = batches(1, 0)
        again.load_state_dict(loader.state_dict())
        assert [batch["__key__"] for batch in again] == (whole[stop:] or whole)


def test_buckets_are_height_width_and_frames_and_images_are_one_frame(folder, samples):
    pipe = sp.stream(str(folder), shuffle=True).clips(frames=(5, 9), fps=10, rule="chunk")
    pipe = pipe.rename(video="mp4;webm;mov;depth.mkv;jpg").bucket([(32, 48), (48, 32)], tail="drop")
    with pytest.raises(sp.ConfigError, match=r"sizes for clips of \[1, 5\] frames; the buckets have \(1, 5, 9\)"):
        list(pipe.batch({1: 4, 5: 3}))
    planned = sp.stream(str(folder), shuffle=True).clips(frames=(5, 9), fps=10, rule="chunk")
    planned = planned.bucket([(32, 48), (48, 32)], tail="drop").rename(video="mp4;webm;mov;depth.mkv;jpg")
    planned = planned.decode().batch({1: 3, 5: 2, 9: 2})
    shapes = Counter(tuple(batch["video"].shape) for batch in planned)
    assert shapes == {(3, 1, 3, 32, 48): 1, (2, 9, 3, 32, 48): 11, (2, 9, 3, 48, 32): 3}
    assert "x9 " in planned.explain().replace(" x frames", "")
    assert engine_of(planned).kind == "planned"


def test_buckets_of_clips_are_the_same_samples_where_nothing_is_counted(folder):
    def pipe(tier):
        found = sp.stream(str(folder), tier=tier).clips(frames=5, fps=10, rule="chunk", n=2)
        return found.bucket([(32, 48), (48, 32)]).select("txt").batch(pixels=32 * 48 * 5 * 2)

    of_tiers = [Counter(), Counter()]
    for found, tier in zip(of_tiers, (None, "sequential"), strict=True):
        for batch in pipe(tier):
            assert len({key.partition("-")[0] for key in batch["__key__"]}) > 0
            found.update(batch["__key__"])
    assert of_tiers[0] - of_tiers[1] == Counter() or of_tiers[0].total() <= of_tiers[1].total()
    assert set(of_tiers[0]) <= set(of_tiers[1])


def test_mixtures_of_images_and_clips_share_buckets(folder, tmp_path):
    clips = sp.stream(str(folder), shuffle=True).where("video.frames >= 5").clips(frames=5, fps=10, rule="chunk")
    images = sp.stream(str(folder), shuffle=True).where("video.frames < 5 or width >= 1", missing="keep")
    images = images.where("key < '0013'").select("jpg;mp4;webm;mov;depth.mkv", "txt")
    mixed = sp.mix([clips, images], repeats=[1, 1])
    with pytest.raises(sp.ConfigError, match=r"say sp.Buckets\(..., frames=\)"):
        list(mixed.bucket([(32, 48), (48, 32)]).select("txt").batch(2))
    found = mixed.bucket(sp.Buckets([(32, 48), (48, 32)], frames=(1, 5)), tail="drop").select("txt").batch(2)
    kinds = {bool("-" in key) for batch in found for key in batch["__key__"]}
    assert kinds == {True, False}
    assert all(len({"-" in key for key in batch["__key__"]}) == 1 for batch in found)


def test_packs_of_clips_and_images_are_planned(folder, samples):
    cost = "height * width // 256 * ((clip.frames + 3) // 4)"  # 6 an image, 12 of 5 frames, 18 of 9

    def packs(tier=None, ranks=1):
        pipe = sp.stream(str(folder), shuffle=True, tier=tier).clips(frames=(5, 9), fps=10, rule="chunk")
        pipe = pipe.rename(video="mp4;webm;mov;depth.mkv;jpg").pack(40, cost)
        assert engine_of(pipe).kind == ("planned" if tier is None else "lanes")
        loaders = [pipe.loader(rank=rank, world_size=ranks) for rank in range(ranks)]
        return [pack["__key__"] for step in zip(*loaders, strict=True) for pack in step]

    frames = {key: 9 if LENGTHS[i % 4] >= 9 else 5 for i, (key, _) in enumerate(samples)}
    prices = {key: 6 if not int(key) % 6 else 18 if frames[key] == 9 else 12 for key in frames}
    wanted = sorted(expected(samples, (5, 9)))
    planned = packs()
    assert sorted(key for pack in planned for key in pack) == wanted
    assert all(sum(prices[key[:4]] for key in pack) <= 40 for pack in planned)
    assert packs(ranks=2)[: len(planned) - 1] == planned[: len(planned) - 1]
    assert sorted(key for pack in packs("sequential") for key in pack) == wanted


def test_frames_and_controls_share_one_geometry(videos):
    wide = video(12, size=(32, 48), marked=True)
    row = {"__key__": "a", "mp4": wide, "edge.mp4": wide, "mask.mp4": wide, "ref.jpg": photo(1, 96, 64)}
    pipe = sp.from_iterable([row], seed=5).clips(frames=4, fps=5).decode(16, crop="random", flip=1.0)
    (found,) = pipe
    assert found["mp4"].shape == found["edge.mp4"].shape == (4, 3, 16, 16)
    assert found["mask.mp4"].shape == (4, 1, 16, 16)
    assert found["ref.jpg"].shape == (3, 16, 16)
    assert (found["mp4"] == found["edge.mp4"]).all()
    assert found["flipped"]
    assert found["original_size"] == (32, 48)
    assert found["target_size"] == (16, 16)
    arrays = list(sp.from_iterable([row]).clips(frames=4, fps=5).decode(output="numpy", fields=("mp4",)))
    assert arrays[0]["mp4"].shape == (4, 32, 48, 3)
    assert arrays[0]["edge.mp4"] == wide


def test_planned_clips_show_their_frames(folder, samples):
    pipe = sp.stream(str(folder), shuffle=True).where("video.frames == 30").clips(frames=5, fps=10, rule="chunk")
    for each in pipe.decode():
        clip = each["__clip__"]
        assert numbers(each["mp4"]) == list(range(clip.first, clip.first + 5))


def test_latents_of_clips_are_written_with_their_places(folder, samples, tmp_path):
    def encode(sample):
        return {**sample, "latent": sample["video"].float().mean((2, 3))}

    pipe = sp.stream(str(folder)).clips(frames=5, fps=10, rule="chunk").rename(video="mp4;webm;mov;depth.mkv;jpg")
    pipe = pipe.decode().map(encode).select("latent", "clip_start", "clip_fps")
    pipe.write(str(tmp_path / "latents" / "{:05d}.tar"), progress=False)
    found = list(sp.stream(str(tmp_path / "latents")).decode())
    assert [each["__key__"] for each in found] == expected(samples)
    by_key = {each["__key__"]: each for each in found}
    assert by_key["0004-3"]["clip_start.json"] == 1.5
    assert tuple(by_key["0004-3"]["latent.npy"].shape) == (5, 3)


def test_sound_comes_with_its_clip_and_its_lack_is_told():
    rows = [
        {"__key__": "a", "mp4": video(10, audio=True)},
        {"__key__": "b", "mp4": video(10)},
        {"__key__": "c", "jpg": photo()},
    ]
    counters.take()
    pipe = sp.from_iterable(rows).clips(frames=5, fps=10, audio=8000).decode(16)
    found = list(pipe)
    assert [each["audio"].shape for each in found] == [(2, 4000), (2, 4000), (2, 800)]
    assert [each["has_audio"] for each in found] == [True, False, False]
    assert counters.get("decode", "clips without sound") == 2
    with pytest.raises(sp.DecodeError, match="has a field 'audio' already"):
        list(sp.from_iterable([{**rows[0], "audio": 1}]).clips(frames=5, fps=10, audio=8000).decode(16))


@pytest.mark.parametrize("tier", [None, "sequential"])
def test_broken_videos_are_errors_by_name_and_are_skipped_where_asked(tmp_path, videos, tier):
    whole = videos[30][1]
    rows = [
        ("a", {"mp4": whole}),
        ("b", {"mp4": whole[:-20]}),
        ("c", {"mp4": b"no video", "jpg": photo()}),
        ("d", {"mp4": whole}),
        ("e", {"txt": "none"}),
    ]
    (tmp_path / "0.tar").write_bytes(shard(rows))

    def pipe(**options):
        return sp.stream(str(tmp_path), tier=tier, **options).clips(frames=5, fps=10, rule="chunk")

    with pytest.raises(sp.DecodeError, match=r"'b' of .*0.tar.*, field 'mp4': the MP4 file ends early"):
        list(pipe())
    counters.take()
    keys = [each["__key__"] for each in pipe(on_error="skip").decode(16)]
    assert keys == [f"{key}-{i}" for key in "ad" for i in range(6)]
    assert "skipped" in pipe(on_error="skip").report()
    bucketed = pipe().bucket([(16, 16)]).decode().batch(2)
    with pytest.raises(sp.SampleError, match="3 samples have no image whose size can be read|field 'mp4'"):
        list(bucketed)
    assert sum(len(b["__key__"]) for b in pipe(on_error="skip").bucket([(16, 16)]).decode().batch(2)) == 12


def test_an_index_of_an_older_version_is_not_believed(folder, samples, monkeypatch):
    sp.index([str(folder / f"{i}.tar") for i in range(4)], progress=False)
    place = folder / "0.index.parquet"
    table = pq.read_table(place)
    facts = json.loads(table.schema.metadata[b"streampipe"])
    del facts["videos"]
    table = table.drop_columns([name for name in table.column_names if name.startswith("video.")])
    pq.write_table(table.replace_schema_metadata({b"streampipe": json.dumps(facts).encode()}), place)
    pipe = sp.stream(str(folder)).clips(frames=5, fps=10, rule="chunk")
    assert "run streampipe index again" in pipe.explain()
    assert [each["__key__"] for each in pipe] == expected(samples)  # streamed, by each video's header
    sp.index([str(folder / f"{i}.tar") for i in range(4)], progress=False)
    assert engine_of(pipe).kind == "planned" or engine_of(sp.stream(str(folder)).clips(frames=5)).kind == "planned"


def test_clips_behind_a_stage_that_nobody_knows_run_in_lanes(folder, samples):
    pipe = sp.stream(str(folder), shuffle=True).filter(lambda sample: True).clips(frames=5, fps=10, rule="chunk")
    assert engine_of(pipe).kind == "lanes"
    check_cover(pipe, expected(samples), 2, 2)
    behind = sp.stream(str(folder)).clips(frames=5, fps=10, rule="chunk").where("key >= '0004-3'")  # clips' own keys
    assert sorted(each["__key__"] for each in behind) == [key for key in expected(samples) if key >= "0004-3"]
    limited = sp.stream(str(folder)).clips(frames=5, fps=10, rule="chunk").skip(2).take(4)
    assert engine_of(limited).kind == "planned"
    assert [each["__key__"] for each in limited] == expected(samples)[2:6]


def test_rows_are_numbered_by_their_clips():
    assert numbered(np.zeros(0, np.int64)).tolist() == []
    assert numbered(np.array([3, 3, 1, 3, 1])).tolist() == [0, 1, 0, 2, 1]


@pytest.mark.parametrize("device", [None, "cuda"])
def test_an_image_is_a_clip_of_one_frame_with_its_alpha_and_on_any_device(device):
    pipe = sp.from_iterable([{"__key__": "a", "jpg": photo(1, 48, 32)}]).clips(1, 8)
    (sample,) = pipe.decode((16, 24), device=device)
    assert sample["jpg"].shape == (1, 3, 16, 24)
    (sample,) = pipe.decode((16, 24), alpha="mask")
    assert sample["mask"].shape == (1, 1, 16, 24)


def test_a_video_has_no_alpha_to_give(videos):
    pipe = sp.from_iterable([{"__key__": "a", "mp4": videos[30][1]}]).clips(4, 10)
    with pytest.raises(sp.ConfigError, match="sample 'a-0', field 'mp4': alpha='mask' is of images"):
        list(pipe.decode(16, alpha="mask"))
