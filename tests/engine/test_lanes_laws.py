"""Laws 1 to 4 from outside: the same global batches on any ranks and workers, and exact resume, in every level."""

from __future__ import annotations

import json
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import streampipe as sp
from tests import levels
from tests.data import write_photos
from tests.engine.lanes import Job, check_cover, check_none_twice, divisors, keys_through, lanes_of, slots

COUNTS = [6, 3, 9, 0, 7, 5, 8, 4] * 3  # 24 shards, 126 samples
SIZE = 12
RANKS = (1, 2, 3, 4, 6)
PLANNED = "indexed"
CELLS = {
    PLANNED: ("indexed", "each"),
    "indexed, filter": ("indexed", "filter"),
    "indexed, opaque": ("indexed", "opaque"),
    "indexed, split": ("indexed", "split"),
    "counted": ("counted", "each"),
    "counted, opaque": ("counted", "opaque"),
    "streamed": ("streamed", "each"),
    "streamed, filter": ("streamed", "filter"),
    "streamed, opaque": ("streamed", "opaque"),
    "opened, split": ("opened", "split"),
}
every_cell = pytest.mark.parametrize("cell", CELLS)
every_stream = pytest.mark.parametrize("cell", [cell for cell in CELLS if cell != PLANNED])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("lanes")
    levels.write_levels(found, COUNTS)
    return found


def make_of(cell, folder, **options):
    return partial(levels.samples, *CELLS[cell], folder, **options)


def ranks_for(cell, make, size=SIZE):
    """Numbers of ranks that have the same batches: in a plan all that divide the batch, else those of the places."""
    places, _ = lanes_of(make, size)
    return divisors(size if cell == PLANNED else places, RANKS)


# --- elastic ---


@every_stream
def test_lanes_have_numbers_that_ranks_and_workers_can_divide(folder, cell):
    """Two ranks and two workers are the least that a job has; what they are does not depend on how many there are."""
    make = make_of(cell, folder)
    places, columns = lanes_of(make, SIZE)
    assert SIZE % places == 0
    assert places % 2 == 0
    assert columns % 2 == 0
    for ranks, workers in ((2, 0), (1, 2), (4, 0)):
        job = Job(make, SIZE, ranks, workers)
        job.take(1)
        assert [state["lanes"] for state in job.states()] == [[places, columns]] * ranks


@every_cell
def test_global_batches_are_the_same_slot_by_slot_on_any_ranks_that_divide_the_places(folder, cell):
    make = make_of(cell, folder)
    whole = Job(make, SIZE).take(30)
    check_none_twice(whole)
    for ranks in ranks_for(cell, make):
        assert Job(make, SIZE, ranks).take(30) == whole, f"{ranks} ranks"


@every_cell
def test_global_batches_are_the_same_on_any_workers_that_divide_the_columns(folder, cell):
    make = make_of(cell, folder)
    whole = Job(make, SIZE).take(16)
    places, columns = lanes_of(make, SIZE)
    for ranks, workers in ((1, 2), (2, 1), (1, 3), (2, 4)):
        if cell == PLANNED or places % ranks == columns % workers == 0:
            assert Job(make, SIZE, ranks, workers).take(16) == whole, f"{ranks} ranks, {workers} workers"


@every_cell
def test_threads_and_workers_that_are_no_forks_or_persistent_change_no_batch(folder, cell, warm):
    make = make_of(cell, folder)
    whole = Job(make, SIZE).take(10)
    assert Job(make, SIZE, threads=2).take(10) == whole
    assert Job(make, SIZE, 1, 2, persistent_workers=True).take(10) == whole
    if cell == "streamed, opaque":
        assert Job(make, SIZE, 1, 2, multiprocessing_context=warm).take(10) == whole


@pytest.mark.parametrize("cell", ["indexed, opaque", "streamed"])
def test_workers_that_do_not_divide_the_columns_are_not_used_and_a_warning_says_so(folder, cell):
    make = make_of(cell, folder)
    whole = Job(make, SIZE).take(10)
    _, columns = lanes_of(make, SIZE)
    workers = next(each for each in (3, 5, 7) if columns % each)
    with pytest.warns(UserWarning, match="worker"):
        found = Job(make, SIZE, 1, workers).take(10)
    assert found == whole


@pytest.mark.parametrize("cell", ["indexed, opaque", "counted", "streamed"])
def test_ranks_that_do_not_divide_the_places_have_streams_of_their_own_and_explain_says_so(folder, cell):
    """Nothing is lost and nothing comes twice there either."""
    make = make_of(cell, folder)
    size = 21
    places, _ = lanes_of(make, size)
    ranks = next((each for each in (2, 3, 5, 7, 21) if size % each == 0 and places % each), None)
    if ranks is None:
        pytest.skip(f"all ranks that divide {size} divide {places} places")
    job = Job(make, size, ranks)
    assert "own" in job.loaders[0].explain()
    check_cover([part for each in job.running for part in _taken(each, 60)], keys_through(make), epochs=(0,))


def _taken(running, number):
    return [next(running) for _ in range(number)]


# --- resume ---


def resumes(make, size, before, after, whole):
    """A job that is stopped and goes on as another one by the list of its states, and that one by a merged state."""
    first = Job(make, size, *before)
    stop = len(whole) // 3
    assert first.take(stop) == whole[:stop]
    states = first.states()
    second = Job(make, size, *after, states=states)
    assert second.take(stop) == whole[stop : 2 * stop], f"{before} to {after}"
    merged = json.loads(json.dumps(sp.merge_states(second.states())))
    third = Job(make, size, *before, states=merged)
    assert third.take(len(whole) - 2 * stop) == whole[2 * stop :], f"{before} to {after} and back"
    return states


@every_cell
def test_a_job_goes_on_with_the_same_batches_on_other_ranks(folder, cell):
    make = make_of(cell, folder)
    whole = Job(make, SIZE).take(30)
    ranks = ranks_for(cell, make)
    assert len(ranks) > 1
    for before, after in zip(ranks, ranks[1:] + ranks[:1], strict=True):
        resumes(make, SIZE, (before,), (after,), whole)


@every_cell
def test_a_job_goes_on_with_the_same_batches_on_other_workers(folder, cell):
    make = make_of(cell, folder)
    whole = Job(make, SIZE).take(15)
    resumes(make, SIZE, (1, 2), (2, 1), whole)


@every_cell
def test_every_rank_goes_on_from_its_own_state_on_the_same_numbers(folder, cell):
    make = make_of(cell, folder)
    for stop in (1, 5, 7, 12):
        job = Job(make, SIZE, 2)
        job.take(stop)
        states, following = job.states(), job.take(8)
        again = Job(make, SIZE, 2)
        for loader, state in zip(again.loaders, states, strict=True):
            loader.load_state_dict(state)
        assert again.take(8) == following, f"stopped after {stop} steps"


@every_cell
def test_a_finite_pass_of_one_rank_yields_each_sample_once_over_any_chain_of_resumes(folder, cell):
    make = make_of(cell, folder)
    keys = keys_through(make)
    whole = Job(make, SIZE, steps=None).take()
    check_cover(whole, keys, epochs=(0,))
    assert sum(map(len, whole)) == len(keys)
    assert Job(make, SIZE, workers=2, steps=None).take() == whole
    stops, found, states = (2, 1, 1, None), [], None
    for stop, workers in zip(stops, (0, 2, 0, 2), strict=True):
        job = Job(make, SIZE, workers=workers, steps=None, states=states)
        found += job.take(stop)
        states = job.states()
    assert found == whole


@every_cell
@pytest.mark.parametrize("ranks", [1, 2])
def test_in_an_endless_stream_nothing_is_lost_or_twice_over_epochs(folder, cell, ranks):
    """Each lane goes on by itself; after enough steps the first epochs are complete in all of them."""
    make = make_of(cell, folder)
    keys = keys_through(make)
    job = Job(make, SIZE, ranks)
    found = job.take(40)
    found += Job(make, SIZE, 3 - ranks, states=job.states()).take(5 * len(keys) // SIZE)
    check_cover(found, keys, epochs=(0, 1))


def test_the_state_of_one_rank_is_refused_on_other_numbers_with_advice(folder):
    make = make_of("streamed, opaque", folder)
    job = Job(make, SIZE, 2)
    job.take(3)
    with pytest.raises(sp.ConfigError, match=r"merge_states|all 2 ranks"):
        Job(make, SIZE, 1, states=job.states()[0]).take(1)


@pytest.mark.parametrize("wrong", ["one is missing", "one is there twice", "of another seed", "nothing"])
def test_states_that_do_not_belong_together_are_refused(folder, wrong):
    make = make_of("streamed, opaque", folder)
    job = Job(make, SIZE, 2)
    job.take(3)
    first, second = job.states()
    other = Job(make_of("streamed, opaque", folder, seed=4), SIZE, 2)
    other.take(3)
    states = {
        "one is missing": [second],
        "one is there twice": [first, first],
        "of another seed": [first, other.states()[1]],
        "nothing": [],
    }[wrong]
    with pytest.raises(sp.ConfigError):
        sp.merge_states(states)
    with pytest.raises(sp.ConfigError):
        Job(make, SIZE, 1, states=states).take(1)


@every_cell
def test_the_state_is_small(folder, cell):
    """A small entry for each lane, whatever was read so far."""
    make = make_of(cell, folder)
    job = Job(make, SIZE)
    job.take(25)
    places, columns = lanes_of(make, SIZE)
    assert len(json.dumps(job.states()[0])) < 1000 + 150 * places * columns


# --- damage ---


@pytest.mark.parametrize("level", ["indexed", "opened"])
def test_skipped_damage_shifts_no_lane(tmp_path, level):
    """A shard that is cut off gives its whole samples, one that is no tar gives none; whoever reads them."""
    levels.write_levels(tmp_path, COUNTS)
    for number, damage in ((2, lambda data: data[:5000]), (9, lambda data: b"no tar at all" * 100)):
        path = tmp_path / "indexed" / f"{number:05d}.tar"
        path.write_bytes(damage(path.read_bytes()))
    policy = sp.ErrorPolicy("skip", max_share=1.0)
    make = partial(levels.samples, level, "opaque", tmp_path, on_error=policy)
    whole = Job(make, SIZE).take(21)
    check_none_twice(whole)
    keys = {key for batch in whole for _, key, _ in batch}
    assert not any(key.startswith("009") for key in keys)
    assert 0 < sum(key.startswith("002") for key in keys) < COUNTS[2]
    places, _ = lanes_of(make, SIZE)
    for ranks in divisors(places, (2, 3)):
        resumes(make, SIZE, (1,), (ranks,), whole)
    finite = Job(make, SIZE, steps=None).take()
    check_cover(finite, sorted(keys), epochs=(0,))
    assert Job(make, SIZE, workers=2, steps=None).take() == finite


# --- counted: finite passes of several ranks ---


@pytest.mark.parametrize("tail", ["short", "drop", "pad"])
def test_counted_ranks_take_equal_steps_to_the_last_sample(folder, tail):
    make = make_of("counted", folder)
    keys = keys_through(make)
    whole = Job(make, SIZE, steps=None, tail=tail).take()
    full, rest = divmod(len(keys), SIZE)
    assert rest
    assert [len(batch) for batch in whole[:full]] == [SIZE] * full
    assert [len(batch) for batch in whole[full:]] == {"short": [rest], "drop": [], "pad": [SIZE]}[tail]
    if tail == "short":
        check_cover(whole, keys, epochs=(0,))
    places, _ = lanes_of(make, SIZE)
    for ranks in divisors(places, (2, 3, 6)):
        job = Job(make, SIZE, ranks, steps=None, tail=tail)
        assert {len(loader) for loader in job.loaders} == {len(whole)}
        found = job.take()
        assert found[:full] == whole[:full], f"{ranks} ranks"
        assert len(found) == len(whole)
        if tail == "short":
            assert {key for batch in found for _, key, _ in batch} == set(keys)


# --- pixels ---


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    found = tmp_path_factory.mktemp("photos")
    counts = [3, 4, 5] * 4
    write_photos(found / "indexed", counts)
    levels.compress(found / "indexed", found / "counted", counts)
    levels.compress(found / "indexed", found / "streamed")
    return found


def same(sample):
    return True


@pytest.mark.parametrize("level", ["indexed", "counted", "streamed"])
def test_crops_flips_captions_and_a_stages_own_choices_do_not_depend_on_ranks_or_resumes(photos, level):
    def make(**options):
        pipe = sp.stream(str(photos / level), seed=1, shuffle=5, **options).filter(same)
        pipe = pipe.decode(size=24, crop="random", flip=0.5).caption("txt", dropout=0.5)
        return pipe.apply(levels.noisy())

    whole = Job(make, 4).take(24)
    again = {}
    for _, key, checksum in (row for batch in whole for row in batch):
        again.setdefault(key, set()).add(checksum)
    assert max(map(len, again.values())) > 1, "the same choices in every epoch"
    places, columns = lanes_of(make, 4)
    for ranks in divisors(places, (2, 4)):
        resumes(make, 4, (1,), (ranks,), whole)
    if columns % 2 == 0:
        assert Job(make, 4, 1, 2).take(12) == whole[:12]


# --- anything ---


@st.composite
def datasets(draw):
    size = draw(st.sampled_from([4, 6, 12]))
    counts = draw(st.lists(st.integers(0, 9), min_size=0, max_size=14))
    return size, [*counts, max(1, 8 * size - sum(counts))]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    dataset=datasets(),
    cell=st.sampled_from(sorted(set(CELLS) - {PLANNED})),  # a plan's own laws are in tests/plan
    shuffle=st.sampled_from([False, True, 1, 4]),
    seed=st.integers(0, 99),
    numbers=st.tuples(st.integers(0, 9), st.integers(0, 9)),
)
def test_any_data_and_chain_is_elastic_and_resumable(tmp_path_factory, dataset, cell, shuffle, seed, numbers):
    size, counts = dataset
    folder = tmp_path_factory.mktemp("any")
    levels.write_levels(folder, counts)
    make = make_of(cell, folder, shuffle=shuffle, seed=seed)
    whole = Job(make, size).take(24)
    check_none_twice(whole)
    ranks = ranks_for(cell, make, size)
    before, after = (ranks[number % len(ranks)] for number in numbers)
    resumes(make, size, (before,), (after,), whole)
    finite = Job(make, size, steps=None).take()
    keys = keys_through(make)
    check_cover(finite, keys, epochs=(0,))
    assert sum(map(len, finite)) == len(keys)


@settings(max_examples=15, deadline=None)
@given(counts=st.lists(st.integers(0, 9), min_size=1, max_size=9), size=st.integers(1, 6), stop=st.integers(0, 30))
def test_any_finite_pass_of_any_little_data_is_whole(tmp_path_factory, counts, size, stop):
    """Fewer samples than lanes, than a batch, than anything."""
    folder = tmp_path_factory.mktemp("little")
    levels.write_levels(folder, [*counts, 1])
    for cell in ("indexed, opaque", "counted", "streamed, opaque"):
        make = make_of(cell, folder)
        keys = keys_through(make)
        whole = Job(make, size, steps=None).take()
        check_cover(whole, keys, epochs=(0,))
        assert sum(map(len, whole)) == len(keys)
        job = Job(make, size, steps=None)
        got = job.take(min(stop, len(whole)))
        rest = Job(make, size, steps=None, states=job.states()).take()
        if len(got) < len(whole):
            assert [*got, *rest] == whole, f"{cell}, stopped after {len(got)}"
        else:
            check_cover(rest, keys, epochs=(1,))


def second(sample):
    return int(sample["__key__"]) % 2 == 0


@pytest.mark.parametrize("level", ["indexed", "counted", "streamed"])
def test_a_filter_with_a_pattern_over_one_shard_starves_no_lane(tmp_path, level):
    """Samples of few shards are dealt by their number, and the filter drops every second one."""
    levels.write_levels(tmp_path, [96])

    def make(**options):
        return levels.samples(level, "each", tmp_path, **options).filter(second)

    try:
        found = Job(make, 8).take(24)
    except sp.StreampipeError as error:
        assert "lane" in str(error) or "filter" in str(error)
        return
    check_none_twice(found)
    assert len({key for batch in found for _, key, _ in batch}) == 48


def test_slots_are_dealt_to_ranks_without_rest():
    for size, places, ranks in ((12, 6, 3), (12, 4, 4), (12, 1, 3), (8, 8, 2)):
        dealt = [slots(size, places, rank, ranks) for rank in range(ranks)]
        assert sorted(q for each in dealt for q in each) == list(range(size))
