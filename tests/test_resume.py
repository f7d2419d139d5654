"""Law 4 on whole pipelines: stopping at any step and loading the state equals the uninterrupted run."""

import json
import time
from itertools import chain

import pytest
from torch.utils.data import DataLoader

import streampipe as sp
from streampipe.context import Consumer
from streampipe.counters import counters
from streampipe.engine.clock import Clock
from streampipe.engine.plain import PlainPass
from streampipe.stages.stage import stage
from tests.data import write_shards


@stage
def opaque(samples):
    yield from samples


def shout(text):
    return text.upper()


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder, [7, 1, 9, 4, 6, 3])
    return folder


def planned(shards, size=4, **options):
    return sp.stream(str(shards), **{"seed": 3, "shuffle": 5, **options}).decode().map(shout, "txt").batch(size)


def sequential(shards, size=4, **options):
    pipe = sp.stream(str(shards), tier="sequential", **{"seed": 3, "shuffle": 5, **options})
    return pipe.decode().apply(opaque).batch(size)


def keys(batches):
    return [batch["__key__"] for batch in batches]


def stopped(pipe, step, options):
    """The state after ``step`` batches, by way of text, and what was received."""
    loader = pipe.loader(**options)
    batches = iter(loader)
    got = [next(batches)["__key__"] for _ in range(step)]
    return json.loads(json.dumps(loader.state_dict())), got


@pytest.mark.parametrize("make", [planned, sequential])
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_every_step_resumes_to_the_same_batches_and_the_same_next_epoch(shards, make, workers):
    whole_loader = make(shards).loader(num_workers=workers)
    whole, following = keys(whole_loader), keys(whole_loader)
    assert sorted(chain(*whole)) == sorted(chain(*following))
    for step in range(len(whole) + 1):
        state, _ = stopped(make(shards), step, {"num_workers": workers})
        loader = make(shards).loader(num_workers=workers)
        loader.load_state_dict(state)
        assert loader.state_dict() == state
        left = whole[step:]
        assert keys(loader) == (left or following), f"step {step}"
        if step % 3 == 0 and left:
            assert keys(loader) == following


@pytest.mark.parametrize("make", [planned, sequential])
def test_workers_that_are_no_forks_of_the_parent_resume_too(shards, make, warm):
    options = {"num_workers": 2, "multiprocessing_context": warm}
    whole = keys(make(shards).loader(num_workers=2))
    state, got = stopped(make(shards), 3, options)
    loader = make(shards).loader(**options)
    loader.load_state_dict(state)
    assert got + keys(loader) == whole


@pytest.mark.parametrize("make", [planned, sequential])
@pytest.mark.parametrize("workers", [0, 2])
def test_two_resumes_in_a_row(shards, make, workers):
    whole = keys(make(shards).loader(num_workers=workers))
    state, first = stopped(make(shards), 2, {"num_workers": workers})
    loader = make(shards).loader(num_workers=workers)
    loader.load_state_dict(state)
    batches = iter(loader)
    second = [next(batches)["__key__"] for _ in range(3)]
    again = make(shards).loader(num_workers=workers)
    again.load_state_dict(loader.state_dict())
    assert first + second + keys(again) == whole


@pytest.mark.parametrize("make", [planned, sequential])
def test_a_finished_pass_and_a_last_batch_resume_to_the_next_epoch(shards, make):
    loader = make(shards).loader()
    whole = keys(loader)
    between = loader.state_dict()
    state, _ = stopped(make(shards), len(whole), {})
    following = keys(loader)
    for each in (state, between):
        resumed = make(shards).loader()
        resumed.load_state_dict(each)
        assert keys(resumed) == following


@pytest.mark.parametrize("threads", [0, 2])
def test_batches_made_ahead_are_not_in_the_state(shards, threads):
    whole = keys(planned(shards).loader())
    loader = planned(shards).loader(threads=threads, prefetch=3)
    batches = iter(loader)
    got = [next(batches)["__key__"] for _ in range(2)]
    time.sleep(0.2)
    resumed = planned(shards).loader(num_workers=2, prefetch=4)
    resumed.load_state_dict(loader.state_dict())
    assert got + keys(resumed) == whole


@pytest.mark.parametrize("workers", [0, 2])
def test_persistent_workers_resume_once(shards, workers):
    reference = planned(shards).loader()
    whole, following = keys(reference), keys(reference)
    state, got = stopped(planned(shards), 3, {})
    loader = planned(shards).loader(num_workers=workers, persistent_workers=workers > 0)
    loader.load_state_dict(state)
    assert got + keys(loader) == whole
    assert keys(loader) == following
    loader.load_state_dict(state)
    assert got + keys(loader) == whole


def global_batches(shards, ranks, workers, state=None, limit=None, size=48):
    loaders = [
        planned(shards, size // ranks, shuffle=20).loader(num_workers=workers, rank=rank, world_size=ranks)
        for rank in range(ranks)
    ]
    for loader in loaders:
        if state is not None:
            loader.load_state_dict(state)
    batches = []
    running = [iter(loader) for loader in loaders]
    while limit is None or len(batches) < limit:
        parts = [next(each, None) for each in running]
        if parts[0] is None:
            assert parts == [None] * ranks
            break
        batches.append(sorted(chain(*(part["__key__"] for part in parts))))
    states = [loader.state_dict() for loader in loaders]
    assert all(each == states[0] for each in states)
    return batches, states[0]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    write_shards(folder, [40, 25, 60, 31] * 6)
    return folder


def test_a_run_of_8_ranks_and_3_workers_continues_on_any_other_number(many):
    whole, _ = global_batches(many, 8, 3)
    first, state = global_batches(many, 8, 3, limit=4)
    assert len(state["lanes"]) == 2
    assert len(json.dumps(state)) < 400
    for ranks, workers in [(1, 0), (2, 5), (4, 1), (6, 2)]:
        rest, _ = global_batches(many, ranks, workers, state)
        assert first + rest == whole, f"{ranks} ranks, {workers} workers"


def test_a_new_run_has_the_same_batches_on_any_number_of_ranks(many):
    whole, state = global_batches(many, 1, 0)
    for ranks, workers in [(2, 1), (3, 2), (8, 0), (16, 0)]:
        found = global_batches(many, ranks, workers)
        assert found == (whole, {**state, "ranks": ranks}), f"{ranks} ranks, {workers} workers"


@pytest.mark.parametrize("size", [12, 96])
def test_another_global_batch_goes_on_with_what_is_left(many, size):
    whole, _ = global_batches(many, 1, 0)
    first, state = global_batches(many, 8, 3, limit=4)
    rest, _ = global_batches(many, 4, 2, state, size=size)
    assert sorted(chain(*first, *rest)) == sorted(chain(*whole))
    assert {len(batch) for batch in rest[:-1]} == {size}
    begun, again = global_batches(many, 4, 0, state, limit=2, size=size)
    assert begun == rest[:2]
    assert global_batches(many, 3, 0, again, size=size)[0] == rest[2:]
    back, _ = global_batches(many, 2, 0, again, size=48)
    assert sorted(chain(*first, *begun, *back)) == sorted(chain(*whole))


def test_a_planned_resume_reads_nothing_of_what_came_before(many):
    state, got = stopped(planned(many, 8, shuffle=False), 90, {})
    loader = planned(many, 8, shuffle=False).loader()
    loader.load_state_dict(state)
    before = counters.get("reading", "samples in")
    batch = next(iter(loader))
    assert 8 <= counters.get("reading", "samples in") - before <= 64  # what lies behind them is read with them
    assert batch["__key__"] not in got


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 4}, "the seed is 4 here and was 3"),
        ({"shuffle": 6}, "the shuffle's window is 6 here and was 5"),
        ({"shuffle": False}, "the shuffle's window is None here and was 5"),
    ],
)
def test_a_state_of_another_order_is_refused_with_both_values(shards, change, words):
    state, _ = stopped(planned(shards), 2, {})
    with pytest.raises(sp.ConfigError, match=words):
        planned(shards, **change).loader().load_state_dict(state)


@pytest.mark.parametrize("make", [planned, sequential])
def test_a_state_of_another_version_is_refused_with_both(shards, make):
    state, _ = stopped(make(shards), 2, {})
    with pytest.raises(sp.ConfigError, match=r"its version is 99, this release reads 2"):
        make(shards).loader().load_state_dict({**state, "streampipe": 99})


def test_a_window_that_was_chosen_is_kept_by_the_state(shards):
    state, _ = stopped(planned(shards, 4, shuffle=True), 2, {"rank": 0, "world_size": 2})
    wide = {**state, "window": 7}
    for given, shuffle in [(state, True), (wide, True), (wide, 7)]:
        loader = planned(shards, 8, shuffle=shuffle).loader()
        loader.load_state_dict(given)
        next(iter(loader))
        assert loader.state_dict()["window"] == given["window"]
    with pytest.raises(sp.ConfigError, match="the shuffle's window is 6 here and was 7"):
        planned(shards, 8, shuffle=6).loader().load_state_dict(wide)


def test_a_state_of_another_dataset_is_refused(shards, many):
    state, _ = stopped(planned(shards), 2, {})
    with pytest.raises(sp.ConfigError, match="the number of samples is 936 here and was 30"):
        planned(many).loader().load_state_dict(state)


@pytest.mark.filterwarnings("ignore:.*stay idle")
def test_a_sequential_state_is_refused_by_another_tier_and_without_all_ranks(shards):
    state, _ = stopped(sequential(shards, epochs=None), 2, {"num_workers": 2, "rank": 0, "world_size": 2})
    for pipe, options, words in [
        (sequential(shards), {"num_workers": 3}, "load the list of the states of all 2 ranks"),
        (planned(shards), {}, "saved by a lanes pipeline, this one is planned"),
        (sequential(shards, seed=4), {}, "the seed is 4 here and was 3"),
    ]:
        with pytest.raises(sp.ConfigError, match=words):
            pipe.loader(**options).load_state_dict(state)


def run_job(shards, ranks, workers, states, steps):
    """Some steps on every rank: their states, by way of text, and (epoch, key) of all that was received."""
    after, seen = [], []
    for rank in range(ranks):
        options = {"num_workers": workers, "rank": rank, "world_size": ranks, "steps_per_epoch": 1000}
        loader = sequential(shards, 2).loader(**options)
        if states:
            loader.load_state_dict(states[rank])
        for _, batch in zip(range(steps), loader, strict=False):
            seen += [(p.epoch, k) for k, p in zip(batch["__key__"], batch["__position__"], strict=True)]
        after.append(json.loads(json.dumps(loader.state_dict())))
    return after, seen


@pytest.mark.filterwarnings("ignore:.*stay idle")
@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (1, 3), (2, 2), (3, 1)])
def test_sequential_streams_are_dealt_again_to_another_job(shards, ranks, workers):
    """Saved on 2 ranks with 3 workers in mid-epoch: nothing is lost and nothing twice, after a second stop too."""
    states, seen = run_job(shards, 2, 3, [], steps=2)
    again, more = run_job(shards, ranks, workers, [states] * ranks, steps=4)
    _, rest = run_job(shards, ranks, workers, again, steps=60)
    everything = seen + more + rest
    assert len(everything) == len(set(everything))
    assert len([key for epoch, key in everything if epoch == 0]) == 30
    _, other = run_job(shards, 2, 2, [again] * 2, steps=60)
    everything = seen + more + other
    assert len(everything) == len(set(everything))
    assert len([key for epoch, key in everything if epoch == 0]) == 30


@pytest.mark.parametrize("make", [planned, sequential])
def test_a_plain_dataloader_without_workers_resumes_from_the_pipelines_state(shards, make):
    pipe = make(shards)
    whole, following = keys(DataLoader(pipe, batch_size=None)), keys(DataLoader(pipe, batch_size=None))
    for step in range(len(whole) + 1):
        pipe = make(shards)
        batches = iter(DataLoader(pipe, batch_size=None))
        got = [next(batches)["__key__"] for _ in range(step)]
        fresh = make(shards)
        fresh.load_state_dict(json.loads(json.dumps(pipe.state_dict())))
        assert got + keys(DataLoader(fresh, batch_size=None)) == whole + (following if step == len(whole) else [])


@pytest.mark.parametrize("make", [planned, sequential])
@pytest.mark.parametrize("workers", [0, 2, 3])
@pytest.mark.filterwarnings("ignore")
def test_torchdatas_stateful_dataloader_resumes_at_every_step(shards, make, workers):
    StatefulDataLoader = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
    whole = keys(StatefulDataLoader(make(shards), batch_size=None, num_workers=workers))
    for step in range(1, len(whole)):
        loader = StatefulDataLoader(make(shards), batch_size=None, num_workers=workers)
        batches = iter(loader)
        got = [next(batches)["__key__"] for _ in range(step)]
        state = loader.state_dict()
        del batches
        fresh = StatefulDataLoader(make(shards), batch_size=None, num_workers=workers)
        fresh.load_state_dict(state)
        assert got + keys(fresh) == whole, f"step {step}"


@pytest.mark.parametrize("make", [planned, sequential])
def test_a_loader_refuses_the_state_of_one_worker_of_a_plain_dataloader(shards, make):
    def state(worker, workers):
        passed = PlainPass(make(shards).spec, Consumer(0, 1, worker, workers), Clock(), None)
        assert next(iter(passed))
        return passed.state()

    with pytest.raises(sp.ConfigError, match="worker 1 of 2 of a plain DataLoader, which does not know what its sibl"):
        make(shards).loader().load_state_dict(state(1, 2))
    make(shards).loader().load_state_dict(state(0, 1))


def test_steps_per_epoch_cuts_a_stream_that_goes_on(shards):
    for make in (planned, sequential):
        stream = make(shards, epochs=None).loader(num_workers=2)
        endless = [batch["__key__"] for batch, _ in zip(stream, range(30), strict=False)]
        loader = make(shards).loader(num_workers=2, steps_per_epoch=7)
        assert len(loader) == 7
        assert keys(loader) + keys(loader) + keys(loader) == endless[:21]
        batches = iter(loader)
        got = [next(batches)["__key__"] for _ in range(3)]
        resumed = make(shards).loader(num_workers=2, steps_per_epoch=7)
        resumed.load_state_dict(json.loads(json.dumps(loader.state_dict())))
        rest = keys(resumed)
        assert len(rest) == 4
        assert got + rest + keys(resumed)[:2] == endless[21:30]


def test_several_ranks_without_counts_are_refused_before_they_hang(shards):
    loader = sequential(shards).loader(rank=0, world_size=2)
    with pytest.raises(sp.ConfigError, match=r"2 ranks would take different numbers of steps.*steps_per_epoch=n"):
        next(iter(loader))
    steps = [keys(sequential(shards).loader(rank=r, world_size=2, steps_per_epoch=20)) for r in range(2)]
    assert [len(each) for each in steps] == [20, 20]


def test_length_is_right_in_every_tier_or_refused(shards):
    for size, tail, wanted in [(4, "short", 8), (4, "drop", 7), (4, "pad", 8), (30, "short", 1)]:
        loader = planned(shards, size, epochs=2).loader(tail=tail)
        assert len(loader) == 2 * wanted
        assert len(list(loader)) == 2 * wanted
    with pytest.raises(TypeError, match="epochs=None makes it endless"):
        len(planned(shards, epochs=None).loader())
    with pytest.raises(TypeError, match="tier='sequential' was asked for"):
        len(sequential(shards).loader())


def test_batches_never_mix_epochs(shards):
    loader = planned(shards, 4, epochs=3).loader(num_workers=3)
    epochs = [{position.epoch for position in batch["__position__"]} for batch in loader]
    assert all(len(each) == 1 for each in epochs)
    assert [each.pop() for each in epochs] == [0] * 8 + [1] * 8 + [2] * 8


def fails_for(text):
    if text.endswith(("0002", "0003")):
        raise ValueError("bad")
    return text


@pytest.mark.parametrize("workers", [0, 2])
def test_a_skipped_sample_leaves_no_hole_in_a_planned_batch(shards, workers):
    policy = sp.ErrorPolicy("skip", max_share=1.0)
    pipe = sp.stream(str(shards), shuffle=5, on_error=policy).decode().map(fails_for, "txt").batch(5)
    loader = pipe.loader(num_workers=workers)
    batches = keys(loader)
    assert len(batches) == len(loader) == 6
    assert all(len(batch) == 5 for batch in batches)
    seen = set(chain(*batches))
    assert len(seen) == 30 - 9
    assert not any(key.endswith(("0002", "0003")) for key in seen)
    assert "slots filled" in loader.report()
