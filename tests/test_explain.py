"""``explain`` says what will happen, in the words of the plan."""

import pytest

import streampipe as sp
from tests.data import write_shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder, [10] * 6)
    return folder


def test_a_planned_pipeline_names_tier_pushdown_steps_and_guarantees(shards):
    text = sp.stream(str(shards), shuffle=7).where("key > '0010000'").decode().batch(4).explain(world_size=2)
    rows = dict(line.split("  ", 1) for line in text.splitlines())
    rows = {name.strip(): value.strip() for name, value in rows.items()}
    assert rows["tier"] == "planned: the samples are counted"
    assert rows["pushed down"] == "where (key > '0010000'), batch(4)"
    assert rows["generators"] == "decode(), batch(size=4)"
    assert rows["samples"] == "49 in 6 shards"
    assert rows["steps"].startswith(
        "7 an epoch on each of 2 ranks, 8 samples each in all; the last batch has 1 samples"
    )
    assert "O(1) resume" in rows["guarantees"]
    assert rows["bytes"].startswith("0.1 MB an epoch in all, ")
    assert rows["reading"] == "local shards, mapped"


def test_a_sequential_pipeline_says_why(shards):
    text = sp.stream(str(shards)).filter(len).batch(4).loader().explain()
    assert "sequential: stage filter(fn=len) may give out more or fewer samples than it is given" in text
    assert "need loader(steps_per_epoch=n)" in text
    assert "the samples come from an iterable" in sp.from_iterable([1]).explain()
    with pytest.raises(sp.ConfigError, match="tier='planned' cannot be: stage filter"):
        sp.stream(str(shards), tier="planned").filter(len).explain()
