"""What a process finds about the job that it is part of."""

import os

from streampipe.world import cores


def test_ranks_that_torchrun_started_on_a_machine_share_its_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert cores() == 16
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert cores() == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "32")
    assert cores() == 1
