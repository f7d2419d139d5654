"""Lightning over a loader: each sample once an epoch, and a checkpoint goes on with the next batch, or is refused."""

import logging

import pytest
import torch

import streampipe as sp
from tests.trainers.ranks import run_ranks

lightning = pytest.importorskip("lightning")
from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402

from streampipe.compat.lightning import LoaderModule  # noqa: E402

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


def flat(lists):
    return [each for values in lists for each in values]


class Model(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(1, 1)
        self.seen, self.validated = [], []

    def training_step(self, batch, number):
        self.seen.append(batch["cls"].tolist())
        return self.linear(batch["cls"][:, None].float() / 1e6).mean()

    def validation_step(self, batch, number):
        self.validated.append(batch["cls"].tolist())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-3)


class Killed(Exception):
    pass


class Kill(lightning.Callback):
    def __init__(self, at):
        self.at = at

    def on_train_batch_start(self, trainer, *args):
        if trainer.fit_loop.total_batch_idx >= self.at:
            raise Killed


def data(folder, tier=None, **options):
    pipe = sp.stream(folder, shuffle=8, seed=1, tier=tier).decode().batch(4)
    return LoaderModule(lambda: pipe.loader(**options), lambda: pipe.loader(fixed_epoch=True))


def trainer(place, *callbacks, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "max_epochs": 3}
    return lightning.Trainer(
        accelerator="cpu", default_root_dir=place, callbacks=list(callbacks), **{"devices": 1, **quiet, **options}
    )


def kept(place, every):
    return ModelCheckpoint(place, every_n_train_steps=every, save_top_k=-1, save_on_train_epoch_end=False)


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    """Three epochs of ten batches."""
    model = Model()
    trainer(tmp_path_factory.mktemp("whole"), enable_checkpointing=False).fit(model, data(folder))
    return model


def test_each_sample_once_an_epoch_in_a_new_order_and_validation_is_the_same(whole):
    epochs = [flat(whole.seen[i : i + 10]) for i in (0, 10, 20)]
    assert all(len({*each}) == len(each) == 40 for each in epochs)
    assert len({tuple(each) for each in epochs}) == 3
    passes = [whole.validated[2:][i : i + 10] for i in (0, 10, 20)]  # behind the two batches of the sanity check
    assert passes[0] == passes[1] == passes[2]
    assert len({*flat(passes[0])}) == 40


@pytest.mark.parametrize(("batches", "accumulate"), [(10, 1), (14, 2)])
def test_a_killed_run_goes_on_with_the_next_batch(folder, whole, tmp_path, batches, accumulate):
    options = {"num_sanity_val_steps": 0, "accumulate_grad_batches": accumulate}
    first, second = Model(), Model()
    with pytest.raises(Killed):
        trainer(tmp_path, Kill(batches), kept(tmp_path, batches // accumulate), **options).fit(first, data(folder))
    (checkpoint,) = tmp_path.glob("*.ckpt")
    trainer(tmp_path, enable_checkpointing=False, **options).fit(
        second, data(folder), ckpt_path=checkpoint, weights_only=False
    )
    assert first.seen[:batches] + second.seen == whole.seen


def test_a_limit_on_batches_ends_each_epoch_and_the_next_one_is_another(folder, whole, tmp_path):
    model = Model()
    trainer(tmp_path, limit_train_batches=6, limit_val_batches=2, enable_checkpointing=False).fit(model, data(folder))
    assert model.seen == whole.seen[0:6] + whole.seen[10:16] + whole.seen[20:26]


def test_without_a_length_a_checkpoint_in_mid_epoch_is_refused_and_with_steps_it_is_exact(folder, tmp_path):
    with pytest.raises(sp.ConfigError, match=r"give loader\(steps_per_epoch=n\)"):
        trainer(tmp_path / "a", kept(tmp_path / "a", 4)).fit(Model(), data(folder, "sequential"))
    model, first, second = Model(), Model(), Model()
    sequential = {"tier": "sequential", "steps_per_epoch": 10}
    trainer(tmp_path, enable_checkpointing=False).fit(model, data(folder, **sequential))
    with pytest.raises(Killed):
        trainer(tmp_path, Kill(14), kept(tmp_path / "b", 14)).fit(first, data(folder, **sequential))
    (checkpoint,) = (tmp_path / "b").glob("*.ckpt")
    trainer(tmp_path, enable_checkpointing=False).fit(
        second, data(folder, **sequential), ckpt_path=checkpoint, weights_only=False
    )
    assert first.seen[:14] + second.seen == model.seen


@pytest.mark.parametrize("options", [{"max_epochs": 1}, {"max_steps": 4, "max_epochs": -1}])
def test_a_checkpoint_of_an_epochs_end_goes_on_with_the_next_batch(folder, whole, tmp_path, options):
    """Also where ``max_steps`` cut the epoch short, which Lightning then counts as done: its next one has the rest."""
    first, second = Model(), Model()
    trainer(tmp_path, ModelCheckpoint(tmp_path, save_top_k=-1), **options).fit(first, data(folder))
    (checkpoint,) = tmp_path.glob("*.ckpt")
    trainer(tmp_path, enable_checkpointing=False).fit(second, data(folder), ckpt_path=checkpoint, weights_only=False)
    assert first.seen + second.seen == whole.seen[: 20 if "max_steps" in options else 30]
    raw = data(folder).train_dataloader()
    with pytest.raises(sp.ConfigError, match=r"compat.lightning.LoaderModule"):
        trainer(tmp_path, enable_checkpointing=False).fit(Model(), raw, ckpt_path=checkpoint, weights_only=False)


def fit_on_ranks(folder, place, kill, resume):
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    model = Model()
    callbacks = [Kill(kill), kept(place, kill)] if kill else []
    made = trainer(place, *callbacks, devices=2, strategy="ddp", max_epochs=2, enable_checkpointing=bool(kill))
    try:
        made.fit(model, data(folder), **({"ckpt_path": resume, "weights_only": False} if resume else {}))
    except Killed:
        pass
    return model.seen


def of_rank(folder, rank):
    """What a loader gives a rank in two epochs, without a trainer."""
    loader = sp.stream(folder, shuffle=8, seed=1).decode().batch(4).loader(rank=rank, world_size=2)
    return [batch["cls"].tolist() for _ in range(2) for batch in loader]


def test_two_ranks_share_each_epoch_and_go_on_where_they_were_killed(folder, tmp_path):
    whole = [of_rank(folder, rank) for rank in range(2)]
    for epoch in (slice(5), slice(5, 10)):
        seen = flat(flat(rank[epoch]) for rank in whole)
        assert len({*seen}) == len(seen) == 40
    before = run_ranks(fit_on_ranks, tmp_path, folder, str(tmp_path / "c"), 3, None)
    (checkpoint,) = (tmp_path / "c").glob("*.ckpt")
    after = run_ranks(fit_on_ranks, tmp_path, folder, str(tmp_path / "c"), 0, str(checkpoint))
    assert [b[:3] + a for b, a in zip(before, after, strict=True)] == whole


def test_fabric_leaves_the_loader_as_it_is_and_keeps_its_place(folder, whole, tmp_path):
    fabric = lightning.Fabric(accelerator="cpu", devices=1)
    fabric.launch()
    seen = []
    for resumed in (False, True):
        loader = data(folder).train_dataloader()
        batches = fabric.setup_dataloaders(loader, use_distributed_sampler=False)
        if resumed:
            fabric.load(tmp_path / "state.ckpt", {"data": loader})
        for _ in range(3):
            for batch in batches:
                seen.append(batch["cls"].tolist())
                if not resumed and len(seen) == 14:
                    fabric.save(tmp_path / "state.ckpt", {"data": loader})
                    break
            if len(seen) in (14, 30):
                break
    assert seen == whole.seen
