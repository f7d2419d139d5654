"""``info``: what a dataset holds, in numbers."""

import json

import numpy as np
import pytest

from streampipe.cli import main
from streampipe.commands.histogram import Histogram
from tests.data import photo, shard


@pytest.fixture
def found(tmp_path, capsys):
    """What is said of six samples in two shards, the second with captions in its json alone."""
    first = [(f"a{i}", {"jpg": photo(i, 160, 120), "txt": "x" * i, "json": f'{{"aesthetic": {i}}}'}) for i in range(4)]
    second = [
        ("b", {"jpg": photo(9, 80, 200), "json": '{"caption": "été", "AESTHETIC_SCORE": 9.5}'}),
        ("c", {"cls": "1"}),
    ]
    for name, samples in (("0.tar", first), ("1.tar", second)):
        (tmp_path / name).write_bytes(shard(samples))
    assert main(["info", str(tmp_path), "--bucket", "sd15", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_samples_fields_and_bytes_are_counted(found):
    assert (found["shards"], found["counted_shards"], found["samples"]) == (2, 2, 6)
    assert found["fields"]["txt"] == {"samples": 4, "bytes": 6}
    assert {name: each["samples"] for name, each in found["fields"].items()} == {
        "jpg": 5,
        "json": 5,
        "txt": 4,
        "cls": 1,
    }
    assert {"aesthetic", "AESTHETIC_SCORE", "caption", "key"} <= set(found["columns"])


def test_sizes_shapes_captions_and_scores_have_histograms(found):
    shown = found["histograms"]
    assert shown["width"]["classes"] == [{"from": 0, "to": 256, "samples": 5}]
    assert (shown["height"]["least"], shown["height"]["most"], shown["height"]["mean"]) == (120, 200, 136)
    assert [(each["from"], each["samples"]) for each in shown["width / height"]["classes"]] == [(1 / 3, 1), (5 / 4, 4)]
    assert [each["samples"] for each in shown["caption bytes"]["classes"]] == [1, 3]
    assert shown["caption characters"]["mean"] == 3
    assert (shown["aesthetic"]["samples"], shown["aesthetic"]["most"]) == (5, 9.5)  # by whatever name
    assert found["buckets"] == {"448 x 576": 4, "768 x 320": 1}


def test_a_histogram_is_the_same_however_its_values_come():
    values = np.random.default_rng(0).normal(5, 2, 1000)
    whole, parts = Histogram(), Histogram()
    whole.add(values)
    for part in np.array_split(np.sort(values), 40):
        parts.add(part)
    assert parts.rows() == whole.rows()
    assert sum(row["samples"] for row in whole.rows()) == 1000
    assert len(whole.rows()) <= 17
    same = Histogram()
    same.add(np.array([3.0, 3.0, np.inf]))
    assert [row["samples"] for row in same.rows()] == [2]
    assert same.lines()[-1] == "3 to 3, 3 on average"
