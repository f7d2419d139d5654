"""``replay`` on other batches and other numbers of ranks: exactly the batch of then, or a sentence."""

from __future__ import annotations

import itertools

import pytest

import streampipe as sp
from streampipe.errors import ConfigError
from tests.data import photo, shard, write_shards

BUCKETS = sp.Buckets([(16, 16), (16, 32), (32, 16)])


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    images = [photo(i, *size) for i, size in enumerate([(16, 16), (32, 16), (16, 32)])]
    for number in range(4):
        samples = [(f"{number}{i:03d}", {"jpg": images[i % 3], "ref.jpg": images[i % 2]}) for i in range(20)]
        (folder / f"{number}.tar").write_bytes(shard(samples))
    return str(folder)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    write_shards(folder, [20] * 4)
    return str(folder)


def keys(batches):
    return [list(batch["__key__"]) for batch in batches]


def taken(loader, steps):
    """The keys of the next batches, and the state behind them."""
    return keys(itertools.islice(loader, steps)), loader.state_dict()


def resumed(pipe, state, **options):
    loader = pipe.loader(**options)
    loader.load_state_dict(state)
    return loader


@pytest.mark.parametrize("tail", ["carry", "drop", "merge"])
def test_buckets_that_went_on_with_another_batch_are_replayed_from_there_on_and_refused_before(photos, tail):
    def pipe(size):
        return (
            sp.stream(photos, shuffle=True, epochs=None).bucket(BUCKETS, tail=tail).drop("ref.jpg").decode().batch(size)
        )

    first, state = taken(pipe(4).loader(), 5)
    later, state = taken(resumed(pipe(6), state), 6)
    for step in range(5, 11):
        assert keys([sp.replay(pipe(6), state, step)]) == [[*first, *later][step]]
    with pytest.raises(ConfigError, match="step 4 lies before this run began or went on with another global batch"):
        sp.replay(pipe(6), state, 4)


def test_carried_buckets_are_replayed_across_epochs_behind_another_batch(photos):
    def pipe(size):
        return sp.stream(photos, shuffle=True, epochs=None).bucket(BUCKETS).drop("ref.jpg").decode().batch(size)

    first, state = taken(pipe(4).loader(), 25)  # an epoch has 20
    later, state = taken(resumed(pipe(6), state), 30)
    for step in (25, 30, 40, 54):
        assert keys([sp.replay(pipe(6), state, step)]) == [[*first, *later][step]]
    with pytest.raises(ConfigError, match="step 24 lies before"):
        sp.replay(pipe(6), state, 24)


def test_an_epoch_of_which_another_batch_is_forgotten_is_refused(texts):
    def pipe(size):
        return sp.stream(texts, shuffle=True, epochs=None).batch(size)

    _, state = taken(pipe(8).loader(), 5)
    later, state = taken(resumed(pipe(4), state), 14)  # the first epoch has 10 more
    assert "begun" not in state
    assert keys([sp.replay(pipe(4), state, 16)]) == later[11:12]
    with pytest.raises(ConfigError, match="step 13 lies before"):
        sp.replay(pipe(4), state, 13)


def test_steps_before_an_epoch_that_was_left_early_are_refused_and_a_later_first_epoch_is_no_hindrance(texts):
    pipe = sp.stream(texts, shuffle=True).batch(8)
    loader = pipe.loader()
    taken(loader, 4)
    second, state = taken(loader, 3)
    assert keys([sp.replay(pipe, state, 5)]) == second[1:2]
    with pytest.raises(ConfigError, match="step 3 lies before .* an epoch that was left before its end"):
        sp.replay(pipe, state, 3)
    loader = pipe.loader()
    loader.set_epoch(3)
    whole = keys(loader)
    more, state = taken(loader, 2)
    assert [keys([sp.replay(pipe, state, step)])[0] for step in (0, 9, 11)] == [whole[0], whole[9], more[1]]


@pytest.mark.parametrize("kind", ["planned", "lanes", "sizes", "pixels", "same=False", "compound"])
def test_a_state_says_of_how_many_ranks_the_job_was(photos, texts, kind):
    source = sp.stream(texts if kind in ("planned", "lanes") else photos, shuffle=True)
    pipe = {
        "planned": lambda: source.batch(4),
        "lanes": lambda: source.filter(bool).batch(4),
        "sizes": lambda: source.bucket(BUCKETS).drop("ref.jpg").decode().batch({(16, 16): 4, (32, 16): 2, (16, 32): 2}),
        "pixels": lambda: source.bucket(BUCKETS).drop("ref.jpg").decode().batch(pixels=1500),
        "same=False": lambda: source.bucket(BUCKETS, same=False).drop("ref.jpg").decode().batch(4),
        "compound": lambda: source.bucket(sp.Compound(BUCKETS, ref=BUCKETS)).decode().batch(4),
    }[kind]()
    loaders = [pipe.loader(rank=rank, world_size=2, steps_per_epoch=8) for rank in range(2)]
    passes = [iter(loader) for loader in loaders]
    assert all(next(each) for each in passes)
    state = sp.merge_states([loader.state_dict() for loader in loaders])
    for rank, each in enumerate(passes):
        wanted = keys(itertools.islice(each, 2))
        assert [keys([sp.replay(pipe, state, step, rank=rank)])[0] for step in (1, 2)] == wanted


def test_a_state_of_one_rank_among_lanes_says_so_too(texts):
    pipe = sp.stream(texts, shuffle=True).filter(bool).batch(4)
    loader = pipe.loader(rank=1, world_size=2, steps_per_epoch=8)
    passed = iter(loader)
    next(passed)
    state = loader.state_dict()
    assert keys([sp.replay(pipe, state, 1, rank=1)]) == keys([next(passed)])


@pytest.mark.parametrize("kind", ["planned", "lanes"])
@pytest.mark.parametrize("tail", ["drop", "pad"])
def test_the_last_batch_of_an_epoch_is_as_the_loader_was_told(texts, kind, tail):
    pipe = sp.stream(texts, shuffle=True, epochs=2)
    pipe = (pipe if kind == "planned" else pipe.filter(bool)).batch(9)
    loader = pipe.loader(tail=tail)
    _, state = taken(loader, 2)
    whole = keys(pipe.loader(tail=tail))
    for step in (2, 7, 8, 9, len(whole) - 1):
        assert keys([sp.replay(pipe, state, step)]) == [whole[step]]


@pytest.mark.parametrize("tier", [None, "sequential"])
def test_a_state_from_before_training_says_how_many_workers_read(texts, tier):
    pipe = sp.stream(texts, tier=tier).filter(lambda sample: int(sample["__key__"]) % 5 > 1).take(20).batch(4)
    loader = pipe.loader(num_workers=2, multiprocessing_context="fork")
    state = loader.state_dict()
    batches = list(loader)
    assert keys(sp.replay(pipe, state, step) for step in range(len(batches))) == keys(batches)
    with pytest.raises(ConfigError, match="number of workers is -1"):
        sp.replay(pipe, {**state, "workers": -1}, 0)


def test_of_passes_that_are_all_the_same_the_states_own_is_replayed(texts):
    pipe = sp.stream(texts, shuffle=True).batch(8)
    loader = pipe.loader(fixed_epoch=True)
    whole = keys(loader)
    _, state = taken(loader, 3)
    assert [keys([sp.replay(pipe, state, step)])[0] for step in (10, 19)] == [whole[0], whole[9]]
    for step in (9, 20):
        with pytest.raises(ConfigError, match=f"step {step} is in another pass .* the state's own steps, 10 to 19"):
            sp.replay(pipe, state, step)


def test_an_index_that_was_learnt_meanwhile_is_left_out_and_other_epochs_are_refused(tmp_path):
    write_shards(tmp_path, [20] * 4)
    pipe = sp.stream(str(tmp_path), shuffle=True, index="learn").batch(8)
    loader = pipe.loader(log=tmp_path / "log")
    begin = loader.state_dict()
    passed = iter(loader)
    first = keys(itertools.islice(passed, 3))
    early = loader.state_dict()
    first += keys(passed)
    second, late = taken(loader, 3)
    assert loader.engine.kind == "planned" != early["kind"]
    assert keys([sp.replay(pipe, early, 5), sp.replay(pipe, tmp_path / "log", 5)]) == [first[5]] * 2
    assert keys([sp.replay(pipe, late, len(first) + 1)]) == second[1:2]
    with pytest.raises(ConfigError, match="while an index was being learnt"):
        sp.replay(pipe, late, 5)
    with pytest.raises(ConfigError, match="from before training, and does not say which index"):
        sp.replay(pipe, begin, 5)


def test_what_a_state_cannot_tell_is_asked_for(texts):
    pipe = sp.stream(texts).batch(4)
    wanted, state = taken(pipe.loader(), 3)
    older = {name: value for name, value in state.items() if name != "ranks"}
    with pytest.raises(ConfigError, match="give world_size="):
        sp.replay(pipe, older, 1)
    assert keys([sp.replay(pipe, older, 1, world_size=1)]) == wanted[1:2]
    with pytest.raises(ConfigError, match="rank 1 of 1, which does not exist"):
        sp.replay(pipe, state, 1, rank=1)
    with pytest.raises(ConfigError, match="not an empty list"):
        sp.replay(pipe, [], 1)
    with pytest.raises(ConfigError, match="number of ranks is 0"):
        sp.replay(pipe, {**state, "ranks": 0}, 1)
    passed = iter(pipe)
    next(passed)
    with pytest.raises(ConfigError, match="plain pass over the pipeline, which does not count steps"):
        sp.replay(pipe, pipe.state_dict(), 2)
