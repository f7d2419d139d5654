"""Which samples each step had, and the batch of a step again."""

import itertools
import json
import re
import subprocess
import sys
import threading

import pytest

import streampipe as sp
from streampipe.errors import ConfigError
from tests.data import write_photos, write_shards


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder, [20, 17])
    return str(folder)


def planned(folder, **options):
    return sp.stream(folder, shuffle=True, seed=3, **{"epochs": 2, **options}).batch(4)


def streamed(folder, **options):
    """Lanes, and a stage that drops."""
    source = sp.stream(folder, shuffle=True, seed=3, tier="sequential", **{"epochs": 2, **options})
    return source.filter(lambda sample: not sample["__key__"].endswith("3")).batch(4)


KINDS = pytest.mark.parametrize("make", [planned, streamed])


@KINDS
@pytest.mark.parametrize("options", [{}, {"num_workers": 2}, {"threads": 2}], ids=str)
def test_the_log_says_what_each_step_had(folder, tmp_path, make, options):
    batches = list(make(folder).loader(log=tmp_path, **options))
    rows = sp.Lineage(tmp_path).table().to_pylist()
    expected = [
        (step, 0, slot, key, *position)
        for step, batch in enumerate(batches)
        for slot, (key, position) in enumerate(zip(batch["__key__"], batch["__position__"], strict=True))
    ]
    found = [(r["step"], r["rank"], r["slot"], r["key"], r["epoch"], r["shard"], r["number"]) for r in rows]
    assert found == expected
    assert rows[0]["url"] == batches[0]["__url__"][0]


@KINDS
def test_a_step_is_replayed_from_the_log(folder, tmp_path, make):
    batches = list(make(folder).loader(log=tmp_path))
    for step in (0, 5, len(batches) - 1):
        assert sp.replay(make(folder), tmp_path, step) == batches[step]


@KINDS
def test_a_step_is_replayed_from_a_state(folder, make):
    loader = make(folder).loader()
    begin = loader.state_dict()
    batches = list(loader)
    for step in (0, 7, 13):
        assert sp.replay(make(folder), begin, step) == batches[step]


def test_where_batches_are_planned_a_later_state_will_do(folder):
    loader = planned(folder).loader(num_workers=2)
    batches = list(itertools.islice(loader, 15))
    state = json.loads(json.dumps(loader.state_dict()))
    for step in (0, 9, 14):
        assert sp.replay(planned(folder), state, step) == batches[step]
    assert sp.replay(planned(folder), state, 17) == list(planned(folder).loader())[17]


def test_elsewhere_a_later_state_says_what_is_needed(folder):
    loader = streamed(folder).loader()
    list(itertools.islice(loader, 5))
    with pytest.raises(ConfigError, match=r"from before that step, or the folder that loader\(log=\.\.\.\) wrote"):
        sp.replay(streamed(folder), loader.state_dict(), 2)


def test_pixels_and_crops_are_those_of_training(tmp_path):
    write_photos(tmp_path / "shards", [8, 8])
    pipe = sp.stream(str(tmp_path / "shards"), shuffle=True, epochs=None).rename(image="jpg")
    pipe = pipe.decode(32, crop="random", flip=0.5).batch(4)
    loader = pipe.loader(threads=2)
    batches = list(itertools.islice(loader, 7))
    again = sp.replay(pipe, loader.state_dict(), 5)
    assert again["image"].equal(batches[5]["image"])
    assert again["crop_top_left"] == batches[5]["crop_top_left"]


@pytest.mark.parametrize("make", [planned, streamed])
def test_each_rank_has_its_own(folder, tmp_path, make):
    def loader(rank):
        return make(folder, epochs=None).loader(rank=rank, world_size=2, steps_per_epoch=6, log=tmp_path)

    batches = [list(loader(rank)) for rank in range(2)]
    log = sp.Lineage(tmp_path)
    assert log.ranks == 2
    for rank in range(2):
        assert log.step(3, rank)["key"].to_pylist() == batches[rank][3]["__key__"]
        assert sp.replay(make(folder, epochs=None), tmp_path, 3, rank=rank) == batches[rank][3]


def batchwise(folder):
    """A mixture whose steps are batches of one part."""
    one, other = (sp.stream(folder, shuffle=True, seed=seed, epochs=None) for seed in (3, 4))
    return sp.mix([one.batch(4), other.batch(2)], weights=[3, 1])


@pytest.mark.parametrize("make", [planned, batchwise])
def test_a_state_from_before_training_says_how_many_ranks_there_are(folder, make):
    loader = make(folder).loader(rank=1, world_size=2)
    begin = loader.state_dict()
    batches = list(itertools.islice(loader, 4))
    assert sp.replay(make(folder), begin, 3, rank=1) == batches[3]


def test_steps_that_were_done_again_count_once(folder, tmp_path):
    first = planned(folder).loader(log=tmp_path)
    passed = iter(first)
    batches = [next(passed) for _ in range(5)]
    state = first.state_dict()
    next(passed)
    next(passed)
    passed.close()
    resumed = planned(folder).loader(log=tmp_path)
    resumed.load_state_dict(state)
    batches += list(resumed)
    table = sp.Lineage(tmp_path).table()
    assert table["step"].to_pylist() == [step for step, batch in enumerate(batches) for _ in batch["__key__"]]
    assert table["key"].to_pylist() == [key for batch in batches for key in batch["__key__"]]


def test_a_state_and_the_log_agree(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("streampipe.lineage.log._SOON", 0.0)
    passed = iter(loader := planned(folder).loader(log=tmp_path))
    for _ in range(4):
        next(passed)
    loader.state_dict()
    assert sp.Lineage(tmp_path).table()["step"].to_pylist()[-1] == 3


def test_other_data_than_those_of_the_log_are_noticed(folder, tmp_path):
    list(planned(folder).loader(log=tmp_path))
    with pytest.raises(ConfigError, match="seed"):
        sp.replay(sp.stream(folder, shuffle=True, seed=4, epochs=2).batch(4), tmp_path, 2)


def test_batches_that_do_not_say_their_samples_are_refused(folder, tmp_path):
    loader = sp.stream(folder).batch(4, collate=lambda rows: len(rows)).loader(log=tmp_path)
    with pytest.raises(ConfigError, match="__key__, __url__ and __position__"):
        list(loader)


def test_folders_and_files_that_are_no_log_are_refused(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"loader\(log=folder\) writes one"):
        sp.Lineage(tmp_path)
    (tmp_path / "trained-on-0.parquet").write_bytes(b"PAR1")
    with pytest.raises(ConfigError, match="no part of a log"):
        sp.Lineage(tmp_path)
    with pytest.raises(ConfigError, match="a folder of this machine"):
        iter(planned(folder).loader(log="s3://bucket/log"))


def test_steps_that_are_not_there_are_told(folder, tmp_path):
    list(planned(folder).loader(log=tmp_path))
    with pytest.raises(ConfigError, match="no step 99 of rank 0: it has 0 to"):
        sp.replay(planned(folder), tmp_path, 99)
    with pytest.raises(ConfigError, match="no step 1 of rank 5: it has none"):
        sp.Lineage(tmp_path).step(1, rank=5)
    with pytest.raises(ConfigError, match="steps count from 0"):
        sp.replay(planned(folder), tmp_path, -1)


def test_a_step_before_another_global_batch_is_refused(folder):
    loader = sp.stream(folder, shuffle=True, seed=3).batch(4).loader()
    list(itertools.islice(loader, 3))
    other = sp.stream(folder, shuffle=True, seed=3).batch(2).loader()
    other.load_state_dict(loader.state_dict())
    batches = list(itertools.islice(other, 4))
    pipe, state = sp.stream(folder, shuffle=True, seed=3).batch(2), other.state_dict()
    assert sp.replay(pipe, state, 4) == batches[1]
    with pytest.raises(ConfigError, match="another global batch"):
        sp.replay(pipe, state, 1)


def taken(loader, steps):
    return [batch["__key__"] for batch in itertools.islice(loader, steps)]


def logged(folder):
    """Keys by step and rank."""
    found = {}
    for row in sp.Lineage(folder).table().to_pylist():
        found.setdefault((row["step"], row["rank"]), []).append(row["key"])
    return found


def test_what_was_done_behind_a_step_that_a_job_went_on_from_does_not_count(folder, tmp_path):
    def loader(batch, rank=0, ranks=1):
        pipe = sp.stream(folder, shuffle=True, seed=3, epochs=None).batch(batch)
        return pipe.loader(rank=rank, world_size=ranks, steps_per_epoch=100, log=tmp_path)

    expected, states = {}, []
    for rank in range(4):
        first = loader(2, rank, 4)
        expected |= {(step, rank): keys for step, keys in enumerate(taken(first, 3))}
        states.append(first.state_dict())
        taken(first, 5)
    for rank in range(2):  # on fewer ranks
        fewer = loader(4, rank, 2)
        fewer.load_state_dict(states)
        expected |= {(3 + step, rank): keys for step, keys in enumerate(taken(fewer, 2))}
        state = fewer.state_dict()
        taken(fewer, 4)
    for rank in range(2):  # and again, not as far as before
        again = loader(4, rank, 2)
        again.load_state_dict(state)
        expected |= {(5 + step, rank): keys for step, keys in enumerate(taken(again, 1))}
    assert logged(tmp_path) == expected
    with pytest.raises(ConfigError, match="no step 6 of rank 1: it has 0 to 5"):
        sp.Lineage(tmp_path).step(6, rank=1)
    with pytest.raises(ConfigError, match="no step 3 of rank 3: it has 0 to 2"):
        sp.Lineage(tmp_path).step(3, rank=3)


@pytest.mark.parametrize("options", [{}, {"num_workers": 1}, {"threads": 2}], ids=str)
def test_what_came_before_an_error_is_in_the_log(folder, tmp_path, options):
    keys = [sample["__key__"] for sample in sp.stream(folder)]
    bad = keys[21]

    def fail(sample):
        if sample["__key__"] == bad:
            raise ValueError("no")
        return sample

    batches, loader = [], sp.stream(folder).map(fail).batch(4).loader(log=tmp_path, **options)
    with pytest.raises(sp.StageError) as kept:
        batches += (batch["__key__"] for batch in loader)
    assert logged(tmp_path) == {(step, 0): batch for step, batch in enumerate(batches)}
    assert kept.value.__traceback__ is not None  # it holds the pass, which would write when it is gone
    assert len(batches) == 5


ENDS = """
import sys, streampipe as sp
passing = iter(sp.stream(sys.argv[1]).batch(4).loader(log=sys.argv[2]))
for _ in range(3):
    next(passing)
"""


def test_a_process_that_ends_in_the_middle_of_a_pass_writes_its_log(folder, tmp_path):
    subprocess.run([sys.executable, "-c", ENDS, folder, tmp_path], check=True, timeout=120)
    assert [step for step, _ in logged(tmp_path)] == [0, 1, 2]


def test_a_device_logs_what_the_loop_was_given_and_not_what_is_made_ahead(folder, tmp_path):
    seen, made = [], threading.Event()
    pipe = planned(folder).map(lambda batch: (made.set() if batch["__key__"] == last else None, batch)[1])
    last = [batch["__key__"] for batch in planned(folder).loader()][5]
    options = {"callbacks": [lambda found, step: seen.append(step)], "callback_every": 1}
    loader = sp.to_device(pipe.loader(log=tmp_path, **options), "cpu", prefetch=4)
    passing = iter(loader)
    batches = [next(passing)["__key__"] for _ in range(3)]
    assert made.wait(60)
    assert seen == [1, 2, 3]
    passing.close()
    assert logged(tmp_path) == {(step, 0): keys for step, keys in enumerate(batches)}
    assert sp.replay(planned(folder), tmp_path, 2)["__key__"] == batches[2]


def test_a_checkpoint_is_in_the_log_however_lately_rows_were_written(folder, tmp_path, monkeypatch):
    passing = iter(loader := planned(folder).loader(log=tmp_path))
    monkeypatch.setattr("streampipe.lineage.log._SECONDS", -1.0)
    next(passing)  # is written at once
    monkeypatch.setattr("streampipe.lineage.log._SECONDS", 1e9)
    next(passing)
    loader.state_dict()
    assert [step for step, _ in logged(tmp_path)] == [0, 1]


@pytest.mark.parametrize("most", [1_000_000, 30])
def test_a_full_disk_ends_no_training_and_rows_wait_for_room(folder, tmp_path, monkeypatch, caplog, most):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    loader = planned(folder).loader(log=tmp_path / "log")
    with monkeypatch.context() as patched:
        patched.setattr("streampipe.lineage.log._MOST_ROWS", most)
        patched.setattr("streampipe.lineage.log.pq.write_table", full)
        first = list(loader)
        loader.state_dict()
    assert re.search(r"steps 0 to \d+ \(rank 0\) could not be written to .*No space left.*make room", caplog.text)
    steps = len(first) + len(list(loader))
    had = sp.Lineage(tmp_path / "log").table()["step"].to_pylist()
    assert sorted(set(had)) == list(range(0 if most > 30 else len(first), steps))
