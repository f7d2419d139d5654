"""The examples run, and do what they say."""

import re
from pathlib import Path

import pytest
from PIL import Image

from tests.warm import PIPE, Program, script

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.usefixtures("warm")


def run(name, *arguments):
    program = Program(script, ROOT / name, *arguments, stdout=PIPE, stderr=PIPE)
    said, errors = program.communicate()
    assert program.returncode == 0, errors
    return said


def test_the_quickstart_leaves_a_contact_sheet_and_figures(tmp_path):
    text = run("examples/quickstart.py", "--out", tmp_path)
    with Image.open(tmp_path / "contact-sheet.png") as sheet:
        assert sheet.size == (1024, 900)
    assert re.search(r"192 samples, \d+ images/s", text)
    assert "3 shards were there already" in run("examples/quickstart.py", "--out", tmp_path, "--workers", "1")


def test_the_training_example_learns(tmp_path):
    text = run("examples/train.py", "--out", tmp_path)
    accuracy = int(re.search(r"accuracy on 80 unseen images: (\d+)%", text)[1])
    assert accuracy >= 60
    assert "waiting for data" in text


def test_folder_to_shards(tmp_path):
    run("examples/make_images.py", tmp_path / "in", "--count", "5")
    text = run("examples/folder_to_shards.py", tmp_path / "in", tmp_path / "out")
    assert "5 samples in 1 shards" in text
