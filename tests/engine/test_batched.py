"""A mixture of batches: each part has its own size, buckets, filter and stages, and every law holds of the whole."""

import json
from collections import Counter

import pytest

import streampipe as sp
from tests.data import photo, shard

SMALL = sp.Buckets([(32, 48), (48, 32)])
LARGE = sp.Buckets([(64, 96), (96, 64)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("photos")
    images = [photo(i, 96, 64) if i % 3 else photo(i, 64, 96) for i in range(6)]
    for number in range(2):
        samples = [(f"{number}{i:03d}", {"jpg": images[(i + number) % 6]}) for i in range(13)]
        (found / f"{number}.tar").write_bytes(shard(samples))
    return found


@pytest.fixture
def pipe(folder):
    """The same photos at two resolutions, and five of them without buckets."""

    def make(times=1, weights=None, epochs=2, tail="merge", repeats=None, ranks=1):
        photos = sp.stream(str(folder), shuffle=True)
        small = photos.bucket(SMALL, tail=tail).decode().assign(part="small").batch(4 * times // ranks)
        large = photos.bucket(LARGE, tail=tail).decode().assign(part="large").batch(2 * times // ranks)
        few = photos.where("key < '0005'").decode(size=16).assign(part="few").batch(4 * times // ranks)
        return sp.mix([small, large, few], weights, epochs=epochs, repeats=repeats)

    return make


def rows(batches):
    return [(batch["part"][0], tuple(batch["jpg"].shape[2:]), list(batch["__key__"])) for batch in batches]


def taken(loader, steps):
    batches = iter(loader)
    return rows(next(batches) for _ in range(steps)), json.loads(json.dumps(loader.state_dict()))


def resumed(pipe, state, **options):
    loader = pipe.loader(**options)
    loader.load_state_dict(state)
    return loader


def test_a_step_is_a_batch_of_one_part_at_its_own_sizes_and_each_sample_comes_once_a_part_and_epoch(pipe):
    loader = pipe(epochs=1).loader()
    for _ in range(2):
        batches = rows(loader)
        assert len(batches) == len(loader)
        times = Counter((part, key) for part, _, keys in batches for key in keys)
        assert set(times.values()) == {1}
        assert Counter(part for part, _ in times) == {"small": 26, "large": 26, "few": 5}
        for part, size, keys in batches:
            assert size in {"small": SMALL.sizes, "large": LARGE.sizes, "few": [(16, 16)]}[part]
            assert len(keys) <= {"small": 4, "large": 2, "few": 4}[part]
        turns = [part for part, _, _ in batches]
        for n in range(len(turns)):
            for part in set(turns):
                assert abs(turns[:n].count(part) - n * turns.count(part) / len(turns)) <= 2


def test_repeats_are_of_each_parts_epochs(pipe):
    times = Counter((part, key) for part, _, keys in rows(pipe(epochs=1, repeats=[1, 1, 3]).loader()) for key in keys)
    assert {part: n for (part, _), n in times.items()} == {"small": 1, "large": 1, "few": 3}
    assert len(times) == 57


@pytest.mark.parametrize("tail", ["carry", "merge"])
def test_a_mixture_of_batches_resumes_at_every_step_on_any_ranks_and_workers(pipe, tail):
    whole = rows(pipe(2, tail=tail).loader())
    for step in range(0, len(whole), 1 if tail == "carry" else 4):
        got, state = taken(pipe(2, tail=tail).loader(), step)
        if step % 12 != 8:
            assert rows(resumed(pipe(2, tail=tail), state)) == whole[step:]
            continue
        ranks = [
            rows(resumed(pipe(2, tail=tail, ranks=2), state, num_workers=2 * rank, rank=rank, world_size=2))
            for rank in range(2)
        ]
        for (part, size, keys), *both in zip(whole[step:], *ranks, strict=True):
            assert {(part, size)} == {each[:2] for each in both}
            assert sorted(set(keys)) == sorted({key for each in both for key in each[2]})
        assert got == whole[:step]


def test_a_schedule_shares_steps_and_may_be_changed_at_a_resume(pipe):
    schedule = sp.Schedule({0: [1, 0, 0], 8: [0, 1, 1]}, linear=True)
    whole = rows(pipe(weights=schedule).loader())
    assert [part for part, _, _ in whole[:2]] == ["small", "small"]
    assert Counter(part for part, _, _ in whole[8:28]) == {"large": 10, "few": 10}
    _, state = taken(pipe(weights=schedule).loader(), 9)
    changed = rows(resumed(pipe(weights=sp.Schedule([0, 1, 0])), state))
    assert {part for part, _, _ in changed} == {"large"}
    large = [key for part, _, keys in [*whole[:9], *changed] if part == "large" for key in keys]
    assert sorted(large[:26]) == sorted(set(large))
    again = sp.replay(pipe(weights=sp.Schedule([0, 1, 0])), state, 7)
    assert rows([again]) == whole[7:8]
    with pytest.raises(sp.ConfigError, match="the (dataset.s )?fingerprint .*is"):
        resumed(pipe(weights=[1, 1, 1]), state)


def test_other_batches_go_on_with_what_each_part_has_left(pipe):
    whole, state = taken(pipe(2).loader(), 6)
    rest = rows(resumed(pipe(1), state))
    for part, samples in {"small": 26, "large": 26}.items():
        keys = [key for name, _, keys in [*whole, *rest] if name == part for key in keys]
        assert sorted(keys[:samples]) == sorted(set(keys))
    again = resumed(pipe(1), state)
    _, later = taken(again, 4)
    assert rows(resumed(pipe(1), later)) == rest[4:]
    assert rows([sp.replay(pipe(1), state, 7, world_size=1)]) == rest[1:2]
    with pytest.raises(sp.ConfigError, match="went on with another global batch"):
        sp.replay(pipe(1), later, 3, world_size=1)


def test_stages_behind_see_batches_and_skipped_samples_are_filled_from_their_own_batch(folder):
    def named(sample):
        if sample["__key__"] == "0003":
            raise ValueError("bad")
        return {"name": sample["__key__"]}

    parts = [sp.stream(str(folder)).map(named).batch(size) for size in (2, 5)]
    pipe = sp.mix(parts, [1, 1], on_error="skip").map(lambda batch: {**batch, "n": len(batch["name"])})
    loader = pipe.loader()
    seen = [(batch["n"], batch["name"]) for batch in loader]
    assert [n for n, _ in seen[:4]] in ([2, 5, 2, 5], [5, 2, 5, 2])
    assert not any("0003" in names for _, names in seen)
    assert {n for n, _ in seen} == {1, 2, 5}  # of 26 samples, the last batch of five is one


def test_explain_says_what_each_part_has(pipe):
    said = pipe(weights=sp.Schedule([2, 1, 1])).explain()
    assert "each a batch of one part" in said
    assert "of 26 samples in 13 batches of 2, 2 buckets" in said


def test_what_cannot_be_is_refused_with_what_to_do(pipe, folder):
    photos = sp.stream(str(folder))
    for wrong, words in [
        (lambda: sp.mix([photos.batch(2), photos]), "all batched, or none"),
        (lambda: next(iter(pipe().take(3).loader())), "put them into its parts"),
        (
            lambda: next(iter(sp.mix([pipe(), photos.batch(2)]).loader())),
            "part 0 of the mixture is a mixture of batches itself",
        ),
        (lambda: pipe().repeat(2), "repeat goes before batch"),
        (lambda: next(iter(sp.mix([photos.filter(len).batch(2)]).loader())), "part 0 of the mixture cannot be planned"),
        (lambda: pipe().batch(2), "batch"),
        (lambda: pipe().unbatch().write(str(folder / "out/{:05d}.tar")), "parts that are batched.: write the parts"),
        (lambda: next(iter(sp.mix([photos.bucket(SMALL).batch(2)]).loader())), "no stage brings it there"),
        (lambda: next(iter(sp.mix([photos.batch(40, tail="drop")]).loader())), "too few for one batch"),
    ]:
        with pytest.raises(sp.ConfigError, match=words):
            wrong()


@pytest.mark.parametrize("change", [{"parts": [1]}, {"parts": []}, {"parts": None}, {"steps_of_epoch": "x"}])
def test_a_damaged_state_is_refused(pipe, change):
    _, state = taken(pipe().loader(), 3)
    with pytest.raises(sp.ConfigError, match="this is no state of streampipe|the state is of 0 parts"):
        resumed(pipe(), {**state, **change})


def test_stages_that_change_the_number_of_batches_are_refused_behind_a_mixture_without_a_word_of_schedules(pipe):
    with pytest.raises(sp.ConfigError, match=r"behind a mixture of batches each batch stays one: stage unbatch\(\)"):
        next(iter(pipe().unbatch()))
