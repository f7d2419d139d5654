"""Plain torch: DDP under torchrun's environment, meshes, and torch's distributed checkpoint."""

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.nn.parallel import DistributedDataParallel

import streampipe as sp
from streampipe.compat.checkpoint import JobState
from tests.data import write_shards
from tests.levels import numbered
from tests.trainers.ranks import run_ranks


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("shards")
    write_shards(found, [16] * 4)
    return str(found)


def pipeline(folder, opaque):
    pipe = sp.stream(folder, shuffle=8, seed=1).decode()
    return (pipe.apply(numbered()) if opaque else pipe).batch(4)


def train(folder, place, opaque, stop, resume):
    """Two epochs of DDP; a checkpoint behind batch ``stop``, where the run is killed."""
    dist.init_process_group("gloo")
    model = DistributedDataParallel(torch.nn.Linear(1, 1))
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    pipe = pipeline(folder, opaque)
    loader = pipe.loader(steps_per_epoch=8) if opaque else pipe.loader()
    state = {"model": model.state_dict(), "data": JobState(loader)}
    if resume:
        dcp.load(state, checkpoint_id=place)
    seen = []
    for _ in range(2):
        for batch in loader:
            loss = model(batch["cls"][:, None].float()).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen.append(batch["__key__"])
            if len(seen) == stop:
                dcp.save(state, checkpoint_id=place)
                return seen
        if resume and loader.state_dict()["epoch"] == 2:
            break
    dist.barrier()
    return seen


@pytest.mark.parametrize("opaque", [False, True])
def test_a_distributed_checkpoint_goes_on_with_the_next_batch(folder, tmp_path, opaque):
    whole = run_ranks(train, tmp_path, folder, "", opaque, 0, False)
    assert len(whole[0]) == len(whole[1]) == 16
    if not opaque:
        for epoch in (slice(8), slice(8, 16)):
            assert len({key for rank in whole for batch in rank[epoch] for key in batch}) == 64
    place = str(tmp_path / "checkpoint")
    before = run_ranks(train, tmp_path, folder, place, opaque, 3, False)
    after = run_ranks(train, tmp_path, folder, place, opaque, 0, True)
    assert [b + a for b, a in zip(before, after, strict=True)] == whole


def of_mesh(folder):
    """Two data-parallel ranks of a mesh of 2 x 2: those that share a batch are told so by rank= and world_size=."""
    dist.init_process_group("gloo")
    mesh = dist.device_mesh.init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    loader = sp.stream(folder).decode().batch(8).loader(rank=mesh["dp"].get_local_rank(), world_size=mesh["dp"].size())
    found = [key for batch in loader for key in batch["__key__"]]
    dist.barrier()
    return found


def test_ranks_of_a_mesh_that_share_a_batch_are_given_the_same(folder, tmp_path):
    found = run_ranks(of_mesh, tmp_path, folder, ranks=4)
    assert found[0] == found[1]
    assert found[2] == found[3]
    assert len({*found[0], *found[2]}) == 64 == len(found[0]) + len(found[2])


def test_a_job_state_of_something_else_is_refused(folder):
    state = JobState(pipeline(folder, False).loader())
    for odd in ({}, {"streampipe": "no"}, {"streampipe": 3}):
        with pytest.raises(sp.ConfigError, match="no state of JobState"):
            state.load_state_dict(odd)
