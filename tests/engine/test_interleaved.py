"""The law of resumes in lanes: whatever changes between two jobs, every sample of an epoch comes exactly once."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from functools import lru_cache, partial

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

import streampipe as sp
from tests import levels
from tests.data import write_shards
from tests.engine.journeys import Leg, Rank, check_each_once, travel
from tests.engine.test_lanes import CHAINS

COUNTS = [6, 3, 9, 0, 7, 5, 8, 4] * 2
LIMITED = {"take", "take and go on", "everything", "an end that was only taken in"}
FILLED = {"skip", "threads", "threads in front"}  # a sample that is skipped behind the lanes: another takes its slot
BEHIND = {name: each for name, each in CHAINS.items() if name not in LIMITED | FILLED}
SIZES = [(8, 16), (8, 8), (16, 8), (8, 40)]


def kept(sample):
    return int(sample["__key__"]) % 7 > 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("interleaved")
    levels.write_levels(found, COUNTS)
    return found


def of_chain(level, chain, shuffle, folder, size=None, epochs=1):
    """A pipeline in lanes, of a level, with a chain of the laws of marks behind a filter."""
    pipe = levels._source(level, folder, epochs=epochs, shuffle=shuffle)
    pipe = CHAINS[chain](pipe.filter(kept))
    if size is None:
        return pipe
    batched = any(stage.label == "batch" for stage in pipe.spec.chain[-2:]) and pipe.spec.chain[-1].label != "unbatch"
    return (pipe.unbatch() if batched else pipe).batch(size)


def of_cell(level, chain, shuffle, folder, size=None, epochs=1):
    pipe = levels.samples(level, chain, folder, epochs=epochs, shuffle=shuffle)
    return pipe if size is None else pipe.batch(size)


def pools(level, chain, shuffle, folder, size=3, epochs=1):
    """Buckets that are formed as samples come; their batch is part of the chain and stays."""
    tier = {"indexed": None, "streamed": "sequential"}[level]
    pipe = levels._source("sized", folder, epochs=epochs, shuffle=shuffle, tier=tier)
    return pipe.filter(kept).bucket(sp.Buckets(SIZES), tail=chain).batch(3)


def of_mixture(how, shuffle, folder, size=None, epochs=1):
    """Two datasets whose samples come once an epoch each."""
    options = {"shuffle": shuffle, "epochs": 1}
    parts = [
        levels._source(name, folder, seed=seed, **options).select("txt")
        for name, seed in (("indexed", 3), ("sized", 9))
    ]
    pipe = sp.mix(parts, repeats=[1, 1], epochs=epochs) if how == "mix" else sp.concat(parts, epochs=epochs)
    pipe = pipe.filter(kept)
    return pipe if size is None else pipe.batch(size)


LEVELS = ("indexed", "counted", "streamed")
CELLS = {
    **{f"{level} {chain}": partial(of_chain, level, chain) for level in LEVELS for chain in BEHIND},
    **{
        f"{level} decoded, {chain}": partial(of_cell, level, chain)
        for level in LEVELS
        for chain in ("filter", "opaque", "split")
    },
    "mix": partial(of_mixture, "mix"),
    "concat": partial(of_mixture, "concat"),
    **{f"{level} pools, {tail}": partial(pools, level, tail) for level in LEVELS[::2] for tail in ("carry", "merge")},
}
"""From shuffle, folder, a rank's batch (None: none is made) and epochs to a pipeline in lanes."""


@lru_cache(maxsize=64)
def keys_of(name, shuffle, folder):
    """The keys of an epoch, from one plain pass."""
    found = [item["__key__"] for item in CELLS[name](shuffle, folder)]
    keys = [key for each in found for key in (each if isinstance(each, list) else [each])]
    assert len(set(keys)) == len(keys) > 30
    return keys


legs = st.builds(Leg, st.integers(1, 9), st.sampled_from([1, 1, 2, 3, 4]), st.integers(0, 5), st.integers(0, 30))


@settings(max_examples=8, deadline=None, phases=[Phase.explicit, Phase.generate])  # to shrink a journey takes minutes
@given(
    name=st.sampled_from(sorted(CELLS)),
    shuffle=st.sampled_from([False, True, 1, 5]),
    legs=st.lists(legs, min_size=2, max_size=4),
    epochs=st.sampled_from([1, 2, None]),
)
@example("indexed filter", 5, [Leg(8, 1, 0, 3), Leg(4, 1, 3, 2), Leg(6)], 1)  # other batches, twice in a row
@example("counted two shuffles", True, [Leg(4, 2, 0, 7), Leg(4, 1, 2, 9), Leg(4, 3)], None)  # other ranks
@example("streamed decoded, opaque", True, [Leg(8, 1, 0, 6), Leg(3)], 2)  # a window that follows from the batch
@example(
    "streamed filter", 5, [Leg(2, 1, 5, 20), Leg(2, 1, 0, 9), Leg(2, 1, 5)], 1
)  # more readers than lanes, or fewer
@example(
    "indexed filter", False, [Leg(7, 3, 3, 18), Leg(6, 1, 0, 3), Leg(5, 4, 4, 18), Leg(2, 1, 3)], None
)  # idle ranks
@example("mix", True, [Leg(5, 1, 0, 4), Leg(3, 2, 0, 5), Leg(8)], None)  # places that follow from draws
@example("indexed pools, carry", 5, [Leg(3, 1, 0, 3), Leg(3, 1, 4, 4), Leg(3, 1, 2)], 2)  # other readers of pools
def test_every_sample_comes_exactly_once_an_epoch_whatever_changes_between_jobs(folder, name, shuffle, legs, epochs):
    keys = keys_of(name, shuffle, folder)
    wanted = {(epoch, key) for epoch in (0, 1) for key in keys}
    legs = [*legs[:-1], legs[-1]._replace(steps=None)]
    if epochs is not None:  # several ranks would not end together
        legs = [leg._replace(ranks=1) for leg in legs]
    try:
        seen, ended = travel(
            lambda size: CELLS[name](shuffle, folder, size=size, epochs=epochs),
            legs,
            lambda seen: epochs is None and wanted <= seen.keys(),
        )
    except (sp.ConfigError, sp.StageError) as error:
        assert "cannot feed" in str(error) or "dropped every one" in str(error)  # of a reader without any
        return
    check_each_once(seen, keys, 2 if epochs is None else ended)
    assert epochs is None or ended >= epochs


@pytest.mark.parametrize("stop", [2, 3])
def test_a_rank_that_passes_over_an_empty_column_goes_on_in_its_own_turn(tmp_path, stop):
    """By its own state, by the list of all, and by the merged one; on other ranks nothing is lost or comes twice."""
    write_shards(tmp_path, [8] * 4)
    numbers = {key: i for i, key in enumerate(each["__key__"] for each in sp.stream(str(tmp_path), shuffle=False))}

    def make(batch):  # 4 x 2 lanes, of which those of rank 0 in column 1 are empty
        pipe = sp.stream(str(tmp_path), shuffle=False, epochs=None)
        return pipe.filter(lambda each: numbers[each["__key__"]] % 8 not in (4, 6)).batch(batch)

    def job(ranks, states):
        return [Rank(make(4 // ranks), Leg(4 // ranks, ranks), rank, states) for rank in range(ranks)]

    def steps(job, number):
        return [[rank.step() for rank in job] for _ in range(number)]

    before = job(2, [])
    had = steps(before, stop)
    states = [rank.state() for rank in before]
    assert states[0]["lanes"] == [4, 2]
    assert states[0]["at"] != states[1]["at"]
    merged = sp.merge_states(states)
    own = [Rank(make(2), Leg(2, 2), rank, [state]) for rank, state in enumerate(states)]
    following = steps(before, 6)
    for again in (own, job(2, states), job(2, [merged])):
        assert steps(again, 6) == following
    for ranks in (1, 4):
        seen = [each for step in had + steps(job(ranks, [merged]), 30) for batch in step for each in batch or ()]
        assert max(Counter(seen).values()) == 1
        assert sum(epoch == 0 for epoch, _ in seen) == 24
    for turns in (7, [1, -1], ["1"]):
        with pytest.raises(sp.ConfigError, match="the turns of its ranks"):
            job(2, [{**merged, "turns": turns}])


@pytest.mark.parametrize("level", ["indexed", "counted", "streamed"])
def test_a_loader_with_workers_goes_on_with_another_batch(folder, level):
    make = CELLS[f"{level} filter"]
    first = make(5, folder, size=8).loader(num_workers=2)
    got = [key for batch in itertools.islice(first, 3) for key in batch["__key__"]]
    second = make(5, folder, size=5).loader()
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    got += [key for batch in second for key in batch["__key__"]]
    assert sorted(got) == sorted(keys_of(f"{level} filter", 5, folder))


def older(state):
    return {name: value for name, value in state.items() if name != "stream"}


@pytest.mark.parametrize("level", ["indexed", "streamed"])
def test_a_state_of_an_older_release_goes_on_in_the_same_lanes_and_is_refused_in_others(folder, level):
    make = partial(CELLS[f"{level} filter"], 5, folder)
    leg = Leg(8, steps=3)
    rank = Rank(make(8), leg, 0, [])
    for _ in range(3):
        rank.step()
    state, rest = older(rank.state()), []
    for each in ([state], [rank.state()]):
        rest.append(list(iter(Rank(make(8), leg, 0, each).step, None)))
    assert rest[0] == rest[1]
    own = re.escape(f"{state['lanes'][0]} x {state['lanes'][1]}")
    with pytest.raises(sp.ConfigError, match=f"{own}, those of this job .* older release"):
        Rank(make(3), leg._replace(batch=3), 0, [state])


@pytest.mark.parametrize(
    "numbers", [7, {"batch": 0}, {"batch": 8}, {"batch": 7, "lanes": [8, 4]}, {"window": -1}, {"together": 3}]
)
def test_a_state_whose_lanes_cannot_have_been_made_so_is_refused(folder, numbers):
    pipe = CELLS["indexed filter"](5, folder, size=8)
    loader = pipe.loader()
    with pytest.raises(sp.ConfigError):
        loader.load_state_dict({**loader_state(pipe), "stream": numbers})


def loader_state(pipe):
    loader = pipe.loader()
    next(iter(loader))
    return loader.state_dict()
