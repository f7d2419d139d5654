"""index="learn": what is streamed once is indexed from then on, and no pass changes its level on the way."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections import Counter
from itertools import islice

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch.distributed
from hypothesis import given, settings
from hypothesis import strategies as st

import streampipe as sp
from streampipe.cli import main
from streampipe.counters import counters
from streampipe.source import Source
from tests.data import shard, write_photos, write_shards
from tests.levels import numbered, rows
from tests.trainers.ranks import run_ranks

COUNTS = [5, 3, 0, 7, 4, 6, 2]


@pytest.fixture
def shards(tmp_path):
    """Small photos, one shard with json facts and what img2dataset knows of it, a hidden file and upper case."""
    write_photos(tmp_path / "shards", COUNTS)
    with tarfile.open(tmp_path / "shards" / "00007.tar", "w") as tar:
        for name in ("d/a.JSON", "d/._a.JSON", "README", "d/a.txt", "d/b.json", "d/b.txt", "z.txt/"):
            data = json.dumps({"score": len(name), "nested": {"x": 1.5}}).encode()
            info = tarfile.TarInfo(name.rstrip("/"))
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            info.size = 0 if name.endswith("/") else len(data)
            tar.addfile(info, io.BytesIO(data))
    table = pa.table({"key": ["d/a", "d/b"], "status": ["success"] * 2, "caption": ["x", "y"]})
    pq.write_table(table, tmp_path / "shards" / "00007.parquet")
    return tmp_path / "shards"


def learning(shards, folder, **options):
    pipe = sp.stream(str(shards), index=sp.Learn(str(folder)), **{"seed": 1, "shuffle": 4, **options})
    return pipe.select("txt")


def indexes(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.index.parquet")}


def indexed(shards, folder):
    """What ``streampipe index`` writes."""
    folder.mkdir(exist_ok=True)
    sp.index(str(shards), folder=str(folder), progress=False)
    return indexes(folder)


def keys_of(passes):
    return Counter(key for batch in passes for key in batch["__key__"])


# --- the index ---


@pytest.mark.parametrize(("shuffle", "workers"), [(4, 0), (False, 0), (4, 2), (False, 2)])
def test_what_is_learnt_is_byte_for_byte_what_streampipe_index_writes(shards, tmp_path, shuffle, workers):
    list(learning(shards, tmp_path / "learnt", shuffle=shuffle).batch(4).loader(workers))
    assert indexes(tmp_path / "learnt") == indexed(shards, tmp_path / "made")


def test_learning_beside_remote_shards(shards, tmp_path):
    store = fsspec.filesystem("memory")
    for path in sorted(shards.iterdir()):
        store.pipe(f"/learnt/{path.name}", path.read_bytes())
    try:
        loader = (
            sp.stream("memory://learnt/{00000..00007}.tar", index="learn", shuffle=4).select("txt").batch(4).loader()
        )
        first, second = list(loader), list(loader)
        found = {name: store.cat(f"/learnt/{name}") for name in indexed(shards, tmp_path / "made")}
    finally:
        store.rm("/learnt", recursive=True)
    assert found == indexes(tmp_path / "made")
    assert keys_of(first) == keys_of(second)
    assert loader.state_dict()["level"] == "indexed"


@settings(max_examples=15, deadline=None)
@given(
    counts=st.lists(st.integers(0, 6), min_size=1, max_size=6),
    shuffle=st.sampled_from([False, 1, 3]),
    stop=st.integers(0, 12),
    opaque=st.booleans(),
)
def test_passes_that_end_anywhere_learn_what_they_read_whole(tmp_path_factory, counts, shuffle, stop, opaque):
    folder = tmp_path_factory.mktemp("any")
    keys = write_shards(folder / "shards", [*counts, 1])
    made = indexed(folder / "shards", folder / "made")

    def loader(**options):
        pipe = learning(folder / "shards", folder / "learnt", shuffle=shuffle, **options)
        return (pipe.apply(numbered()) if opaque else pipe).batch(2).loader()

    first = loader()
    got = list(islice(first, stop))
    assert indexes(folder / "learnt").items() <= made.items()
    again = loader()
    again.load_state_dict(first.state_dict())
    rest = list(again)
    assert again.state_dict()["level"] in ("streamed", "indexed")
    if len(got) < -(-len(keys) // 2):
        assert keys_of([*got, *rest]) == Counter(keys)
    list(loader())
    assert indexes(folder / "learnt") == made
    last = loader()
    assert keys_of(list(last)) == Counter(keys)
    assert last.state_dict()["level"] == "indexed"


def test_counted_shards_are_learnt_too_and_the_run_goes_on(tmp_path):
    """What img2dataset counted is planned at once; the batches of a resumed run do not change with the index."""
    keys = write_shards(tmp_path / "shards", COUNTS)
    for i, count in enumerate(COUNTS):
        (tmp_path / "shards" / f"{i:05d}_stats.json").write_text(json.dumps({"successes": count, "count": count}))
    loader = learning(tmp_path / "shards", tmp_path / "learnt").batch(3).loader()
    first = next(iter(loader))
    state = loader.state_dict()
    assert state["level"] == "counted"
    whole = [first, *islice(_resumed(tmp_path, state), None)]
    assert keys_of(whole) == Counter(keys)
    assert indexes(tmp_path / "learnt") == indexed(tmp_path / "shards", tmp_path / "made")
    assert list(map(rows, _resumed(tmp_path, state))) == list(map(rows, whole[1:]))


def _resumed(tmp_path, state):
    loader = learning(tmp_path / "shards", tmp_path / "learnt").batch(3).loader()
    loader.load_state_dict(state)
    return iter(loader)


def test_damaged_and_compressed_shards_and_those_with_links_are_not_learnt(tmp_path):
    write_shards(tmp_path / "shards", [4] * 6)
    first, second, third = sorted((tmp_path / "shards").glob("*.tar"))[:3]
    first.write_bytes(first.read_bytes()[:3000])
    second.with_suffix(".tar.gz").write_bytes(gzip.compress(second.read_bytes()))
    second.unlink()
    with tarfile.open(third, "w") as tar:
        info = tarfile.TarInfo("a.txt")
        info.size = 5
        tar.addfile(info, io.BytesIO(b"a cat"))
        link = tarfile.TarInfo("b.txt")
        link.type, link.linkname = tarfile.LNKTYPE, "a.txt"
        tar.addfile(link)
    before = counters.get("learning", "shards learnt")
    pipe = learning(
        tmp_path / "shards",
        tmp_path / "learnt",
        on_error=sp.ErrorPolicy("skip", max_share=1.0),
        limits=sp.Limits(hard_links=True),
    )
    loader = pipe.batch(2).loader()
    seen = [keys_of(list(loader)) for _ in range(2)]
    assert seen[0] == seen[1]
    assert {"a", "b"} < set(seen[0])
    assert sorted(indexes(tmp_path / "learnt")) == [f"{i:05d}.index.parquet" for i in (3, 4, 5)]
    assert counters.get("learning", "shards learnt") == before + 3
    assert counters.get("learning", "shards that are compressed, which have no index")
    assert counters.get("learning", "shards with hard links, which have no index")
    assert "3 of 6 shards are learnt" in loader.explain()


def test_streampipe_index_goes_on_with_what_was_learnt(shards, tmp_path, capsys):
    list(islice(learning(shards, tmp_path / "learnt", shuffle=False).batch(4).loader(), 3))
    learnt = indexes(tmp_path / "learnt")
    assert 0 < len(learnt) < 8
    assert main(["index", str(shards), "--out", str(tmp_path / "learnt")]) == 0
    assert f"({len(learnt)} were there already)" in capsys.readouterr().out
    loader = learning(shards, tmp_path / "learnt").batch(4).loader()
    assert len(loader)


# --- the place ---


def test_a_place_that_cannot_be_written_is_an_error_before_the_first_sample(shards, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(sp.ConfigError, match=r"file/in cannot be written: give index=sp\.Learn\(folder\)"):
        iter(learning(shards, tmp_path / "file" / "in").batch(2).loader())
    signed = sp.stream("https://host.invalid/{0..3}.tar?signature=1", index="learn")
    with pytest.raises(sp.ConfigError, match=r"nothing can be put beside it: give index=sp\.Learn\(folder\)"):
        iter(signed.batch(2).loader())
    with pytest.raises(sp.ConfigError, match="opener= reads forward only"):
        sp.stream(str(shards), index="learn", opener=open)


def test_a_store_that_refuses_is_an_error_before_the_first_sample(tmp_path, monkeypatch):
    store = fsspec.filesystem("memory")
    for path in write_paths(tmp_path):
        store.pipe(f"/refuses/{path.name}", path.read_bytes())
    monkeypatch.setattr(Source, "write", _full)
    try:
        with pytest.raises(sp.ConfigError, match="indexes cannot be written to memory://refuses"):
            iter(sp.stream("memory://refuses/{00000..00001}.tar", index="learn").batch(2).loader())
    finally:
        store.rm("/refuses", recursive=True)


def write_paths(tmp_path):
    write_shards(tmp_path / "shards", [3, 3])
    return sorted((tmp_path / "shards").iterdir())


def _full(source, url, data):
    raise sp.SourceError(f"{url} cannot be written: no space is left")


def test_an_index_that_cannot_be_written_later_ends_no_training(shards, tmp_path, monkeypatch, caplog):
    loader = learning(shards, tmp_path / "learnt").batch(4).loader()
    batches = iter(loader)
    monkeypatch.setattr(Source, "write", _full)
    assert sum(len(batch["__key__"]) for batch in batches) == sum(COUNTS) + 2
    assert not indexes(tmp_path / "learnt")
    assert "no space is left" in caplog.text
    assert loader.state_dict()["level"] == "streamed"


# --- the level ---


@pytest.mark.parametrize("options", [{}, {"num_workers": 2}, {"num_workers": 2, "persistent_workers": True}])
def test_the_next_epoch_is_indexed_and_each_epoch_is_whole(shards, tmp_path, options):
    loader = learning(shards, tmp_path / "learnt").decode().batch(4).loader(**options)
    passes, levels = [], []
    for _ in range(3):
        passes.append(keys_of(list(loader)))
        levels.append(loader.engine.level.value)
    assert levels == ["streamed", "indexed", "indexed"]
    assert passes[0] == passes[1] == passes[2]
    assert set(passes[0].values()) == {1}


def test_a_plain_pass_is_indexed_in_its_next_epoch(shards, tmp_path):
    pipe = learning(shards, tmp_path / "learnt").batch(4)
    first, second = keys_of(list(pipe)), keys_of(list(pipe))
    assert first == second
    assert pipe.state_dict()["level"] == "indexed"


def test_a_state_keeps_the_level_that_it_was_saved_in(shards, tmp_path):
    folder = tmp_path / "learnt"
    whole = list(map(rows, learning(shards, tmp_path / "other").batch(4).loader()))
    loader = learning(shards, folder).batch(4).loader()
    assert list(map(rows, islice(loader, 2))) == whole[:2]
    state = json.loads(json.dumps(loader.state_dict()))
    indexed(shards, folder)
    resumed = learning(shards, folder).batch(4).loader()
    assert resumed.engine.level.value == "indexed"
    resumed.load_state_dict(state)
    assert list(map(rows, resumed)) == whole[2:]
    following = list(map(rows, resumed))
    assert resumed.engine.level.value == "indexed"
    other = learning(shards, folder).batch(4).loader()
    other.set_epoch(1)
    assert list(map(rows, other)) == following
    other = learning(shards, folder).batch(4).loader()
    other.set_epoch(1)
    got = list(map(rows, islice(other, 3)))
    resumed.load_state_dict(other.state_dict())
    assert [*got, *map(rows, resumed)] == following


def test_a_stream_that_is_cut_into_steps_keeps_its_level(shards, tmp_path):
    """Its lanes stand in the middle of their epochs when a pass ends."""
    loader = learning(shards, tmp_path / "learnt", epochs=None).batch(4).loader(steps_per_epoch=9)
    batches = [batch for _ in range(4) for batch in loader]
    assert loader.engine.level.value == "streamed"
    assert len(indexes(tmp_path / "learnt")) == 8
    epochs = Counter((epoch, key) for batch in batches for epoch, key, _ in rows(batch))
    assert set(epochs.values()) == {1}
    loader = learning(shards, tmp_path / "learnt", epochs=None).batch(4).loader(steps_per_epoch=9)
    assert loader.engine.level.value == "indexed"


def test_ranks_without_a_process_group_learn_and_stay_as_they_are(shards, tmp_path):
    def ranks():
        pipes = [learning(shards, tmp_path / "learnt", epochs=None).batch(2) for _ in range(2)]
        return [pipe.loader(rank=r, world_size=2, steps_per_epoch=8) for r, pipe in enumerate(pipes)]

    for loader in ranks():
        list(loader)
        list(loader)
    assert indexes(tmp_path / "learnt") == indexed(shards, tmp_path / "made")
    assert "cannot agree when to use what they learn" in ranks()[0].explain()


def test_the_first_rank_that_asks_decides_for_all_of_the_job(shards, tmp_path):
    """Rank 1 begins when the last shard was just learnt by rank 0."""

    def loader(rank):
        pipe = learning(shards, tmp_path / "learnt", epochs=None).batch(2)
        return pipe.loader(rank=rank, world_size=2, steps_per_epoch=8)

    levels = []
    for _ in range(2):  # two jobs
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
        try:
            levels.append([loader(0).engine.level.value])
            indexed(shards, tmp_path / "learnt")
            levels[-1].append(loader(1).engine.level.value)
        finally:
            torch.distributed.destroy_process_group()
    assert levels == [["streamed", "streamed"], ["indexed", "indexed"]]


def test_conditions_are_asked_of_samples_until_the_index_is_there(shards, tmp_path):
    pipe = sp.stream(str(shards), index=sp.Learn(str(tmp_path / "learnt")), shuffle=4, seed=1)
    loader = pipe.where("width >= 93", missing="drop").batch(3).loader()
    first, second = keys_of(list(loader)), keys_of(list(loader))
    assert 0 < sum(first.values()) < sum(COUNTS)
    assert first == second
    assert loader.state_dict()["level"] == "indexed"


def test_shards_that_another_worker_learnt_are_not_noted_again(shards, tmp_path):
    """An endless stream deals the shards anew in every epoch."""
    loader = learning(shards, tmp_path / "learnt", epochs=None).batch(4).loader(2, steps_per_epoch=20)
    list(loader)
    noted = {path: path.stat().st_ino for path in (tmp_path / "learnt").iterdir()}
    assert len(indexes(tmp_path / "learnt")) == 8
    list(loader)
    assert {path: path.stat().st_ino for path in (tmp_path / "learnt").iterdir()} == noted


def test_whole_shards_of_one_sample_are_learnt_once(tmp_path):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "a.tar").write_bytes(shard([("k", {"txt": "x"})]))
    before = counters.get("learning", "shards learnt")
    list(learning(tmp_path / "shards", tmp_path / "learnt").batch(1).loader())
    assert counters.get("learning", "shards learnt") == before + 1


def _a_rank_learns(shards, folder, steps, stop):
    """A pass of a rank of a real job: its level and its keys. It is left after ``stop`` batches."""
    torch.distributed.init_process_group("gloo")
    pipe = learning(shards, folder, epochs=None if steps else 1).batch(2)
    loader = pipe.loader(**({"steps_per_epoch": steps} if steps else {}))
    seen = list(islice(loader, stop))
    return loader.engine.level.value, sorted(keys_of(seen).elements())


def test_two_processes_under_gloo_learn_their_shards_and_the_next_job_is_indexed_on_both(shards, tmp_path):
    """The first job ends in mid-epoch; the next one learns the rest. No index is half, and none differs."""
    made = indexed(shards, tmp_path / "made")
    place = tmp_path / "learnt"
    for stop in (3, None):
        found = run_ranks(_a_rank_learns, tmp_path, shards, place, 30, stop)
        assert [level for level, _ in found] == ["streamed"] * 2
        assert indexes(place).items() <= made.items()
    assert indexes(place) == made
    streamed = {key for _, keys in found for key in keys}
    found = run_ranks(_a_rank_learns, tmp_path, shards, place, None, None)
    assert [level for level, _ in found] == ["indexed"] * 2
    (_, first), (_, second) = found
    assert len(first) == len(second)
    assert set(first + second) == streamed
    assert len(first + second) - len(streamed) < 2  # steps are equal, so a sample may fill the last one
