"""Loaders with real worker processes: the same samples under every start method, in order, with nothing left behind."""

import gc
import os
import threading
import time
from collections import Counter

import pytest
import torch
from torch.utils.data import DataLoader

import streampipe as sp
from streampipe.counters import counters
from tests.data import write_photos, write_shards

METHODS = ["fork", "spawn", "forkserver"]


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


def kill_worker(sample):
    if sample["__key__"].endswith("5"):
        os._exit(9)
    return sample


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("counts", [[10, 3, 8], [11]])
def test_plain_dataloader_and_loader_see_every_sample_once(tmp_path, counts, method):
    keys = write_shards(tmp_path, counts)
    for make in (
        lambda: DataLoader(pipeline(tmp_path), batch_size=None, num_workers=3, multiprocessing_context=method),
        lambda: pipeline(tmp_path).loader(num_workers=3, multiprocessing_context=method),
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


def test_spawned_workers_agree_on_epochs_too(tmp_path):
    write_shards(tmp_path, [6, 6])
    plain = DataLoader(pipeline(tmp_path), batch_size=None, num_workers=2, multiprocessing_context="spawn")
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


@pytest.mark.parametrize("method", METHODS)
def test_rank_is_decided_in_the_parent(tmp_path, monkeypatch, method):
    keys = write_shards(tmp_path, [6, 6, 6])
    got = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        loader = pipeline(tmp_path).loader(num_workers=2, multiprocessing_context=method)
        plain = DataLoader(pipeline(tmp_path), batch_size=None, num_workers=2, multiprocessing_context=method)
        got += keys_of(loader)
        assert Counter(keys_of(plain)) == Counter(got[-len(keys_of(plain)) :]) or rank == 1
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


def test_batches_from_workers_are_in_shared_memory(tmp_path):
    write_photos(tmp_path, [6])
    for batch in sp.stream(tmp_path).decode(size=32).batch(3).loader(num_workers=1):
        assert batch["jpg"].shape == (3, 3, 32, 32)
        assert batch["jpg"].is_shared()


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


def test_a_killed_worker_is_an_error_not_a_hang(tmp_path):
    write_shards(tmp_path, [8])
    start = time.monotonic()
    with pytest.raises(RuntimeError, match="worker"):
        list(sp.stream(tmp_path).map(kill_worker).batch(2).loader(num_workers=1))
    assert time.monotonic() - start < 30


def test_counts_of_workers_reach_the_parent(tmp_path):
    write_shards(tmp_path, [5, 5])
    counters.take()
    loader = sp.stream(tmp_path).filter(odd).apply(slow(seconds=0)).batch(2).loader(num_workers=2)
    list(loader)
    assert counters.get("reading", "samples") == 10
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


def test_wrong_options_are_refused(tmp_path):
    write_shards(tmp_path, [1])
    for options in ({"threads": -1}, {"prefetch": 0}):
        with pytest.raises(sp.ConfigError):
            pipeline(tmp_path).loader(**options)


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
