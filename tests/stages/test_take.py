"""``take`` behind stages that drop: exact in one process, else counted; and what pools of buckets make of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice

import pytest

import streampipe as sp
from streampipe.engine.lanes import Shape
from tests import levels
from tests.engine.journeys import Leg, Rank, travel
from tests.levels import most

SIZES = sp.Buckets([(8, 16), (8, 8), (16, 8), (8, 40)])


def early(sample):
    """A filter that keeps the samples of few shards: most lanes have less than their share."""
    return int(sample["__key__"]) < 50000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("take")
    levels.write_levels(found, [6, 3, 9, 0, 7, 5, 8, 4] * 2)
    return found


def keys_of(batches):
    return [key for batch in batches for key in batch["__key__"]]


@pytest.mark.parametrize("level", ["indexed", "counted", "streamed"])
@pytest.mark.parametrize("shuffle", [False, True, 5])
def test_n_behind_a_filter_are_n_in_one_process_in_every_epoch(folder, level, shuffle):
    pipe = levels._source(level, folder, shuffle=shuffle).filter(early)
    whole = sorted(each["__key__"] for each in pipe)
    assert len(whole) == 25
    loader = pipe.take(20).batch(8).loader()
    for _ in range(2):
        taken = keys_of(loader)
        assert len(taken) == len(set(taken)) == 20
    first = pipe.take(20).batch(8).loader()
    left = keys_of(pipe.skip(20).batch(8).loader())
    assert sorted(keys_of(first) + left) == whole
    assert len(list(pipe.take(20))) == 20
    assert len(list(pipe.take(40))) == 25


@pytest.mark.parametrize("level", ["indexed", "streamed"])
def test_n_stay_n_over_resumes_with_another_batch_or_workers(folder, level):
    def make(size):
        return levels._source(level, folder, epochs=2).filter(early).take(20).batch(size)

    seen, ended = travel(make, [Leg(3, steps=3), Leg(4, workers=3, steps=2), Leg(7, workers=2)], lambda seen: False)
    assert ended == 2
    assert max(seen.values()) == 1
    assert Counter(epoch for epoch, _ in seen) == {0: 20, 1: 20}


@pytest.mark.parametrize("level", ["indexed", "streamed"])
def test_an_endless_pass_of_one_process_goes_on_with_several_ranks_and_workers(folder, level):
    def make(size):
        return levels._source(level, folder, epochs=None).filter(most).take(40).batch(size)

    seen, _ = travel(make, [Leg(8, steps=2), Leg(4, 2, 2, steps=4), Leg(8, steps=4)], lambda seen: False)
    assert sum(seen.values()) == len(seen) == 80
    assert len([key for epoch, key in seen if epoch == 0]) > 24
    in_steps = levels._source(level, folder).filter(most).take(40).batch(8).loader(steps_per_epoch=3)
    for text in (in_steps.explain(), make(8).explain()):
        assert "in one process they are exact, in passes that end" in text


@pytest.mark.parametrize("level", ["indexed", "streamed"])
def test_a_state_of_an_older_release_goes_on_in_several_lanes(folder, level):
    """It does not say what its lanes were made with, and they are those of a job without a limit."""
    pipe = levels._source(level, folder).filter(early).take(20).batch(8)
    rank = Rank(pipe, Leg(8), 0, [])
    alone = rank.life.engine
    rank.life.engine = replace(alone, work=alone.several)
    rank.step()
    state = rank.state()
    assert alone.work.shape == Shape(1, 1) != Shape(*state["lanes"])
    del state["stream"]
    again = Rank(pipe, Leg(8), 0, [state])
    assert list(iter(again.step, None)) == list(iter(rank.step, None)) != []
    with pytest.raises(sp.ConfigError, match="older release"):
        Rank(levels._source(level, folder).filter(early).take(20).batch(3), Leg(3), 0, [state])


def test_what_several_readers_lack_is_counted_and_explained(folder):
    pipe = levels._source("indexed", folder).filter(early).take(20).batch(2)
    loaders = [pipe.loader(rank=rank, world_size=2, steps_per_epoch=3) for rank in range(2)]
    assert "each of" in loaders[0].explain()
    assert "in one process they are exact" in loaders[0].explain()
    for loader in loaders:
        assert len(list(loader)) == 3
    assert any("had fewer than its share" in loader.report("json") for loader in loaders)
    assert "in one process they are exact" not in pipe.explain()


def buckets(folder, **options):
    return levels._source("sized", folder, tier="sequential", **options)


@pytest.mark.parametrize("limit", ["take", "skip"])
def test_a_limit_behind_bucket_and_batch_is_refused_where_epochs_run_on(folder, limit):
    def limited(epochs):
        return getattr(buckets(folder, epochs=epochs).bucket(SIZES).batch(2), limit)(3)

    for epochs in (2, None):
        with pytest.raises(sp.ConfigError, match="before bucket"):
            list(islice(limited(epochs), 4))
    with pytest.raises(sp.ConfigError, match="before bucket"):
        list(limited(1).loader(steps_per_epoch=4))
    whole = len(list(buckets(folder).bucket(SIZES).batch(2)))
    assert len(list(limited(1))) == (3 if limit == "take" else whole - 3)


def test_a_limit_before_bucket_counts_every_epoch(folder):
    pipe = buckets(folder, epochs=3).take(9).bucket(SIZES).batch(2)
    whole = list(pipe.loader())
    assert Counter(each.epoch for batch in whole for each in batch["__position__"]) == {0: 9, 1: 9, 2: 9}
    for stop in (1, 6, len(whole) - 1):
        loader = pipe.loader()
        got = list(islice(loader, stop))
        resumed = pipe.loader()
        resumed.load_state_dict(loader.state_dict())
        assert keys_of(got) + keys_of(resumed) == keys_of(whole)


@pytest.mark.parametrize("tail", ["short", "drop", "pad"])
def test_a_loaders_tail_is_refused_where_buckets_or_packs_are_formed_in_lanes(folder, tail):
    pipe = levels._source("sized", folder).filter(early)
    for chain in (pipe.bucket(SIZES).batch(2), pipe.pack(3, cost=lambda sample: 1)):
        with pytest.raises(sp.ConfigError, match="tail= has no meaning with (buckets|pack)"):
            list(chain.loader(tail=tail))
