"""Loaders with real worker processes: the same samples under every start method, in order, with nothing left behind."""

import gc
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

import streampipe as sp
from streampipe.counters import counters
from tests.data import write_photos, write_shards
from tests.warm import PIPE, Program


def keys_of(batches):
    return [key for batch in batches for key in batch["__key__"]]


def pipeline(folder, **options):
    return sp.stream(folder, shuffle=6, **options).decode().batch(3)


@sp.stage
def slow(samples, seconds: float = 0.01):
    for sample in samples:
        time.sleep(seconds)
        yield sample


def explode(sample):
    if sample["__key__"].endswith("3"):
        raise ZeroDivisionError("boom")
    return sample


def pause(sample):
    time.sleep(0.001)
    return sample


@pytest.mark.parametrize(
    ("counts", "method"),
    [([10, 3, 8], "fork"), ([11], "fork"), ([10, 3, 8], "spawn"), ([11], "forkserver")],
)
@pytest.mark.usefixtures("warm")
def test_plain_dataloader_and_loader_see_every_sample_once(tmp_path, counts, method):
    keys = write_shards(tmp_path, counts)
    workers = 1 if method == "spawn" else 3  # a new interpreter takes seconds to start
    for make in (
        lambda: DataLoader(pipeline(tmp_path), batch_size=None, num_workers=workers, multiprocessing_context=method),
        lambda: pipeline(tmp_path).loader(num_workers=workers, multiprocessing_context=method),
    ):
        assert sorted(keys_of(make())) == keys


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("persistent", [False, True])
def test_epochs_differ_and_agree_between_loaders(tmp_path, workers, persistent):
    keys = write_shards(tmp_path, [8, 8, 8])
    persistent = persistent and workers > 0
    plain = DataLoader(pipeline(tmp_path), batch_size=None, num_workers=workers, persistent_workers=persistent)
    ours = pipeline(tmp_path).loader(num_workers=workers, persistent_workers=persistent)
    orders = [keys_of(plain) for _ in range(3)]
    assert [keys_of(ours) for _ in range(3)] == orders
    assert len({tuple(order) for order in orders}) == 3
    assert all(sorted(order) == keys for order in orders)
    ours.set_epoch(1)
    plain.dataset.set_epoch(1)
    assert keys_of(ours) == keys_of(plain) == orders[1]
    assert keys_of(ours) == keys_of(plain) == orders[2]


@pytest.mark.filterwarnings("ignore:Got pickle error:UserWarning")  # torch's own
def test_what_cannot_be_handed_to_a_spawned_worker_is_told_with_what_to_do(tmp_path):
    write_shards(tmp_path, [5])
    loader = pipeline(tmp_path).map(lambda batch: batch).loader(num_workers=1, multiprocessing_context="spawn")
    with pytest.raises(
        sp.ConfigError, match="cannot be handed to a worker process .*lambda.*functions that a module holds"
    ):
        iter(loader).__next__()


def test_workers_that_are_no_forks_of_the_parent_agree_on_epochs_too(tmp_path, warm):
    write_shards(tmp_path, [6, 6])
    plain = DataLoader(pipeline(tmp_path), batch_size=None, num_workers=2, multiprocessing_context=warm)
    forked = DataLoader(pipeline(tmp_path), batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert [keys_of(plain) for _ in range(2)] == [keys_of(forked) for _ in range(2)]


def test_a_pass_that_was_broken_off_does_not_confuse_the_next(tmp_path):
    keys = write_shards(tmp_path, [8, 8, 8])
    for persistent in (False, True):
        loader = pipeline(tmp_path).loader(num_workers=2, persistent_workers=persistent)
        next(iter(loader))
        first, second = keys_of(loader), keys_of(loader)
        assert sorted(first) == sorted(second) == keys
        reference = pipeline(tmp_path).loader(num_workers=2)
        orders = [keys_of(reference) for _ in range(3)]
        assert [first, second] == orders[1:]


@pytest.mark.parametrize("method", ["fork", "forkserver"])
@pytest.mark.usefixtures("warm")
def test_rank_is_decided_in_the_parent(tmp_path, monkeypatch, method):
    keys = write_shards(tmp_path, [6, 6, 6])
    got = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        loader = pipeline(tmp_path).loader(num_workers=2, multiprocessing_context=method)
        own = keys_of(loader)
        got += own
        if rank == 0:
            plain = DataLoader(pipeline(tmp_path), batch_size=None, num_workers=2, multiprocessing_context=method)
            assert sorted(keys_of(plain)) == sorted(own)
        monkeypatch.delenv("RANK")
        monkeypatch.delenv("WORLD_SIZE")
    assert sorted(got) == keys


def test_rank_can_be_passed_and_half_of_it_cannot(tmp_path):
    keys = write_shards(tmp_path, [5, 5])
    pipe = pipeline(tmp_path)
    assert (
        sorted(keys_of(pipe.loader(rank=0, world_size=2)) + keys_of(pipeline(tmp_path).loader(rank=1, world_size=2)))
        == keys
    )
    with pytest.raises(sp.ConfigError, match="together"):
        pipe.loader(rank=1)


def test_batches_from_workers_are_where_the_worker_wrote_them(tmp_path):
    write_photos(tmp_path, [6])
    loader = sp.stream(tmp_path).decode(size=128).batch(3).loader(num_workers=1)
    for batch in loader:
        assert batch["jpg"].shape == (3, 3, 128, 128)
        begin = batch["jpg"].data_ptr()
        blocks = loader._feed.shelf.blocks.values()
        assert any(0 < begin - each.data_ptr() < len(each) and each.is_shared() for each in blocks)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("threads", [0, 3])
def test_threads_and_workers_give_the_same_pixels(tmp_path, workers, threads):
    write_photos(tmp_path, [7, 7])
    pipe = sp.stream(tmp_path, shuffle=4).decode(size=48, crop="random").batch(4)
    images = {
        k: i
        for b in sp.stream(tmp_path, shuffle=4).decode(size=48, crop="random").batch(4)
        for k, i in zip(b["__key__"], b["jpg"], strict=True)
    }
    for batch in pipe.loader(num_workers=workers, threads=threads):
        for key, image in zip(batch["__key__"], batch["jpg"], strict=True):
            assert torch.equal(image, images[key])


@pytest.mark.parametrize("options", [{}, {"threads": 2}, {"num_workers": 2}, {"num_workers": 1, "threads": 2}])
def test_an_error_in_a_function_names_stage_and_sample(tmp_path, options):
    write_shards(tmp_path, [6])
    with pytest.raises(
        sp.StageError, match=r"stage 'map\(explode\)', sample '0000003' of .*00000.tar: ZeroDivisionError: boom"
    ):
        list(sp.stream(tmp_path).map(explode).batch(2).loader(**options))


@pytest.mark.filterwarnings("ignore:.*workers stay idle:UserWarning")
@pytest.mark.parametrize("tier", ["planned", "sequential"])
def test_a_killed_worker_is_an_error_at_once_and_the_state_goes_on_exactly(tmp_path, tier):
    keys = write_shards(tmp_path, [200, 190, 240])  # more than is made ahead

    def make():
        return sp.stream(tmp_path, shuffle=6, tier=tier).map(pause).batch(2).loader(num_workers=2)

    loader = make()
    batches, got = iter(loader), []
    for _ in range(3):
        got += next(batches)["__key__"]
    start = time.monotonic()
    with pytest.raises(RuntimeError, match="worker"):
        for worker in multiprocessing.active_children():  # one may have had no share, and have ended
            os.kill(worker.pid, signal.SIGKILL)
        for batch in batches:
            got += batch["__key__"]
    assert time.monotonic() - start < 60  # not the 900 s of a test that hangs; a loaded machine takes its time
    resumed = make()
    resumed.load_state_dict(json.loads(json.dumps(loader.state_dict())))
    assert sorted(got + keys_of(resumed)) == keys


def children():
    """Processes and open descriptors of this process."""
    gc.collect()
    return len(multiprocessing.active_children()), len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(
    ("how", "persistent"), [("break", False), ("break", True), ("close", False), ("drop", False), ("raise", False)]
)
def test_a_pass_that_is_broken_off_leaves_nothing_behind(tmp_path, how, persistent):
    write_shards(tmp_path, [40, 40])
    list(pipeline(tmp_path).loader(num_workers=2))  # what torch opens once and keeps
    before = children()

    def use(loader):
        batches = iter(loader)
        next(batches)
        if how == "close":
            batches.close()
        elif how == "break":
            for _ in batches:
                break
        elif how == "raise":
            raise ZeroDivisionError

    for _ in range(2):
        loader = pipeline(tmp_path).loader(num_workers=2, persistent_workers=persistent)
        try:
            use(loader)
        except ZeroDivisionError:
            pass
        del loader
    end = time.monotonic() + 5
    while (now := children()) > before and time.monotonic() < end:
        time.sleep(0.02)
    assert now[0] == 0
    assert now[1] <= before[1] + 2  # a leak would be several for each of the passes


def stuck(sample):
    time.sleep(0 if sample["__position__"].sample < 2 else 1000)
    return sample


def get_stuck(folder, method):
    """Says which workers it has, and waits for them."""
    for _ in sp.stream(folder).map(stuck).batch(1).loader(num_workers=2, multiprocessing_context=method):
        print(*[child.pid for child in multiprocessing.active_children()], flush=True)


def lives(pid):
    """Whether a process runs: one that ended may wait for somebody to ask how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("method", ["fork", "forkserver"])
@pytest.mark.usefixtures("warm")
def test_workers_end_with_their_parent_wherever_they_are(tmp_path, method):
    write_shards(tmp_path, [5, 5])
    process = Program(get_stuck, tmp_path, method, stdout=PIPE)
    try:
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 2
        process.send_signal(signal.SIGKILL)
        process.wait()
        while any(map(lives, pids)):  # the test's own time limit is the deadline
            time.sleep(0.02)
    finally:
        process.kill()
        process.communicate()


INTERRUPTED = """
import multiprocessing, signal, sys
import streampipe as sp

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs, and what they start, ignore it

@sp.stage
def endless(samples):
    for sample in samples:
        while True:
            yield sample

loader = sp.stream(sys.argv[1]).apply(endless()).batch(2).loader(num_workers=int(sys.argv[2]), threads=int(sys.argv[3]))
for number, batch in enumerate(loader):
    if number == 3:
        print(*[child.pid for child in multiprocessing.active_children()], flush=True)
"""


@pytest.mark.parametrize(("workers", "threads"), [(2, 0), (0, 2)])
def test_an_interrupt_is_one_traceback_and_the_end_of_all_workers(tmp_path, workers, threads):
    write_shards(tmp_path, [40, 40])
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", INTERRUPTED, tmp_path, str(workers), str(threads)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == workers
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert errors.count("Traceback") == 1, errors
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert not any(map(lives, pids))


@pytest.mark.filterwarnings("ignore:.*workers stay idle:UserWarning")
def test_counts_of_workers_reach_the_parent(tmp_path):
    write_shards(tmp_path, [5, 5])
    counters.take()
    loader = sp.stream(tmp_path).filter(odd).apply(slow(seconds=0)).batch(2).loader(num_workers=2)
    list(loader)
    assert counters.get("reading", "samples in") == 10
    assert counters.get("filter(odd)", "dropped") == 6
    assert counters.get("loader", "samples") == 4
    assert "4 samples" in loader.report()


def odd(sample):
    return int(sample["cls"]) % 2


def test_the_background_thread_ends_with_its_consumer(tmp_path):
    write_shards(tmp_path, [50])
    before = threading.active_count()
    batches = iter(sp.stream(tmp_path).apply(slow(seconds=0.001)).batch(2).loader(threads=2))
    next(batches)
    batches.close()
    gc.collect()
    assert threading.active_count() <= before  # threads of earlier loaders may end meanwhile


def test_descriptors_stay_constant_over_passes(tmp_path):
    write_shards(tmp_path, [6, 6])
    loader = pipeline(tmp_path).loader(num_workers=2)
    list(loader)
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(12):
        list(loader)
    gc.collect()
    # torch's queues close some of theirs a moment later; a leak would be one or more for each pass
    assert len(os.listdir("/proc/self/fd")) < before + 12


@pytest.mark.parametrize(
    "options",
    [
        {"threads": -1},
        {"prefetch": 0},
        {"timeout": -1},
        {"timeout": True},
        {"timeout": float("nan")},
        {"timeout": float("inf")},
        {"worker_init_fn": 5},
        {"persistent_workers": "yes"},
    ],
    ids=str,
)
def test_wrong_options_are_refused(tmp_path, options):
    write_shards(tmp_path, [1])
    with pytest.raises(sp.ConfigError, match=f"loader: {next(iter(options))} is "):
        pipeline(tmp_path).loader(num_workers=1, **options)


@pytest.mark.parametrize(
    "options",
    [{"multiprocessing_context": "spawn"}, {"timeout": 3}, {"worker_init_fn": print}, {"persistent_workers": True}],
    ids=str,
)
def test_options_of_workers_are_refused_where_there_are_none(tmp_path, options):
    write_shards(tmp_path, [1])
    for threads in (0, 2):
        with pytest.raises(sp.ConfigError, match=f"loader: {next(iter(options))}= needs num_workers=1 or more: it is"):
            pipeline(tmp_path).loader(threads=threads, **options)


def test_environment_and_process_group_must_agree(tmp_path, monkeypatch):
    write_shards(tmp_path, [2])
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        assert len(keys_of(pipeline(tmp_path).loader())) == 2
        monkeypatch.setenv("RANK", "1")
        monkeypatch.setenv("WORLD_SIZE", "2")
        with pytest.raises(sp.ConfigError, match=r"torch.distributed says rank 0 of 1, the environment rank 1 of 2"):
            pipeline(tmp_path).loader()
    finally:
        torch.distributed.destroy_process_group()


def test_a_loader_that_was_made_before_the_process_group_is_refused(tmp_path, monkeypatch):
    write_shards(tmp_path, [4])
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    early, told = pipeline(tmp_path).loader(), pipeline(tmp_path).loader(rank=1, world_size=2)
    monkeypatch.delenv("RANK")
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        with pytest.raises(sp.ConfigError, match=r"made for rank 1 of 2, before torch.distributed said rank 0 of 1"):
            next(iter(early))
        assert len(keys_of(told)) == 2
        assert len(keys_of(pipeline(tmp_path).loader())) == 4
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("option", ["batch_size", "shuffle", "drop_last", "collate_fn", "prefetch_factor"])
def test_options_that_have_their_place_elsewhere_are_refused_with_it(option):
    with pytest.raises(sp.ConfigError, match=f"loader has no {option}=: the pipeline decides; (put|give) "):
        sp.from_iterable([1, 2, 3]).loader(**{option: 1})
    with pytest.raises(sp.ConfigError, match=r"loader has no num_woker=; did you mean num_workers=\?"):
        sp.from_iterable([1, 2, 3]).loader(num_woker=1)
