"""The trainer on packs of patches: killed and resumed, with the losses of a run that was left alone."""

import json
import time
from pathlib import Path

import pytest

from tests.data import photo, shard
from tests.warm import PIPE, Program, script

EXAMPLES = Path(__file__).parent.parent / "examples"
SIZES = ((64, 48), (48, 96), (32, 32), (128, 64))


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import train_navit

    return train_navit


def losses(out):
    return [json.loads(line) for line in (out / "losses.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("warm")
def test_a_killed_training_on_packs_goes_on_with_the_same_losses(example, tmp_path):
    shards = tmp_path / "shards"
    shards.mkdir()
    lands = list(example.LANDS)
    for number in range(2):
        samples = [
            (f"{number}{i:02d}", {"jpg": photo(i, *SIZES[i % 4]), "txt": f"a {lands[(5 * i + number) // 3 % 4]}"})
            for i in range(30)
        ]
        (shards / f"{number}.tar").write_bytes(shard(samples))

    def given(out, steps=14):
        options = {"shards": shards, "out": tmp_path / out, "steps": steps, "checkpoint-every": 2, "budget": 60}
        return [
            str(each) for name, value in {**options, "patch": 16, "lr": 3e-4}.items() for each in (f"--{name}", value)
        ]

    example.train(example.arguments(given("whole")))
    whole = losses(tmp_path / "whole")
    assert [each["step"] for each in whole] == list(range(1, 15))
    assert all(0 < each["patches"] <= 60 for each in whole)
    assert len({each["images"] for each in whole}) > 1
    assert min(each["loss"] for each in whole) > 0.1

    broken = Program(script, EXAMPLES / "train_navit.py", *given("broken", 10_000), stdout=PIPE)
    while not (tmp_path / "broken" / "losses.jsonl").exists() or len(losses(tmp_path / "broken")) < 5:
        assert broken.poll() is None, broken.communicate()[0]
        time.sleep(0.02)
    broken.kill()
    broken.communicate()
    done = len(losses(tmp_path / "broken"))

    example.train(example.arguments(given("broken", max(14, done + 2))))
    resumed = losses(tmp_path / "broken")
    assert [each["images"] for each in resumed[:14]] == [each["images"] for each in whole]
    assert [each["loss"] for each in resumed[:14]] == pytest.approx([each["loss"] for each in whole], rel=1e-5)
