"""Ranks as forked processes: what the parent has imported is not imported again, so two ranks take a second."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Work = Callable[..., Any]


def run_ranks(work: Work, folder: Path, *args: Any, ranks: int = 2, seconds: float = 600) -> list[Any]:
    """What ``work(*args)`` returns on each rank, as plain JSON, under the environment that torchrun sets."""
    context = multiprocessing.get_context("fork")
    port = _free_port()
    torch.set_num_threads(1)
    running = [context.Process(target=_rank, args=(work, args, folder, rank, ranks, port)) for rank in range(ranks)]
    for each in running:
        each.start()
    for each in running:
        each.join(seconds)
    for each in running:
        each.kill()
        each.join()
    found = []
    for rank in range(ranks):
        path = folder / f"rank{rank}.json"
        assert path.exists(), f"rank {rank} has no answer: it waits for ever"
        found.append(json.loads(path.read_text()))
        path.unlink()
    for each in found:
        assert "error" not in each, each["error"]
    return [each["got"] for each in found]


def _rank(work: Work, args: Any, folder: Path, rank: int, ranks: int, port: int) -> None:
    torch.set_num_threads(1)
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test"}
    of_rank = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
    os.environ.update({**shared, **of_rank, "GROUP_RANK": "0", "OMP_NUM_THREADS": "1"})
    try:
        answer = {"got": work(*args)}
    except BaseException:
        answer = {"error": traceback.format_exc()}
    part = folder / f"rank{rank}.part"
    part.write_text(json.dumps(answer))
    part.rename(folder / f"rank{rank}.json")
    os._exit(0)  # the parent's own ends are not ours


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
