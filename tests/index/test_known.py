"""What img2dataset, open_clip and wids leave beside shards is used."""

import decimal
import json

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streampipe as sp
from streampipe.counters import counters
from streampipe.index.known import known_counts
from streampipe.source import Source
from streampipe.urls import ShardList
from tests.data import shard, write_shards


def test_columns_of_img2datasets_parquet_are_the_indexs(tmp_path):
    rows = [(f"{i:09d}", {"txt": "x", "json": json.dumps({"n": i})}) for i in (0, 2, 3)]
    (tmp_path / "00000.tar").write_bytes(shard(rows))
    table = {
        "key": [f"{i:09d}" for i in range(4)],
        "status": ["success", "failed_to_download", "success", "success"],
        "similarity": [0.1, None, 0.5, 0.9],
        "n": [9, 9, 9, 9],
    }
    pq.write_table(pa.table(table), tmp_path / "00000.parquet")
    before = (tmp_path / "00000.parquet").read_bytes()
    kept = [each["__key__"] for each in sp.stream(str(tmp_path)).where("similarity > 0.3 and n > 0")]
    assert kept == ["000000002", "000000003"]
    assert (tmp_path / "00000.parquet").read_bytes() == before
    (tmp_path / "00000.parquet").write_bytes(b"PAR1")
    (tmp_path / "00000.tar").touch()
    before = counters.get("beside shards", "files of other tools passed over")
    assert len(list(sp.stream(str(tmp_path)))) == 3
    assert counters.get("beside shards", "files of other tools passed over") == before + 1


def write_damaged(path, what):
    table = pa.table({"key": ["a"], "n": [1]})
    if what == "unfinished":
        path.write_bytes(b"PAR1\x15\x04")
    elif what == "keys of another kind":
        pq.write_table(pa.table({"key": pa.array([[1, 2]]), "n": [1]}), path)
    elif what == "values of other kinds":
        columns = {"key": ["a"], "n": [[1]], "b": [b"x"], "o": [{"x": 1}], "d": [decimal.Decimal(1)]}
        pq.write_table(pa.table(columns), path)
    elif what == "a status that is a number":
        pq.write_table(table.append_column("status", pa.array([3])), path)
    elif what == "no rows":
        pq.write_table(table.slice(0, 0), path)
    elif what == "a column twice":
        pq.write_table(pa.Table.from_arrays([table["key"], table["n"], table["n"]], ["key", "n", "n"]), path)
    else:
        value = pa.DictionaryArray.from_arrays(pa.array([0] * 4096, pa.int32()), pa.array(["x" * (1 << 20)]))
        pq.write_table(pa.table({"key": value}), path, compression="zstd", store_schema=False)


@pytest.mark.parametrize("tier", ["planned", "sequential"])
@pytest.mark.parametrize(
    "what",
    [
        "unfinished",
        "keys of another kind",
        "values of other kinds",
        "a status that is a number",
        "no rows",
        "a column twice",
        "a bomb",
    ],
)
def test_a_parquet_of_others_never_stops_a_sound_shard(tmp_path, what, tier):
    (tmp_path / "0.tar").write_bytes(shard([("a", {"txt": "x"})]))
    write_damaged(tmp_path / "0.parquet", what)
    assert [each["__key__"] for each in sp.stream(str(tmp_path), tier=tier).where("n > 3 or key == 'a'")] == ["a"]


@pytest.mark.parametrize(
    "content",
    ["{", "[1]", '{"00000.tar": "many", "00001.tar": 4}', '{"00000.tar": -1, "00001.tar": 1}', "\x80", "[" * 100_000],
)
@pytest.mark.parametrize("name", ["sizes.json", "shardindex.json", "00000_stats.json"])
def test_totals_of_others_that_are_odd_are_passed_over(tmp_path, name, content):
    write_shards(tmp_path, [6, 4])
    shards = ShardList([str(tmp_path / "{00000..00001}.tar")])
    texts = [content]
    if name == "shardindex.json":
        texts = [content, f'{{"shardlist": {content}}}', '{"shardlist": [{"url": "00000.tar"}, 3]}']
    if name == "00000_stats.json":
        texts = [content, '{"successes": null}', '{"successes": "6"}', '{"successes": NaN}']
    for text in texts:
        (tmp_path / name).write_text(text, errors="surrogateescape")
        assert known_counts(shards, Source()) is None


FACTS = {
    "open_clip": {"sizes.json": {"00000.tar": 6, "00001.tar": 4}},
    "wids": {
        "shardindex.json": {
            "wids_version": 1,
            "shardlist": [{"url": f"x/0000{i}.tar", "nsamples": 6 - 2 * i} for i in (0, 1)],
        }
    },
    "img2dataset": {"00000_stats.json": {"successes": 6, "count": 9}, "00001_stats.json": {"successes": 4}},
}


@pytest.mark.parametrize("tool", FACTS)
def test_known_totals_give_ranks_equal_steps_without_an_index(tmp_path, tool):
    write_shards(tmp_path, [6, 4])
    store = fsspec.filesystem("memory")
    for path in tmp_path.iterdir():
        store.pipe_file(f"/{tool}/{path.name}", path.read_bytes())
    for name, content in FACTS[tool].items():
        store.pipe_file(f"/{tool}/{name}", json.dumps(content).encode())
    url = f"memory://{tool}/{{00000..00001}}.tar"
    assert known_counts(ShardList([url]), Source()).tolist() == [6, 4]
    loaders = [sp.stream(url).batch(2).loader(rank=rank, world_size=2) for rank in range(2)]
    assert [len(loader) for loader in loaders] == [3, 3]
    got = [[key for batch in loader for key in batch["__key__"]] for loader in loaders]
    assert sorted(got[0] + got[1]) == [f"{s:03d}{i:04d}" for s, n in ((0, 6), (1, 4)) for i in range(n)]
    with pytest.raises(sp.ConfigError, match="steps_per_epoch=n"):
        next(iter(sp.stream(url).filter(len).loader(rank=0, world_size=2)))


def test_totals_that_do_not_know_every_shard_are_not_used(tmp_path):
    write_shards(tmp_path, [6, 4])
    shards = ShardList([str(tmp_path / "{00000..00001}.tar")])
    assert known_counts(shards, Source()) is None
    (tmp_path / "sizes.json").write_text('{"00000.tar": 6}')
    assert known_counts(shards, Source()) is None
    (tmp_path / "sizes.json").write_text("{")
    assert known_counts(shards, Source()) is None


def test_totals_are_those_of_each_shards_own_folder(tmp_path, monkeypatch):
    for name, counts in (("a", [3, 2]), ("b", [5, 4])):
        (tmp_path / name).mkdir()
        write_shards(tmp_path / name, counts)
        sizes = {f"{i:05d}.tar": count for i, count in enumerate(counts)}
        (tmp_path / name / "sizes.json").write_text(json.dumps(sizes))
    both = [f"{tmp_path}/b/00001.tar", f"{tmp_path}/a/{{00000..00001}}.tar", f"{tmp_path}/b/00000.tar"]
    assert known_counts(ShardList(both), Source()).tolist() == [4, 3, 2, 5]
    monkeypatch.chdir(tmp_path / "a")
    assert known_counts(ShardList(["{00000..00001}.tar"]), Source()).tolist() == [3, 2]
    (tmp_path / "b" / "sizes.json").unlink()
    assert known_counts(ShardList(both), Source()) is None


def test_totals_of_two_shards_of_one_name_are_of_neither(tmp_path):
    shards = [{"url": f"{name}/00000.tar", "nsamples": number} for name, number in (("x", 6), ("y", 4))]
    (tmp_path / "shardindex.json").write_text(json.dumps({"shardlist": shards}))
    assert known_counts(ShardList([f"{tmp_path}/00000.tar"]), Source()) is None
