"""Planned steps of one sample each run through one chain, as far as its stages keep nothing between samples."""

import pytest

import streampipe as sp
from tests.data import shard, write_shards

STARTED = []


@sp.stage(rows="each", state="nothing")
def keeping_nothing(samples):
    STARTED.append("nothing")
    yield from samples


@sp.stage(rows="each")
def opaque(samples):
    STARTED.append("opaque")
    yield from samples


@sp.stage(rows="each", state="nothing")
def two_ahead(samples):
    held = []
    for sample in samples:
        held.append(sample)
        if len(held) == 3:
            yield held.pop(0)
    yield from held


@sp.stage(rows="each", state="nothing")
def losing(samples):
    for i, sample in enumerate(samples):
        if i != 2:
            yield sample


@pytest.fixture
def folder(tmp_path):
    write_shards(tmp_path, [4, 3])
    return str(tmp_path)


@pytest.mark.parametrize(("stage", "chains"), [(keeping_nothing, 1), (opaque, 7)])
def test_a_chain_is_begun_once_a_pass_unless_a_stage_keeps_something(folder, stage, chains):
    STARTED.clear()
    assert len(list(sp.stream(folder).apply(stage()))) == 7
    assert len(STARTED) == chains


def test_a_stage_that_loses_samples_is_found_out_at_the_end_of_its_chain(folder):
    with pytest.raises(sp.StageError, match="yielded 6 for 7"):
        list(sp.stream(folder).apply(losing()))


def test_a_stage_that_reads_ahead_without_saying_so_is_told_how(folder):
    with pytest.raises(sp.StageError, match=r"run.trail.mark.*state='opaque'"):
        list(sp.stream(folder).apply(two_ahead()))


@pytest.mark.parametrize("threads", [0, 2])
def test_an_unbatched_pass_resumes_behind_each_sample_also_behind_skipped_ones(tmp_path, threads):
    samples = [(f"{i}", {"cls": "x" if i in (1, 2, 5) else f"{i}"}) for i in range(7)]
    (tmp_path / "00000.tar").write_bytes(shard(samples))

    def loader():
        policy = sp.ErrorPolicy("skip", max_share=1)
        return sp.stream(str(tmp_path), on_error=policy).decode(threads=threads).loader()

    whole = loader()
    keys, states = [], []
    for sample in whole:
        keys.append(sample["__key__"])
        states.append(whole.state_dict())
    assert keys == ["0", "3", "4", "6"]
    for i, state in enumerate(states[:-1]):
        rest = loader()
        rest.load_state_dict(state)
        assert [sample["__key__"] for sample in rest] == keys[i + 1 :]


@pytest.mark.parametrize(("gil", "kind"), [(True, memoryview), (False, bytes)])
def test_without_a_gil_no_sample_is_a_view_of_what_others_are(tmp_path, monkeypatch, gil, kind):
    """CPython counts the views of a buffer without a lock then, and decode(threads=) has samples in several threads."""
    write_shards(tmp_path, [4])
    monkeypatch.setattr("streampipe.engine.chain.has_gil", lambda: gil)
    kinds = set()

    @sp.stage(rows="each", state="nothing", views=True)
    def looking(samples):
        for sample in samples:
            kinds.add(type(sample["txt"]))
            yield sample

    assert len(list(sp.stream(str(tmp_path)).apply(looking()).decode(threads=2))) == 4
    assert kinds == {kind}
