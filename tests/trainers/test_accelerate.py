"""Accelerate with streampipe.compat.accelerate.prepare: each sample once, accumulation, and a state that goes on."""

import pytest
import torch

import streampipe as sp
from tests.trainers.ranks import run_ranks

pytest.importorskip("accelerate")


def train(folder, place, stop, resume, accumulate=1):
    """Two epochs; the keys of each batch, and at which of them the optimizer stepped."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    from streampipe.compat.accelerate import prepare

    AcceleratorState._reset_state(True)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
    model = torch.nn.Linear(1, 1)
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), 1e-3))
    batches = prepare(accelerator, sp.stream(folder, shuffle=8, seed=1).decode().batch(4).loader())
    if resume:
        accelerator.load_state(place)
    seen, steps = [], []
    while batches.loader.state_dict()["epoch"] < 2:
        for batch in batches:
            with accelerator.accumulate(model):
                accelerator.backward(model(batch["cls"][:, None].float() / 1e6).mean())
                optimizer.step()
                optimizer.zero_grad()
            seen.append(batch["cls"].tolist())
            if accelerator.sync_gradients:
                steps.append(len(seen))
            if len(seen) == stop:
                accelerator.save_state(place)
                return [seen, steps]
    return [seen, steps]


def test_accumulation_takes_its_step_at_the_end_of_an_epoch(folder, tmp_path):
    seen, steps = train(folder, str(tmp_path), 0, False, accumulate=4)
    assert len(seen) == 20
    assert steps == [4, 8, 10, 14, 18, 20]
    for epoch in (seen[:10], seen[10:]):
        assert len({each for batch in epoch for each in batch}) == 40


def test_two_ranks_share_each_epoch_and_go_on_where_they_were_killed(folder, tmp_path):
    place = str(tmp_path / "state")
    whole = [seen for seen, _ in run_ranks(train, tmp_path, folder, place, 0, False)]
    for epoch in (slice(5), slice(5, 10)):
        seen = [each for rank in whole for batch in rank[epoch] for each in batch]
        assert len({*seen}) == len(seen) == 40
    before = [seen for seen, _ in run_ranks(train, tmp_path, folder, place, 7, False)]
    after = [seen for seen, _ in run_ranks(train, tmp_path, folder, place, 0, True)]
    assert [b + a for b, a in zip(before, after, strict=True)] == whole


def test_a_loader_of_other_ranks_is_refused(folder):
    from accelerate import Accelerator

    from streampipe.compat.accelerate import prepare

    loader = sp.stream(folder).batch(4).loader(rank=0, world_size=2)
    with pytest.raises(sp.ConfigError, match="made for 2 ranks, the accelerator has 1"):
        prepare(Accelerator(cpu=True), loader)
    with pytest.raises(sp.ConfigError, match=r"what pipe.loader\(\) gives"):
        prepare(Accelerator(cpu=True), [1])
