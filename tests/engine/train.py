"""One rank of a training job, to be run and killed by test_processes in a process of its own.

Every batch goes into the rank's own log, one line each. Every third step the states of all ranks are saved together;
where such a checkpoint is there, the job goes on from it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import streampipe as sp
from tests.levels import rows, samples


def train(
    level: str,
    chain: str,
    folder: str,
    out: str,
    job: str,
    size: int,
    workers: int,
    steps: int | None,
    passes: int,
    way: str,
) -> None:
    """One rank; ``steps`` is steps_per_epoch, or None for passes of one epoch."""
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("gloo", init_method=f"file://{out}/{job}.store", rank=rank, world_size=world)
    pipe = samples(level, chain, Path(folder), epochs=None if steps else 1).batch(size // world)
    loader = pipe.loader(workers, **({"steps_per_epoch": steps} if steps else {}))
    checkpoint, first, done = Path(out, "checkpoint.json"), 0, 0
    if checkpoint.exists():
        saved = json.loads(checkpoint.read_text())
        first, done = saved["epoch"], saved["done"]
        loader.load_state_dict(saved["states"])
    for epoch in range(first, passes):
        loader.set_epoch(epoch)
        for batch in loader:
            total = torch.tensor([float(len(batch["__key__"]))])
            dist.all_reduce(total)  # hangs for ever where a rank has fewer steps than the others
            done += 1
            with open(f"{out}/{job}.{rank}.log", "a") as file:
                print(json.dumps([done, rows(batch)]), file=file)
            if done % 3 == 0:
                states = [None] * world
                dist.all_gather_object(states, loader.state_dict())
                if rank == 0:
                    given = sp.merge_states(states) if way == "merged" else states
                    epoch_next = loader.state_dict()["epoch"]
                    part = checkpoint.with_suffix(".part")
                    part.write_text(json.dumps({"states": given, "done": done, "epoch": epoch_next}))
                    os.replace(part, checkpoint)
            dist.barrier()
    with open(f"{out}/{job}.{rank}.log", "a") as file:
        print(json.dumps(["end", done]), file=file)


def main(options: dict[str, Any]) -> None:
    """A process from its beginning to its end."""
    train(**options)
    dist.destroy_process_group()  # gloo's threads may abort a process that ends without it
