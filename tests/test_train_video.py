"""A tiny video transformer, killed and run again: its losses are those of a run that nobody killed."""

import re
import signal
from pathlib import Path

import pytest
import torch

from tests.videos import need_av
from tests.warm import PIPE, Program, script

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.usefixtures("warm")
def test_it_is_killed_and_goes_on_with_the_same_losses(tmp_path, monkeypatch, capsys):
    need_av()
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import train_video

    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def run(name, *more):
        given = train_video.arguments().parse_args(["--out", str(tmp_path / name), "--save-every", "3", *more])
        return train_video.train(given)

    whole = run("whole", "--steps", "11")
    shapes = set(re.findall(r", (\d+x\d+x3x\d+x\d+)", capsys.readouterr().out))
    assert {shape.split("x")[1] for shape in shapes} == {"1", "5", "9"}
    given = ("--out", tmp_path / "killed", "--save-every", "3", "--kill-at", "8")
    killed = Program(script, EXAMPLES / "train_video.py", *given, stdout=PIPE, stderr=PIPE)
    _, errors = killed.communicate()
    assert killed.returncode == -signal.SIGKILL, errors
    assert run("killed", "--steps", "11") == whole  # from step 6 on, where its last checkpoint is
    assert "step 7: " in capsys.readouterr().out
    torch.set_num_threads(threads)
