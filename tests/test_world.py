"""What a process finds about the job that it is part of."""

import os
import pickle
from itertools import islice
from multiprocessing.context import set_spawning_popen

import torch
from torch.utils.data._utils.worker import WorkerInfo

import streampipe as sp
from streampipe.world import cores


def test_ranks_that_torchrun_started_on_a_machine_share_its_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert cores() == 16
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert cores() == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "32")
    assert cores() == 1


def test_a_spawned_process_that_is_no_worker_has_a_rank_of_its_own(monkeypatch):
    """What a worker is told of its parent's world is for workers alone."""
    pipe = sp.from_iterable([{"__key__": str(i), "n": i} for i in range(8)], epochs=None)
    set_spawning_popen(object())
    try:
        sent = pickle.dumps(pipe)
    finally:
        set_spawning_popen(None)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    got = pickle.loads(sent)
    assert got.batch(2).loader(steps_per_epoch=2).world_size == 2
    assert [each["n"] for each in islice(got, 2)] == [1, 3]
    info = WorkerInfo(id=0, num_workers=1, seed=0, dataset=None)
    monkeypatch.setattr(torch.utils.data._utils.worker, "_worker_info", info)
    assert [each["n"] for each in islice(pickle.loads(sent), 2)] == [0, 1]
    monkeypatch.setattr("os.getpid", lambda: -1)  # a worker that it forks knows the world of that process
    assert got._world_of() == (1, 2)
