"""A question to a dataset is answered once, by as few requests as can be; what changed is asked again."""

import json
import os
import pickle

import pytest

import streampipe as sp
from streampipe.counters import counters
from streampipe.index import Finder
from streampipe.testing import FaultServer
from tests.data import shard
from tests.laws import engine_of

SHARDS = 20


@pytest.fixture(autouse=True)
def _own(tmp_path, monkeypatch):
    monkeypatch.setenv("STREAMPIPE_CACHE", str(tmp_path / "own"))


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(SHARDS):
        rows = [(f"{number:02d}{i}", {"json": json.dumps({"n": i, "width": 512 + i, "height": 512})}) for i in range(4)]
        (folder / f"{number:05d}.tar").write_bytes(shard(rows))
    sp.index(str(folder), progress=False)
    return folder


def served(folder, without=""):
    return FaultServer({p.name: p.read_bytes() for p in folder.iterdir() if not without or without not in p.name})


def stream(server):
    return sp.stream(f"{server.url('')}{{00000..{SHARDS - 1:05d}}}.tar", shuffle=5)


CHAINS = {
    "where": lambda pipe: pipe.where("n < 3"),
    "bucket": lambda pipe: pipe.bucket([(512, 512), (512, 1024)]),
}


@pytest.mark.parametrize("what", CHAINS)
def test_a_question_is_asked_of_the_merged_facts_and_only_once(folder, what):
    with served(folder) as server:
        first = engine_of(CHAINS[what](stream(server)).batch(2)).plan.dataset
        names = [request.name for request in server.requests]
        assert not [name for name in names if "index" in name or name.endswith(".tar")]
        assert len(names) <= 4  # the manifest, the end of the facts, a column or two
        server.requests.clear()
        again = engine_of(CHAINS[what](stream(server)).batch(2)).plan.dataset
        assert [request.name for request in server.requests] == ["manifest.parquet"]
    local = engine_of(CHAINS[what](sp.stream(str(folder), shuffle=5)).batch(2)).plan.dataset
    assert first.fingerprint == again.fingerprint == local.fingerprint
    assert first.sample_bytes == again.sample_bytes == local.sample_bytes


def test_other_questions_shards_and_manifests_are_asked_anew(folder):
    with served(folder) as server:
        assert engine_of(stream(server).where("n < 3").batch(2)).plan.dataset.samples == 3 * SHARDS
        assert engine_of(stream(server).where("n < 2").batch(2)).plan.dataset.samples == 2 * SHARDS
        some = sp.stream(f"{server.url('')}{{00004..00002}}.tar").where("n < 3").batch(2)
        assert engine_of(some).plan.dataset.counts.tolist() == [3, 3, 3]
        rows = [("x", {"json": '{"n": 0}', "txt": "x" * 20_000})]
        (folder / "00003.tar").write_bytes(shard(rows))
        sp.index(str(folder), progress=False)
        for each in folder.iterdir():
            server.put(each.name, each.read_bytes())
        assert engine_of(some).plan.dataset.counts.tolist() == [3, 3, 3]  # the same pipeline: the same data
        some = sp.stream(f"{server.url('')}{{00004..00002}}.tar").where("n < 3").batch(2)
        assert engine_of(some).plan.dataset.counts.tolist() == [3, 1, 3]


def test_what_is_dropped_is_counted_whether_the_answer_is_new_or_kept(folder):
    with served(folder) as server:
        seen = []
        for _ in range(2):
            counters.take()
            engine_of(stream(server).where("n < 3").batch(2))
            seen.append((counters.get("where", "dropped"), counters.get("where", "dropped because n < 3 is false")))
        assert seen == [(SHARDS, SHARDS)] * 2


def test_without_a_manifest_a_job_asks_once_and_its_workers_find_the_answer(folder):
    with served(folder, without="manifest") as server:
        pipe = stream(server).where("n < 3").batch(2)
        source = pickle.dumps(pipe.spec.source)
        keep = engine_of(pipe).plan.dataset.keep
        server.requests.clear()
        for _ in range(2):  # a worker that was started before its parent, or a sibling, knew
            assert pickle.loads(source).dataset(keep).samples == 3 * SHARDS
        assert {request.name for request in server.requests} == {"manifest.parquet"}
        server.requests.clear()
        engine_of(stream(server).where("n < 3").batch(2))
        assert len(server.requests) > SHARDS  # another job must look for itself


def test_shards_that_the_manifest_does_not_have_are_looked_at_by_their_own_indexes(folder):
    with served(folder) as server:
        for end in (".tar", ".index.parquet"):
            server.put(f"{SHARDS:05d}{end}", (folder / f"00000{end}").read_bytes())
        pipe = sp.stream(f"{server.url('')}{{00000..{SHARDS:05d}}}.tar").where("n < 3").batch(2)
        assert engine_of(pipe).plan.dataset.samples == 3 * (SHARDS + 1)
        indexes = [request.name for request in server.requests if "index" in request.name]
        assert indexes == [f"{SHARDS:05d}.index.parquet"]


def test_manifests_of_several_folders_are_each_of_their_own_shards(folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "00000.tar").write_bytes(shard([("z", {"json": '{"n": 0}'})]))
    sp.index(str(other), progress=False)
    objects = {f"{path.name}/{each.name}": each.read_bytes() for path in (folder, other) for each in path.iterdir()}
    with FaultServer(objects) as server:
        url = server.url("")
        pipe = sp.stream([f"{url}data/00000.tar", f"{url}other/00000.tar"]).batch(2)
        assert engine_of(pipe).plan.dataset.counts.tolist() == [4, 1]


def test_local_shards_are_remembered_together_and_looked_at_again_when_one_changes(folder, monkeypatch):
    monkeypatch.setattr("streampipe.plan.ask._FEW", 0)
    for each in folder.glob("*.parquet"):
        each.unlink()
    pipe = sp.stream(str(folder)).where("n < 3").batch(2)
    assert engine_of(pipe).plan.dataset.samples == 3 * SHARDS
    with monkeypatch.context() as patch:
        patch.setattr(Finder, "find", lambda *_, **__: pytest.fail("an index is read"))
        assert engine_of(sp.stream(str(folder)).where("n < 3").batch(2)).plan.dataset.samples == 3 * SHARDS
    (folder / "00007.tar").write_bytes(shard([("x", {"json": '{"n": 0}'})]))
    assert engine_of(sp.stream(str(folder)).where("n < 3").batch(2)).plan.dataset.counts[7] == 1


def test_a_local_shard_that_is_newer_than_its_manifest_is_counted_by_its_own_index(folder, monkeypatch):
    monkeypatch.setattr("streampipe.plan.ask._FEW", 0)
    assert engine_of(sp.stream(str(folder)).batch(2)).plan.dataset.samples == 4 * SHARDS
    (folder / "00007.tar").write_bytes(shard([("x", {"json": '{"n": 0}', "txt": "x" * 20_000})]))
    with pytest.raises(sp.IndexMismatch, match="does not fit"):
        engine_of(sp.stream(str(folder)).batch(2))
    (folder / "00007.index.parquet").unlink()
    later = os.stat(folder / "manifest.parquet").st_mtime_ns + 10**9
    os.utime(folder / "00007.tar", ns=(later, later))
    assert engine_of(sp.stream(str(folder)).batch(2)).plan.dataset.counts[7] == 1


def test_a_shard_that_is_missing_and_skipped_is_looked_for_each_time(folder):
    with served(folder, without="00007") as server:
        for _ in range(2):
            pipe = sp.stream(f"{server.url('')}{{00000..{SHARDS - 1:05d}}}.tar", missing_shards="skip").where("n < 3")
            counters.take()
            assert engine_of(pipe.batch(2)).plan.dataset.samples == 3 * (SHARDS - 1)
            assert counters.get("reading", "missing shards") == 1
