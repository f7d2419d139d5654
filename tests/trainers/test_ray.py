"""Ray Train: a loader finds its worker's rank, and a run whose worker fails goes on with the next batch."""

import json
import os
import re
import sys
import types
from pathlib import Path

import pytest

import streampipe as sp
from streampipe.world import find_world

DOCUMENT = Path(__file__).parents[2] / "docs" / "drop-ins.md"


def stand_in(monkeypatch, get_context):
    monkeypatch.setitem(sys.modules, "ray.train", types.SimpleNamespace(get_context=get_context))
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def test_a_worker_of_ray_train_without_a_process_group_has_its_rank(monkeypatch):
    context = types.SimpleNamespace(get_world_rank=lambda: 1, get_world_size=lambda: 3)
    stand_in(monkeypatch, lambda: context)
    assert find_world() == (1, 3)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert find_world() == (0, 2)


def test_outside_of_a_training_function_ray_says_nothing(monkeypatch):
    def refuse():
        raise RuntimeError("`get_context` cannot be used outside of a Ray Train training function")

    stand_in(monkeypatch, refuse)
    assert find_world() == (0, 1)


def test_ray_that_contradicts_itself_is_an_error(monkeypatch):
    stand_in(monkeypatch, lambda: types.SimpleNamespace(get_world_rank=lambda: 3, get_world_size=lambda: 3))
    with pytest.raises(sp.ConfigError, match="Ray Train name rank 3 of 3"):
        find_world()


class Step:
    """Writes down the keys of each batch; the first rank fails once, at its fifth batch."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, batch):
        import ray.train

        rank = ray.train.get_context().get_world_rank()
        path = Path(self.folder) / f"rank{rank}.jsonl"
        failed = Path(self.folder) / "failed"
        number = len(path.read_text().splitlines()) if path.exists() else 0
        if rank == 0 and number == 4 and not failed.exists():
            failed.touch()
            raise RuntimeError("the worker fails, as it was told")
        with path.open("a") as file:
            file.write(json.dumps([failed.exists(), batch["__key__"]]) + "\n")


def test_two_workers_share_each_epoch_and_go_on_behind_the_checkpoint_after_one_failed(folder, tmp_path, monkeypatch):
    pytest.importorskip("ray.train", reason="ray[train] is not installed", exc_type=ImportError)
    import ray
    import ray.train
    from ray.train.torch import TorchTrainer

    monkeypatch.setenv("RAY_TRAIN_V2_ENABLED", "1")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    (code,) = re.findall(r"```python\n(import json.*?)```", DOCUMENT.read_text(), re.DOTALL)
    there = {"sp": sp}
    exec(code, there)
    environment = {"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    try:
        TorchTrainer(
            there["train_loop"],
            train_loop_config={"shards": folder, "epochs": 2, "train_step": Step(str(tmp_path))},
            scaling_config=ray.train.ScalingConfig(num_workers=2),
            run_config=ray.train.RunConfig(
                storage_path=str(tmp_path / "runs"), failure_config=ray.train.FailureConfig(max_failures=1)
            ),
        ).fit()
    finally:
        ray.shutdown()
    found = [
        [json.loads(line) for line in (tmp_path / f"rank{rank}.jsonl").read_text().splitlines()] for rank in range(2)
    ]
    expected = [
        [batch["__key__"] for _ in range(2) for batch in loader]
        for loader in (
            sp.stream(folder, shuffle=True, seed=1).decode().batch(4).loader(rank=rank, world_size=2)
            for rank in range(2)
        )
    ]
    for mine, whole in zip(found, expected, strict=True):
        after = [keys for failed, keys in mine if failed]
        assert [keys for failed, keys in mine if not failed][:3] == whole[:3]
        assert after[-7:] == whole[3:]  # the checkpoint was behind the third batch
