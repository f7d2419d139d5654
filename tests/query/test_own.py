"""Facts of the user's own as columns for ``where``."""

import json
import pickle

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import streampipe as sp
from streampipe.query.own import _Ranged
from streampipe.source import Source
from streampipe.testing import FaultServer
from tests.data import shard

SCORES = {f"{i:04d}": i / 10 for i in range(30) if i % 7}
TEXTS = {key: f"kind {int(key) % 3}" for key in SCORES}


@pytest.fixture
def shards(tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    for number in range(3):
        keys = [f"{i:04d}" for i in range(10 * number, 10 * number + 10)]
        rows = [(key, {"txt": "x", "json": json.dumps({"n": int(key), "score": 9})}) for key in keys]
        (folder / f"{number}.tar").write_bytes(shard(rows))
    return folder


@pytest.fixture(params=["parquet", "csv", "jsonl"])
def facts(request, tmp_path):
    keys = sorted(SCORES, reverse=True)
    rows = [{"key": key, "score": SCORES[key], "kind": TEXTS[key], "other": [1]} for key in [*keys, "not there"[:4]]
            if key in SCORES]  # fmt: skip
    path = tmp_path / f"scores.{request.param}"
    if request.param == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path
    table = pa.Table.from_pylist(rows)
    if request.param == "parquet":
        pq.write_table(table, path)
    else:
        pyarrow.csv.write_csv(table.drop_columns(["other"]), path)
    return path


def keys(pipe):
    return [each["__key__"] for each in pipe]


def keys_where(shards, condition, facts):
    try:
        return keys(sp.stream(shards).where(condition, facts=facts))
    except sp.StageError:  # it dropped every one
        return []


@pytest.mark.parametrize("tier", ["planned", "sequential"])
@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        ("score > 1.5", lambda key: SCORES.get(key, 0) > 1.5),
        ("score > 0.5 and kind == 'kind 1'", lambda key: SCORES.get(key, 0) > 0.5 and TEXTS[key] == "kind 1"),
        ("n < 12 and score >= 0", lambda key: int(key) < 12 and key in SCORES),
    ],
)
def test_own_facts_answer_in_both_tiers_and_come_before_others(shards, facts, tier, condition, wanted):
    pipe = sp.stream(str(shards), tier=tier).where(condition, facts=facts)
    assert keys(pickle.loads(pickle.dumps(pipe))) == [f"{i:04d}" for i in range(30) if wanted(f"{i:04d}")]


@pytest.mark.parametrize("tier", ["planned", "sequential"])
def test_a_sample_without_a_row_lacks_the_value(shards, facts, tier):
    stream = sp.stream(str(shards), tier=tier)
    lacking = [f"{i:04d}" for i in range(0, 30, 7)]
    assert set(lacking) <= set(keys(stream.where("score > 2", "keep", facts=facts)))
    with pytest.raises(sp.ConfigError, match="sample '0000' lacks a value"):
        keys(stream.where("score > 2", "error", facts=facts))


def test_workers_and_other_keys_and_the_state(shards, tmp_path, warm):
    table = pa.table({"id": list(SCORES), "score": pa.array(SCORES.values(), pa.float32())})
    pq.write_table(table, tmp_path / "by_id.parquet")
    pipe = sp.stream(str(shards)).where("score > 2", facts=tmp_path / "by_id.parquet", on="id").batch(4)
    found = [key for batch in pipe.loader(num_workers=2, multiprocessing_context=warm) for key in batch["__key__"]]
    assert found == [f"{i:04d}" for i in range(21, 30) if i % 7]
    loader, other = pipe.loader(), sp.stream(str(shards)).where("n > 22").batch(4).loader()
    next(iter(loader))
    with pytest.raises(sp.ConfigError, match="facts=by_id.parquet on=id"):
        other.load_state_dict(loader.state_dict())
        list(other)


def test_only_the_wanted_columns_of_a_parquet_file_are_read(shards, tmp_path):
    big = pa.table({"key": list(SCORES), "score": list(SCORES.values()), "image": [bytes(100_000)] * len(SCORES)})
    pq.write_table(big, tmp_path / "big.parquet", use_dictionary=False, compression="none")
    read = []

    class Counting(_Ranged):
        def read(self, size=-1):
            data = super().read(size)
            read.append(len(data))
            return data

    file = pq.ParquetFile(pa.PythonFile(Counting(str(tmp_path / "big.parquet"), Source()), mode="r"))
    file.read(["key", "score"])
    assert sum(read) < 100_000
    assert len(keys(sp.stream(str(shards)).where("score > 2", facts=tmp_path / "big.parquet"))) == 7


def test_texts_are_those_that_are_written_in_the_file(shards, tmp_path):
    words = ["NA", "nan", "null", "", "2024-01-01", "12:30:00"]
    rows = [(f"{i:04d}", word, i) for i, word in enumerate(words)]
    (tmp_path / "f.csv").write_text(
        "key,word,n\n" + "".join(f"{key},{word},{n}\n" for key, word, n in rows) + "0006,x,NA\n"
    )
    found = [each for word in words if (each := keys_where(shards, f"word == {word!r}", tmp_path / "f.csv"))]
    assert found == [[f"{i:04d}"] for i in range(6) if words[i]]
    assert keys_where(shards, "word is None and n == 3", tmp_path / "f.csv") == ["0003"]
    assert keys_where(shards, "word == 'x' and n is None", tmp_path / "f.csv") == ["0006"]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_what_looks_like_a_date_is_a_text_in_keys_and_columns(tmp_path, kind):
    days = ["2024-01-01", "2024-01-02"]
    (tmp_path / "0.tar").write_bytes(shard([(day, {"txt": "x"}) for day in days]))
    path = tmp_path / f"f.{kind}"
    lines = [f"{day},{day}" for day in days] if kind == "csv" else [json.dumps({"key": d, "day": d}) for d in days]
    path.write_text("\n".join(["key,day", *lines] if kind == "csv" else lines) + "\n")
    assert keys_where(tmp_path / "0.tar", "day >= '2024-01-02'", path) == ["2024-01-02"]


@pytest.mark.parametrize("name", ["t", "key"])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_two_columns_of_one_name_are_refused_where_they_are_asked_for(shards, tmp_path, name, kind):
    path = tmp_path / f"f.{kind}"
    names = ["key", "t", "u", name]
    if kind == "csv":
        path.write_text(",".join(names) + "\n0001,1,2,3\n")
    else:
        pq.write_table(
            pa.Table.from_arrays([pa.array(["0001"]), *(pa.array([i]) for i in range(3))], names=names), path
        )
    with pytest.raises(sp.IndexMismatch, match=f"f.{kind} has 2 columns '{name}'"):
        keys(sp.stream(shards).where("t > 0", facts=path))
    if name == "t":
        assert keys_where(shards, "u > 0", path) == ["0001"]


def test_numbers_of_64_bits_without_a_sign_are_read(shards, tmp_path):
    path = tmp_path / "f.parquet"
    pq.write_table(pa.table({"key": ["0001", "0002"], "n": pa.array([1, 1 << 63], pa.uint64())}), path)
    assert keys_where(shards, "n > 1", path) == ["0002"]


def test_a_line_may_be_of_any_length(shards, tmp_path):
    path = tmp_path / "f.jsonl"
    path.write_text("".join(json.dumps({"key": f"{i:04d}", "n": i, "t": "x" * (i << 20)}) + "\n" for i in range(3)))
    assert keys_where(shards, "len(t) > 0", path) == ["0001", "0002"]


def test_what_cannot_be_joined_is_refused(shards, tmp_path):
    stream = sp.stream(str(shards))
    pq.write_table(pa.table({"id": ["a"], "score": [1]}), tmp_path / "no_key.parquet")
    pq.write_table(pa.table({"key": ["a", "a"], "score": [1, 2]}), tmp_path / "twice.parquet")
    pq.write_table(pa.table({"key": ["a"], "score": [[1]]}), tmp_path / "list.parquet")
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1 no")
    for name, kind, words in [
        ("no_key.parquet", sp.IndexMismatch, "has no column 'key' for the keys .it has id, score.; name it in on="),
        ("twice.parquet", sp.DuplicateKey, "has key 'a' twice"),
        ("list.parquet", sp.IndexMismatch, "column 'score' is list"),
        ("damaged.parquet", sp.IndexMismatch, "cannot be read"),
        ("gone.parquet", sp.ShardMissing, "is not there: it is the file of where"),
    ]:
        with pytest.raises(kind, match=words):
            keys(stream.where("score > 1", facts=tmp_path / name))
    with pytest.raises(sp.ConfigError, match="ends in .parquet, .csv"):
        stream.where("score > 1", facts="scores.xlsx")
    with pytest.raises(sp.ConfigError, match="column of keys"):
        stream.where("score > 1", facts="scores.csv", on="")


@pytest.fixture
def many(tmp_path, monkeypatch):
    """So many shards that answers about them are kept."""
    monkeypatch.setenv("STREAMPIPE_CACHE", str(tmp_path / "own"))
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(70):
        (folder / f"{number:05d}.tar").write_bytes(shard([(f"{number:04d}", {"txt": "x"})]))
    return folder


def scores(path, count):
    pq.write_table(pa.table({"key": [f"{i:04d}" for i in range(70)], "score": [i < count for i in range(70)]}), path)
    return path


def test_an_answer_of_a_file_that_was_written_anew_is_not_the_old_one(many, tmp_path):
    for count in (10, 40, 3):
        pipe = sp.stream(str(many), seed=0).where("score", facts=scores(tmp_path / "scores.parquet", count))
        assert len(pipe) == len(keys(pipe)) == count


def test_files_of_one_name_in_two_folders_are_two(many, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, other = scores(tmp_path / "a" / "scores.parquet", 10), scores(tmp_path / "b" / "scores.parquet", 40)
    assert [len(sp.stream(str(many)).where("score", facts=each)) for each in (one, other)] == [10, 40]


@pytest.mark.parametrize("versions", [True, False])
def test_a_remote_file_that_was_replaced_is_asked_anew(many, tmp_path, versions, monkeypatch):
    monkeypatch.setattr("streampipe.source.store.Pin.mark", property(lambda pin: pin.version if versions else None))
    with FaultServer() as server:
        for count in (10, 40):
            server.put("scores.csv", ("key,score\n" + "".join(f"{i:04d},{i < count}\n" for i in range(70))).encode())
            assert len(sp.stream(str(many)).where("score", facts=server.url("scores.csv"))) == count


def test_a_state_and_a_written_job_know_what_was_in_the_file(shards, tmp_path):
    path = scores(tmp_path / "scores.parquet", 20)

    def pipe():
        return sp.stream(str(shards)).where("score", facts=path)

    def resumed(state):
        loader = pipe().batch(2).loader()
        loader.load_state_dict(state)
        return list(loader)

    loader = pipe().batch(2).loader()
    next(iter(loader))
    state = loader.state_dict()
    pipe().write(f"{tmp_path}/out/{{:05d}}.tar", progress=False)
    path.write_bytes(path.read_bytes())  # the same once more, at another time
    assert len(resumed(state)) == 9
    pipe().write(f"{tmp_path}/out/{{:05d}}.tar", progress=False)
    pq.write_table(
        pa.table({"key": list(reversed([f"{i:04d}" for i in range(30)])), "score": [i < 20 for i in range(30)]}), path
    )
    with pytest.raises(sp.ConfigError, match="facts=scores.parquet"):
        resumed(state)
    with pytest.raises(sp.OutputBusy, match="belongs to another job"):
        pipe().write(f"{tmp_path}/out/{{:05d}}.tar", progress=False)


def test_a_file_that_is_written_anew_between_plan_and_reading_is_refused(shards, tmp_path):
    pipe = sp.stream(str(shards)).where("score", facts=scores(tmp_path / "scores.parquet", 20))
    planned = pickle.loads(pickle.dumps(pipe)) if len(pipe) else None
    scores(tmp_path / "scores.parquet", 5)
    with pytest.raises(sp.ShardChanged, match="was written anew since the job"):
        list(planned)


def test_to_show_a_pipeline_its_file_of_facts_is_not_read(shards):
    assert "facts=not_there.csv on=key" in repr(sp.stream(str(shards)).where("a > 1", facts="not_there.csv"))


def test_a_file_that_is_replaced_while_it_is_read_is_an_error_then_and_read_anew_when_it_is_opened_next(tmp_path):
    def data(first):
        pq.write_table(pa.table({"key": [f"{i}" for i in range(first, first + 9)]}), tmp_path / "facts.parquet")
        return (tmp_path / "facts.parquet").read_bytes()

    with FaultServer({"facts.parquet": data(0)}) as server:
        source = Source()
        opened = _Ranged(server.url("facts.parquet"), source)
        opened.read(10)
        server.put("facts.parquet", data(1000))
        with pytest.raises(sp.ShardChanged):
            opened.read(10)
        found = pq.read_table(_Ranged(server.url("facts.parquet"), source))
    assert found["key"].to_pylist() == [f"{i}" for i in range(1000, 1009)]
