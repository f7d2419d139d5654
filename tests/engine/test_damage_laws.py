"""Laws 1 to 5 and 7 with damage in the shards: under skip on any ranks and after any resume, and never silent."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import streampipe as sp
from tests.data import shard
from tests.engine.lanes import Job, divisors, lanes_of, slots
from tests.levels import numbered, open_local

COUNTS = [3, 1, 4, 0, 2, 5] * 4  # 24 shards, 60 samples
KEYS = [[f"{number:02d}{i:02d}" for i in range(count)] for number, count in enumerate(COUNTS)]
SIZE = 6
SKIP = sp.ErrorPolicy("skip", max_share=1.0, max_in_row=1000)
HEADER = 512
NO_LIMITS = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])

bad_samples = st.sets(st.integers(0, sum(COUNTS) - 1), max_size=20)
ways = st.sampled_from(["cut in a payload", "cut in a header", "a header of noise"])
bad_shards = st.dictionaries(
    st.sampled_from([i for i, n in enumerate(COUNTS) if n]), st.tuples(ways, st.integers(0, 4)), max_size=4
)


def write(folder, undecodable=(), damaged=()):
    """The shards; the keys of the samples that must come, and of those that may: behind damage the rest of a shard is
    lost, and whether the sample in front of it is whole nobody can know.
    """
    folder.mkdir()
    flat = [key for keys in KEYS for key in keys]
    bad = {flat[number] for number in undecodable}
    sound, unknown = set(flat) - bad, set()
    for number, keys in enumerate(KEYS):
        samples = [(key, {"cls": "no number" if key in bad else str(int(key)), "txt": key}) for key in keys]
        data = shard(samples)
        if number in damaged:
            way, at = damaged[number]
            at %= len(keys)
            before = -(-len(shard(samples[:at]).rstrip(b"\0")) // HEADER) * HEADER  # without the end of the archive
            data = {
                "cut in a payload": data[: before + HEADER + 2],
                "cut in a header": data[: before + HEADER // 2],
                "a header of noise": data[:before] + b"\x7f" * HEADER + data[before + HEADER :],
            }[way]
            unknown |= set(keys[max(0, at - 1) : at]) & sound
            sound -= set(keys[max(0, at - 1) :])
        (folder / f"{number:05d}.tar").write_bytes(data)
    return sound, sound | unknown


def make_of(folder, on_error=SKIP, **options):
    def make(**more):
        return sp.stream(str(folder / "*.tar"), shuffle=4, seed=3, on_error=on_error, **options, **more).decode()

    return make


def rows_of(batch):
    assert batch["txt"] == batch["__key__"]
    assert batch["cls"].tolist() == [int(key) for key in batch["__key__"]]
    return tuple(batch["__key__"])


def whole_of(make, **options):
    loader = make(epochs=1).batch(SIZE).loader(**options)
    return loader, [rows_of(batch) for batch in loader]


@NO_LIMITS
@given(bad=bad_samples, stop=st.integers(0, 9), ranks=st.sampled_from([1, 2, 3]))
@example(bad=set(range(0, 60, 2)), stop=3, ranks=3)
def test_in_a_plan_a_ranks_batch_has_its_sound_samples_and_is_filled_up_with_them(tmp_path_factory, bad, stop, ranks):
    folder = tmp_path_factory.mktemp("planned")
    write(folder / "sound")
    sound, _ = write(folder / "damaged", bad)
    make, expected = make_of(folder / "damaged"), whole_of(make_of(folder / "sound"))[1]
    places, _ = lanes_of(make_of(folder / "sound"), SIZE)
    first, second = (Job(make, SIZE, ranks, steps=None) for _ in range(2))
    try:
        found = first.take(stop)
        for loader in second.loaders:
            loader.load_state_dict(first.states()[0])
        second.begin()
        found += second.take()
    except sp.StreampipeError as error:  # nothing of a rank's part of a batch is left
        assert any(_lost(batch, rank, ranks, places, sound) for batch in expected for rank in range(ranks)), error
        return
    assert len(found) == len(expected)
    for mine, whole in zip(found, expected, strict=True):
        for rank in range(ranks):
            own = [q for q in slots(SIZE, places, rank, ranks) if q < len(whole)]
            there, got = [whole[q] for q in own if whole[q] in sound], [mine[q][1] for q in own]
            assert got[: len(there)] == there
            assert set(got) == set(there) if there else set(got) <= sound


def _lost(batch, rank, ranks, places, sound):
    return not {batch[q] for q in slots(SIZE, places, rank, ranks) if q < len(batch)} & sound


@NO_LIMITS
@given(bad=bad_samples, shards=bad_shards, stop=st.integers(1, 8))
@example(bad=set(), shards={0: ("cut in a header", 0), 1: ("a header of noise", 0)}, stop=2)
def test_in_lanes_damage_is_skipped_alike_on_any_ranks_and_after_any_resume(tmp_path_factory, bad, shards, stop):
    folder = tmp_path_factory.mktemp("lanes")
    sound, perhaps = write(folder / "damaged", bad, shards)
    streamed = make_of(folder / "damaged", opener=open_local)

    def make(**options):
        return streamed(**options).apply(numbered())  # so decode runs in each lane, and fills no slots

    loader, whole = whole_of(make)
    got = [key for batch in whole for key in batch]
    assert len(set(got)) == len(got)
    assert sound <= set(got) <= perhaps
    lost = {each["reason"]: each["samples"] for each in loader.summary().errors}
    assert sum(n for reason, n in lost.items() if reason != "DecodeError") == len(shards)
    assert lost.get("DecodeError", 0) >= len(_undecodable(bad, shards))
    places, _ = lanes_of(make, SIZE)
    steps = Job(make, SIZE).take(12)
    before, after = (divisors(places, (2, 3, 1))[i] for i in (0, -1))
    job = Job(make, SIZE, before)
    found = job.take(stop)
    assert found + Job(make, SIZE, after, states=job.states()).take(12 - stop) == steps


def _undecodable(bad, shards):
    """Those that are surely reached."""
    flat = [(number, i) for number, keys in enumerate(KEYS) for i in range(len(keys))]
    found = [flat[each] for each in bad]
    return [(n, i) for n, i in found if n not in shards or i + 1 < shards[n][1] % len(KEYS[n])]


@NO_LIMITS
@given(bad=bad_samples, shards=bad_shards)
@pytest.mark.parametrize("opener", [None, open_local], ids=["local", "opened"])
def test_by_default_damage_is_an_error_that_names_its_shard(tmp_path_factory, opener, bad, shards):
    folder = tmp_path_factory.mktemp("raised")
    write(folder / "damaged", bad, shards)
    names = {f"{number:05d}.tar" for number in shards}
    names |= {f"{n:05d}.tar" for n, _ in _undecodable(bad, {})}
    make = make_of(folder / "damaged", "raise", **({} if opener is None else {"opener": opener}))
    if not names:
        assert len(list(make())) == sum(COUNTS)
        return
    with pytest.raises((sp.SampleError, sp.ShardError)) as caught:
        list(make())
    assert any(name in str(caught.value) for name in names)
