"""A stream's window of samples, in bytes."""

import itertools
from collections import Counter
from itertools import islice

import pytest

import streampipe as sp
from streampipe.context import Consumer, Run
from streampipe.testing import FaultServer
from tests.data import shard


def test_a_window_of_large_samples_moves_them_less_and_loses_none(tmp_path, monkeypatch):
    path = tmp_path / "a.tar"
    path.write_bytes(shard([(f"{i:03d}", {"bin": bytes(50_000)}) for i in range(100)]))

    def order():
        return [int(sample["__key__"]) for sample in sp.stream(str(path), shuffle=80, tier="sequential")]

    whole = order()
    monkeypatch.setattr("streampipe.plan.order.WINDOW_BYTES", 200_000)  # four samples
    short = order()
    assert sorted(whole) == sorted(short) == list(range(100))
    assert max(abs(place - number) for place, number in enumerate(short)) <= 5
    assert max(abs(place - number) for place, number in enumerate(whole)) > 20


def test_samples_of_a_window_are_bytes_of_their_own(tmp_path):
    """A view would hold the whole piece of a shard that it was cut from."""
    path = tmp_path / "a.tar"
    path.write_bytes(shard([(f"{i:03d}", {"bin": bytes(500)}) for i in range(100)]))
    for pipe in (sp.stream(str(path), shuffle=10, tier="sequential"), sp.stream(str(path)).shuffle(10)):
        assert {type(sample["bin"]) for sample in pipe} == {bytes}


def test_a_resumed_window_is_counted_as_what_it_holds(tmp_path):
    """What was given out before comes in again, and leaves without a word."""
    size = 10_000
    data = shard([(f"{i:03d}", {"bin": bytes(size)}) for i in range(200)])
    with FaultServer({"a.tar": data}) as server:

        def loader():
            network = sp.Network(patience=1 + next(other))  # an account of its own
            pipe = sp.stream(server.url("a.tar"), shuffle=40, seed=1, tier="sequential", network=network)
            return pipe.loader(), pipe.source.source.traffic

        other = itertools.count()
        whole, _ = loader()
        before = iter(whole)
        gone = [sample["__key__"] for sample in islice(before, 100)]
        resumed, traffic = loader()
        resumed.load_state_dict(whole.state_dict())
        samples = iter(resumed)
        keys = [sample["__key__"] for sample in islice(samples, 50)]
        assert len({*gone, *keys}) == 150
        assert size < traffic._held < 42 * (size + 1000)
        before.close()
        samples.close()
        assert traffic._held == 0


@pytest.mark.parametrize("end", ["exhausted", "left"])
def test_a_lane_that_ends_takes_from_no_other_what_that_asked_for_ahead(end):
    names = [f"{number}.tar" for number in range(8)]
    data = shard([(f"{i}", {"bin": bytes(1000)}) for i in range(3)])
    with FaultServer(dict.fromkeys(names, data)) as server:
        samples = sp.stream([server.url(name) for name in names], tier="sequential").source
        one, other = (samples(Run(consumer=Consumer(worker=i, num_workers=2)), 0) for i in range(2))
        next(other)
        ahead = dict(samples.source._live.coming)
        assert len(ahead) == 3
        next(one)
        assert len(samples.source._live.coming) == 6
        if end == "exhausted":
            list(one)
        one.close()
        assert samples.source._live.coming == ahead
        list(other)
        asked = Counter(each.name for each in server.requests if each.method == "GET")
        assert all(asked[name] == 1 for name in names[1::2])  # those of the other lane
        assert not samples.source._live.coming


def test_windows_and_what_is_on_its_way_keep_within_the_memory():
    memory = 4 << 20
    shards = {
        f"{n:02d}.tar": shard([(f"{n:02d}{i:02d}", {"bin": bytes(50_000)}) for i in range(20)]) for n in range(16)
    }
    with FaultServer(shards) as server:
        network = sp.Network(memory=memory, patience=60.5)
        pipe = sp.stream([server.url(name) for name in shards], shuffle=100, tier="sequential", network=network).batch(
            16
        )
        assert "(2.1 MB)" in pipe.explain()
        assert len({key for batch in pipe.loader() for key in batch["__key__"]}) == 320
        traffic = pipe.source.source.traffic
        assert memory // 4 < traffic._peak <= memory
        assert traffic._taken == traffic._held == 0


def test_a_state_keeps_its_windows_whatever_the_memory_is(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(shard([(f"{i:03d}", {"bin": bytes(5_000)}) for i in range(100)]))

    def loader(memory):
        network = sp.Network(memory=memory)
        return sp.stream(str(path), shuffle=50, seed=1, tier="sequential", network=network).loader()

    small, large = ([sample["__key__"] for sample in loader(memory)] for memory in (100_000, 10 << 20))
    assert sorted(small) == sorted(large)
    assert small != large
    first = loader(100_000)
    before = [sample["__key__"] for sample in islice(first, 30)]
    resumed = loader(10 << 20)
    resumed.load_state_dict(first.state_dict())
    assert before + [sample["__key__"] for sample in resumed] == small
