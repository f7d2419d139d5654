"""The trainers' examples run as they are, on a few images, and go on from their checkpoints."""

import importlib
import os
from pathlib import Path

import pytest

from tests.trainers.ranks import run_ranks

FEW = ["--images", "48"]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return str(tmp_path_factory.mktemp("out"))


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "examples"))
    return importlib.import_module


def test_lightning(example, out):
    pytest.importorskip("lightning")
    main = example("train_lightning").main
    first = main([*FEW, "--out", out, "--epochs", "1"])
    second = main([*FEW, "--out", out, "--epochs", "2", "--resume"])
    assert (first.global_step, second.global_step) == (3, 6)


def test_accelerate(example, out):
    pytest.importorskip("accelerate")
    main = example("train_accelerate").main
    assert len(main([*FEW, "--out", out, "--epochs", "1"])) == 1
    assert len(main([*FEW, "--out", out, "--epochs", "2", "--resume"])) == 1


def test_hf_trainer(example, out):
    pytest.importorskip("transformers")
    main = example("train_hf_trainer").main
    main([*FEW, "--out", out, "--epochs", "2"])  # six steps, of which the fifth is kept
    assert main([*FEW, "--out", out, "--epochs", "3", "--resume"]).state.global_step == 9


def train_ddp(out, steps):
    import train_ddp as script

    script.main([*FEW, "--out", out, "--epochs", "4", *steps])
    return sorted(os.listdir(f"{out}/ddp"))


def test_ddp(example, out, tmp_path):
    example("train_ddp")
    assert ".metadata" in run_ranks(train_ddp, tmp_path, out, ["--steps", "5"])[0]
    run_ranks(train_ddp, tmp_path, out, [], ranks=1)
