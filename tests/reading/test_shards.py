"""A stream's window of samples, in bytes."""

import itertools
from itertools import islice

import streampipe as sp
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
