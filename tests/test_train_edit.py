"""The editing trainer, killed at any time, goes on with the losses that it would have had."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "examples"))
import train_edit  # noqa: E402

from tests.warm import PIPE, Program  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("warm")
def test_a_killed_run_goes_on_with_the_same_losses(tmp_path):
    train_edit.draw(tmp_path / "shards", 24)
    whole = train_edit.train(tmp_path, 14, 4, 100, 0)
    assert np.mean(whole[-4:]) < np.mean(whole[:4]) / 2, "it does not learn"
    out = tmp_path / "killed"
    out.mkdir()
    (out / "shards").symlink_to(tmp_path / "shards")
    process = Program(train_edit.train, out, 14, 4, 3, 0, stdout=PIPE)
    with process.stdout:
        for line in process.stdout:
            if line.startswith("step 7:"):
                process.kill()
    process.wait()
    again = train_edit.train(out, 14, 4, 3, 0)
    assert again == whole
