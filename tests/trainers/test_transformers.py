"""The Hugging Face Trainer over a loader: each sample once an epoch, resumed with the next batch, or refused."""

import warnings

import pytest
import torch

import streampipe as sp
from tests.trainers.ranks import run_ranks

pytest.importorskip("transformers")
pytest.importorskip("accelerate")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from transformers import TrainerCallback, TrainingArguments

    from streampipe.compat.transformers import NAME, LoaderTrainer


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(1, 1)
        self.seen, self.validated = [], []

    def forward(self, cls, **others):
        (self.seen if self.training else self.validated).append(cls.tolist())
        return {"loss": self.linear(cls[:, None].float() / 1e6).mean()}


class Stop(TrainerCallback):
    """Kills the run behind a step's checkpoint."""

    def __init__(self, at):
        self.at = at

    def on_step_end(self, args, state, control, **others):
        if state.global_step == self.at:
            control.should_save = True
        return control

    def on_save(self, args, state, control, **others):
        if state.global_step == self.at:
            control.should_training_stop = True
        return control


def arguments(place, **options):
    quiet = {"report_to": [], "disable_tqdm": True, "logging_strategy": "no", "save_strategy": "no", "use_cpu": True}
    return TrainingArguments(output_dir=str(place), **{**quiet, "num_train_epochs": 3, **options})


def trainer(place, folder, *callbacks, loader=None, **options):
    args = arguments(place, **options)  # first: it starts the process group
    pipe = sp.stream(folder, shuffle=8, seed=1).decode().batch(4)
    held_out = sp.stream(folder).decode().batch(8).loader(fixed_epoch=True)
    loader = loader or pipe.loader()
    return LoaderTrainer(Model(), args, train_loader=loader, eval_loader=held_out, callbacks=list(callbacks))


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    """Three epochs of ten batches, with validation behind each."""
    made = trainer(tmp_path_factory.mktemp("whole"), folder, eval_strategy="epoch")
    made.train()
    return made.model


def flat(lists):
    return [each for values in lists for each in values]


def test_each_sample_once_an_epoch_in_a_new_order_and_validation_is_the_same(whole):
    epochs = [flat(whole.seen[i : i + 10]) for i in (0, 10, 20)]
    assert all(len({*each}) == len(each) == 40 for each in epochs)
    assert len({tuple(each) for each in epochs}) == 3
    passes = [whole.validated[i : i + 5] for i in (0, 5, 10)]
    assert passes[0] == passes[1] == passes[2]
    assert len({*flat(passes[0])}) == 40


@pytest.mark.parametrize(("step", "accumulate"), [(10, 1), (7, 2)])
def test_a_killed_run_goes_on_with_the_next_batch(folder, whole, tmp_path, step, accumulate):
    options = {"gradient_accumulation_steps": accumulate}
    first = trainer(tmp_path, folder, Stop(step), **options)
    first.train()
    second = trainer(tmp_path, folder, **options)
    second.train(resume_from_checkpoint=True)
    assert len(first.model.seen) == step * accumulate
    assert first.model.seen + second.model.seen == whole.seen
    assert second.state.global_step == 30 // accumulate


def test_max_steps_end_where_they_say(folder, whole, tmp_path):
    made = trainer(tmp_path, folder, max_steps=13)
    made.train()
    assert made.model.seen == whole.seen[:13]


def test_what_the_trainer_would_leave_out_is_refused(folder, tmp_path):
    with pytest.raises(sp.ConfigError, match=r"10 batches is not whole steps .*give loader\(steps_per_epoch=8\)"):
        trainer(tmp_path, folder, gradient_accumulation_steps=4)


def test_a_checkpoint_without_a_place_is_refused(folder, tmp_path):
    (tmp_path / "checkpoint-3").mkdir()
    with pytest.raises(sp.ConfigError, match=f"does not say where the data stood .{NAME}"):
        trainer(tmp_path, folder).train(resume_from_checkpoint=True)


def train_on_ranks(folder, place, stop, resume):
    made = trainer(place, folder, *([Stop(stop)] if stop else []), num_train_epochs=2, ddp_backend="gloo")
    made.train(resume_from_checkpoint=resume or None)
    return made.model.seen


def of_rank(folder, rank):
    """What a loader gives a rank in two epochs, without a trainer."""
    loader = sp.stream(folder, shuffle=8, seed=1).decode().batch(4).loader(rank=rank, world_size=2)
    return [batch["cls"].tolist() for _ in range(2) for batch in loader]


def test_two_ranks_share_each_epoch_and_go_on_where_they_were_killed(folder, tmp_path):
    place = str(tmp_path / "out")
    whole = [of_rank(folder, rank) for rank in range(2)]
    for epoch in (slice(5), slice(5, 10)):
        seen = flat(flat(rank[epoch]) for rank in whole)
        assert len({*seen}) == len(seen) == 40
    before = run_ranks(train_on_ranks, tmp_path, folder, place, 3, False)
    after = run_ranks(train_on_ranks, tmp_path, folder, place, 0, True)
    assert [b + a for b, a in zip(before, after, strict=True)] == whole
