"""Real processes with torch.distributed (gloo): equal steps, and a kill in mid-epoch that loses and repeats nothing."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

import streampipe as sp
from tests.data import write_shards
from tests.warm import Program


def train(folder, store, log, state, batch, workers):
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    loader = sp.stream(folder, seed=1, shuffle=20, epochs=2).decode().batch(batch).loader(num_workers=workers)
    done = 0
    if state.exists():
        saved = json.loads(state.read_text())
        loader.load_state_dict(saved)
        done = saved["done"]
    for got in loader:
        total = torch.tensor([float(len(got["__key__"]))])
        dist.all_reduce(total)  # hangs for ever where a rank has fewer steps than the others
        done += 1
        with open(log, "a") as file:
            print(json.dumps([done, rank, got["__key__"]]), file=file)
        dist.barrier()
        if rank == 0 and done % 3 == 0:
            part = state.with_suffix(".part")
            part.write_text(json.dumps({**loader.state_dict(), "done": done}))
            part.replace(state)
    with open(log, "a") as file:
        print(json.dumps(["end", rank, done]), file=file)
    dist.destroy_process_group()  # gloo's threads may abort a process that ends without it


def launch(tmp_path, name, folder, ranks, batch, workers, state):
    log = tmp_path / f"{name}.log"
    given = (folder, tmp_path / f"{name}.store", log, state, batch, workers)
    worlds = [{"RANK": str(rank), "WORLD_SIZE": str(ranks)} for rank in range(ranks)]
    return log, [Program(train, *given, environment=world, stderr=Path(os.devnull)) for world in worlds]


def lines(log):
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def finished(processes, seconds=600):
    end = time.monotonic() + seconds
    try:
        return [each.wait(max(1, end - time.monotonic())) for each in processes]
    finally:
        for each in processes:
            each.kill()
            each.wait()


def batches(log):
    found = {}
    for step, _, keys in lines(log):
        if step != "end":
            found.setdefault(step, []).extend(keys)
    return {step: sorted(keys) for step, keys in found.items()}


@pytest.mark.usefixtures("warm")
def test_a_job_killed_in_mid_epoch_continues_on_fewer_ranks_with_the_same_batches(tmp_path):
    folder = tmp_path / "data"
    write_shards(folder, [17, 30, 9, 24, 28])
    log, processes = launch(tmp_path, "reference", folder, 3, 4, 1, tmp_path / "reference.json")
    assert finished(processes) == [0, 0, 0]
    whole = batches(log)
    assert len(whole) == 18
    assert [line[2] for line in lines(log) if line[0] == "end"] == [18] * 3

    state = tmp_path / "state.json"
    log, processes = launch(tmp_path, "killed", folder, 3, 4, 2, state)
    while not any(line[0] == 5 for line in lines(log)):
        assert all(each.poll() is None for each in processes)
        time.sleep(0.01)
    for each in reversed(processes):
        each.send_signal(signal.SIGKILL)
    finished(processes)
    saved = json.loads(state.read_text())["done"]
    before = batches(log)
    log, processes = launch(tmp_path, "resumed", folder, 2, 6, 0, state)
    assert finished(processes) == [0, 0]
    after = batches(log)
    assert min(after) == saved + 1
    assert {**{step: before[step] for step in range(1, saved + 1)}, **after} == whole
