"""What img2dataset, open_clip and wids leave beside shards is used."""

import json

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streampipe as sp
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
    with pytest.raises(sp.IndexMismatch, match="00000.parquet is damaged"):
        list(sp.stream(str(tmp_path)))


FACTS = {
    "open_clip": {"sizes.json": {"00000.tar": 6, "00001.tar": 4}},
    "wids": {
        "shardindex.json": {"wids_version": 1, "shardlist": [{"url": f"x/0000{i}.tar", "nsamples": 6 - 2 * i} for i in (0, 1)]}
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
        f"{s:03d}{i:04d}" for s, n in ((0, FIRST[tool]), (1, 10 - FIRST[tool])) for i in range(n)
    )
    with pytest.raises(sp.ConfigError, match="steps_per_epoch=n"):
        next(iter(sp.stream(url).filter(len).loader(rank=0, world_size=2)))


def test_totals_that_do_not_know_every_shard_are_not_used(tmp_path):
    write_shards(tmp_path, [6, 4])
    shards = ShardList([str(tmp_path / "{00000..00001}.tar")])
    assert known_counts(shards, Source()) is None
    (tmp_path / "sizes.json").write_text('{"00000.tar": 6}')
    assert known_counts(shards, Source()) is None
    (tmp_path / "sizes.json").write_text("{")
    with pytest.raises(sp.IndexMismatch, match=r"sizes.json is no JSON"):
        known_counts(shards, Source())
