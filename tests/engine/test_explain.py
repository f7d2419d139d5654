"""``explain`` says what will happen, in the words of the plan."""

import pytest

import streampipe as sp
from streampipe.counters import counters
from streampipe.index import index
from streampipe.source import Source
from streampipe.testing import FaultServer
from streampipe.urls import ShardList
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
    assert rows["level"] == "indexed: it is known where each sample is: batches are planned"
    assert rows["pushed down"] == "where (key > '0010000'), batch(4)"
    assert rows["generators"] == "decode(), batch(size=4)"
    assert rows["samples"] == "49 in 6 shards"
    assert rows["steps"].startswith(
        "7 an epoch on each of 2 ranks, 8 samples each in all; the last batch has 1 samples"
    )
    assert "O(1) resume" in rows["guarantees"]
    assert rows["bytes"] == "0.2 MB an epoch in all, 0.1 MB by each rank"
    assert rows["reading"] == "local: each sample when it is wanted"


def test_a_sequential_pipeline_says_why(shards):
    text = sp.stream(str(shards)).filter(len).batch(4).loader().explain()
    assert "not planned    stage filter(fn=len) may yield more or fewer samples than it is given" in text
    assert "level          indexed: it is known where each sample is" in text
    assert "in each lane   filter(fn=len)" in text
    text = sp.stream(str(shards), tier="sequential").batch(4).explain(world_size=2)
    assert "need loader(steps_per_epoch=n)" in text
    assert "would make it indexed" in text
    assert "the samples come from an iterable" in sp.from_iterable([1]).explain()
    with pytest.raises(sp.ConfigError, match="tier='planned' cannot be: stage filter"):
        sp.stream(str(shards), tier="planned").filter(len).explain()


@pytest.fixture
def remote(shards):
    index(ShardList([str(path) for path in sorted(shards.glob("*.tar"))]), Source(), progress=False)
    with FaultServer({path.name: path.read_bytes() for path in shards.iterdir()}) as server:
        yield [server.url(f"{n:05d}.tar") for n in range(6)]


def explained(pipe, **options):
    rows = (line.split("  ", 1) for line in pipe.explain(**options).splitlines())
    return {name.strip(): value.strip() for name, value in rows}


def test_how_remote_bytes_are_read_how_many_and_when_a_cache_would_pay(remote, shards, tmp_path):
    whole = sum(path.stat().st_size for path in shards.glob("*.tar")) / 1e6
    rows = explained(sp.stream(remote, shuffle=7).batch(4))
    assert rows["bytes"] == f"{whole:.1f} MB an epoch"
    assert rows["reading"].startswith("ahead of need: strictly forward in ")
    assert rows["requests"].startswith("6 to 60 an epoch, ")
    assert rows["cache"].startswith("none; cache= would pay from the second epoch on, with ")
    rows = explained(sp.stream(remote, shuffle=7, epochs=None).where("key < '0000002'").batch(1))
    assert rows["reading"] == "ahead of need: exactly the samples that are kept, neighbours together"
    assert rows["cache"].startswith("none; cache= would pay now, ")
    assert rows["cache"].endswith("though it fetches whole shards where 0.0 MB are wanted")
    rows = explained(sp.stream(remote, shuffle=7).batch(4), num_workers=5)
    assert "a number of workers that divides" in rows["lanes"]
    assert rows["reading"] == "ahead of need: each reader the samples that it needs, neighbours together"
    rows = explained(sp.stream(remote, shuffle=1000, network=sp.Network(memory=10_000)).batch(4))
    assert "so some samples come one by one; more workers or memory, or a smaller shuffle" in rows["reading"]
    rows = explained(sp.stream(remote, cache=tmp_path / "cache").batch(4))
    assert rows["reading"].startswith(
        f"through the cache: each shard is copied once a machine ({whole:.1f} MB for all)"
    )
    assert "cache" not in rows
    assert "requests" not in rows


def test_the_shards_of_all_parts_of_a_mixture_are_counted(shards):
    part = sp.stream(str(shards), shuffle=7)
    assert explained(sp.mix([part, part], repeats=[2, 1]).batch(4))["samples"].endswith(" in 12 shards")


def test_what_drop_last_leaves_out_is_told_before_and_counted_after(shards):
    pipe = sp.stream(str(shards), shuffle=7, epochs=2).batch(8, tail="drop")
    assert explained(pipe)["guarantees"].startswith("no sample twice an epoch")
    assert explained(sp.stream(str(shards)).batch(8))["guarantees"].startswith("every sample once an epoch")
    what = "batch", "left out at an epoch's end (drop_last)"
    before = counters.get(*what)
    assert sum(len(batch["__key__"]) for batch in pipe.loader(num_workers=2)) == 2 * 56
    assert counters.get(*what) - before == 2 * 4
