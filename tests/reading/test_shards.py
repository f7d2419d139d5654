"""A stream's window of samples, in bytes."""

import streampipe as sp
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
