"""Plain torch under torchrun: DDP, and torch's distributed checkpoint with the place of the data in it.

    torchrun --nproc-per-node 2 examples/train_ddp.py
    torchrun --nproc-per-node 1 examples/train_ddp.py      # goes on where two left off, with the same global batches

The global batch is 32 whatever the number of ranks, so the run is the same one. With a mesh (FSDP2, HSDP, tensor
parallel) the loader is given the data-parallel coordinate: ``rank=mesh["dp"].get_local_rank()``,
``world_size=mesh["dp"].size()``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from train import label, network, shards_of

import streampipe as sp
from streampipe.compat.checkpoint import JobState


class Run:
    """Model and optimizer as one thing that a distributed checkpoint can save."""

    def __init__(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.model, self.optimizer = model, optimizer

    def state_dict(self) -> dict:
        """Both."""
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optimizer": optimizer}

    def load_state_dict(self, state: dict) -> None:
        """Both."""
        set_state_dict(self.model, self.optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("quickstart-out/train"))
    parser.add_argument("--images", type=int, default=240)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--steps", type=int, help="stop after so many, as a kill would")
    options = parser.parse_args(given)
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    if rank == 0:
        shards_of(options.out / "seen", options.images, 1)
    dist.barrier()
    pipe = sp.stream(options.out / "seen" / "shards", seed=0, shuffle=True).rename(image="jpg", text="txt")
    loader = pipe.decode(size=64).map(label).batch(32 // ranks).loader(threads=2)
    torch.manual_seed(0)
    model = DistributedDataParallel(network())
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    state = {"run": Run(model, optimizer), "data": JobState(loader)}
    place = options.out / "ddp"
    if (place / ".metadata").exists():
        dcp.load(state, checkpoint_id=place)
    steps = 0
    while loader.state_dict()["epoch"] < options.epochs:
        for batch in loader:
            loss = cross_entropy(model(batch["image"].float() / 127.5 - 1), batch["label"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
            if steps % 5 == 0:
                dcp.save(state, checkpoint_id=place)
            if steps == options.steps:
                return
        if rank == 0:
            print(f"epoch {loader.state_dict()['epoch']}: loss {loss.item():.3f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
