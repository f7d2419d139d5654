"""A loader that is closed does not wait for a store that is away, however patient it is with that."""

import random
import threading

import pytest

import streampipe as sp
from streampipe.index import index
from streampipe.source import Source
from streampipe.testing import FaultServer, Stall, Status
from streampipe.urls import ShardList
from tests.data import shard
from tests.source.conftest import bounded, until

SHARDS = 4


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("shards"), random.Random(0)
    names = [str(folder / f"{number}.tar") for number in range(SHARDS)]
    for number, name in enumerate(names):
        samples = [(f"{number}{i:03d}", {"jpg": rng.randbytes(20_000)}) for i in range(4)]
        with open(name, "wb") as file:
            file.write(shard(samples))
    index(ShardList(names), Source(), progress=False)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("tier", ["planned", "sequential"])
@pytest.mark.parametrize("options", [{"threads": 2}, {"num_workers": 1}, {"num_workers": 1, "threads": 2}])
def test_a_loader_is_closed_while_its_readers_wait_for_a_store_that_is_away(objects, tier, options):
    network = sp.Network(window=60_000, memory=1 << 20, gap=0, patience=1e6, first_wait=0.01, longest_wait=0.05)
    with FaultServer(objects) as server:
        for number in range(1, SHARDS):  # the first batch comes
            server.script(f"{number}.tar", always=Status(503))
        urls = [server.url(f"{number}.tar") for number in range(SHARDS)]
        pipe = sp.stream(urls, shuffle=False, tier=tier, network=network)
        batches = iter(pipe.batch(1).loader(prefetch=8, **options))
        bounded(next, batches)
        until(lambda: any(each.status == 503 for each in list(server.requests)))
        bounded(batches.close, seconds=60)
    assert not [each for each in threading.enumerate() if each.name.startswith("streampipe-ahead")]


@pytest.mark.parametrize("tier", ["planned", "sequential"])
def test_a_loader_is_closed_while_a_store_does_not_answer_what_size_a_shard_for_the_cache_has(objects, tier, tmp_path):
    network = sp.Network(window=60_000, memory=1 << 20, gap=0, stall=1e6)
    with FaultServer(objects) as server:
        for number in range(1, SHARDS):
            server.script(f"{number}.tar", always=Stall(head=True))
        urls = [server.url(f"{number}.tar") for number in range(SHARDS)]
        pipe = sp.stream(urls, shuffle=False, tier=tier, network=network, cache=tmp_path / "kept")
        batches = iter(pipe.batch(1).loader(prefetch=8, threads=2))
        bounded(next, batches)
        until(lambda: any(each.method == "HEAD" and each.name != "0.tar" for each in list(server.requests)))
        bounded(batches.close, seconds=30)
    assert not [each for each in threading.enumerate() if each.name.startswith("streampipe-ahead")]
