"""``join``: sidecars of every format, planned and sequential, remote, damaged and missing."""

import gzip
import io
import json
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streampipe as sp
from streampipe.cli import main
from streampipe.context import Run
from streampipe.counters import counters
from streampipe.engine.indexed import IndexedEngine
from streampipe.index.beside import Beside
from streampipe.index.sidecar import Place, read
from streampipe.source import Source
from streampipe.testing import FaultServer, Status
from streampipe.unwanted import Unwanted, asking, is_unwanted
from tests.data import shard
from tests.laws import check_cover, check_epoch_order, engine_of

SHARDS, EACH = 6, 5
KEYS = [f"{number}{i}" for number in range(SHARDS) for i in range(EACH)]


def row(key):
    return {"recap": f"new {key}", "score": int(key) / 10, "vector": [int(key), 0.5]}


def as_parquet(keys):
    rows = [row(key) for key in keys]
    vectors = pa.array([each["vector"] for each in rows], pa.list_(pa.float32()))
    columns = {"recap": [each["recap"] for each in rows], "score": [each["score"] for each in rows]}
    table = pa.table({**columns, "key": list(keys), "vector": vectors})
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def as_tar(keys):
    fields = [
        (key, {"recap": row(key)["recap"], "score": str(row(key)["score"]), "vector": b"\0" + key.encode()})
        for key in keys
    ]
    return shard(fields)


FORMATS = {
    "json": lambda keys: json.dumps({key: row(key) for key in keys}).encode(),
    "rows.json": lambda keys: json.dumps([{"key": key, **row(key)} for key in keys]).encode(),
    "jsonl": lambda keys: "\n".join(json.dumps({"__key__": key, **row(key)}) for key in keys).encode() + b"\n\n",
    "parquet": as_parquet,
    "recap.tar": as_tar,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("joined")
    for number in range(SHARDS):
        keys = KEYS[number * EACH : (number + 1) * EACH]
        samples = [(key, {"txt": f"text {key}", "json": json.dumps({"uid": f"u{key}"})}) for key in keys]
        (folder / f"{number}.tar").write_bytes(shard(samples))
        (folder / "recap").mkdir(exist_ok=True)
        for name, make in FORMATS.items():
            (folder / "recap" / f"{number}.{name}").write_bytes(make(keys))
    for name, make in FORMATS.items():
        (folder / "recap" / f"all.{name}").write_bytes(make(KEYS))
    return folder


def urls(folder):
    return str(folder / "{0..5}.tar")


def reads():
    return counters.get("join", "sidecars read")


@pytest.mark.parametrize("tier", [None, "sequential"])
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_fields_once_a_shard(folder, name, tier):
    before = reads()
    pipe = sp.stream(urls(folder), shuffle=7, tier=tier).join(f"{folder}/recap/{{name}}.{name}")
    found = {sample["__key__"]: sample for sample in pipe}
    assert sorted(found) == KEYS
    for key, sample in found.items():
        assert sample["txt"] == f"text {key}".encode()
        if name.endswith("tar"):
            assert sample["recap"] == f"new {key}".encode()
            assert sample["vector"] == b"\0" + key.encode()
        else:
            assert (sample["recap"], sample["score"]) == (f"new {key}", int(key) / 10)
            assert type(sample["score"]) is float
            assert sample["vector"].tolist() == [int(key), 0.5]
            assert sample["vector"].dtype == (np.float32 if name == "parquet" else np.float64)
    assert reads() - before == SHARDS if tier is None else reads() - before < 3 * SHARDS


def test_it_is_planned_and_a_batch_stacks_arrays(folder):
    pipe = sp.stream(urls(folder), shuffle=True).join(f"{folder}/recap/{{name}}.parquet").decode().batch(5)
    assert isinstance(engine_of(pipe), IndexedEngine)
    before = reads()
    for workers in (0, 2):
        rows = list(pipe.loader(workers))
        assert [batch["vector"].shape for batch in rows] == [(5, 2)] * 6
        assert sorted(key for batch in rows for key in batch["__key__"]) == KEYS
    # One read for each opening of a shard, in each process that opens it.
    assert SHARDS * 2 <= reads() - before <= SHARDS * 3


def test_a_plan_that_mixes_many_shards_reads_each_sidecar_once(tmp_path):
    keys = [f"{number:03d}{i}" for number in range(90) for i in range(3)]
    for number in range(90):
        mine = keys[number * 3 : number * 3 + 3]
        (tmp_path / f"{number:03d}.tar").write_bytes(shard([(key, {"txt": key}) for key in mine]))
        (tmp_path / f"{number:03d}.json").write_text(json.dumps({key: {"n": int(key)} for key in mine}))
    pipe = sp.stream(str(tmp_path), shuffle=20).join("{stem}.json").batch(30)
    before = reads(), counters.get("reading", "shards opened")
    batches = list(pipe.loader())
    assert sorted(n for batch in batches for n in batch["n"]) == sorted(map(int, keys))
    assert len({key[:3] for key in batches[0]["__key__"]}) > 10
    assert reads() - before[0] == 90 == counters.get("reading", "shards opened") - before[1]


def test_a_sidecar_is_let_go_with_its_shard_and_read_again_in_another_epoch():
    loaded = []
    beside = Beside()

    def wanted(url, epoch, open_shards=0):
        run = Run(stage="join", open_shards=open_shards)
        return beside.held(url, lambda url: loaded.append(url) or url, epoch, run, "sidecars read")

    for url in "aabbccc":
        assert wanted(url, 0) == url
    assert loaded == ["a", "b", "c"]
    wanted("a", 1)
    assert len(loaded) == 4
    assert len(beside._now.held) == 2
    for _ in range(30):  # shards that take turns: what is held grows until nothing is read twice
        for url in "defghijk":
            wanted(url, 1)
    assert len(loaded) < 4 + 8 * 4
    fresh = Beside()
    loaded.clear()
    beside = fresh
    for _ in range(5):
        for url in range(100):
            wanted(str(url), 0, open_shards=100)
    assert len(loaded) == 100
    assert pickle.loads(pickle.dumps(beside))._now is None


def test_files_of_many_shards_are_loaded_at_once_and_each_once():
    beside, run = Beside(), Run(stage="join", open_shards=20)
    meet = threading.Barrier(4)
    loaded = []

    def load(url):
        meet.wait(30)  # breaks where fewer than four are loaded at once
        loaded.append(url)
        return url

    beside.together("abcdabcd", load, 0, run, "sidecars read")
    assert sorted(loaded) == list("abcd")
    beside.together("abcd", load, 0, run, "sidecars read")
    assert [beside.held(url, load, 0, run, "sidecars read") for url in "abcd"] == list("abcd")
    assert len(loaded) == 4


def test_threads_that_want_the_same_file_wait_for_one_load_and_a_failed_one_is_tried_again():
    beside, run = Beside(), Run(stage="join")
    begun, go = threading.Event(), threading.Event()
    loaded = []

    def load(url):
        loaded.append(url)
        begun.set()
        assert go.wait(30)
        raise sp.SourceUnavailable("down")

    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(beside.held, "a", load, 0, run, "sidecars read") for _ in range(3)]
        assert begun.wait(30)
        go.set()
        assert all(isinstance(call.exception(30), sp.SourceUnavailable) for call in calls)
    assert 1 <= len(loaded) <= 3  # who comes after the failure tries again
    assert beside.held("a", lambda url: url, 0, run, "sidecars read") == "a"


def test_who_is_not_wanted_any_more_waits_for_no_file_and_takes_it_from_nobody_who_is():
    beside, run = Beside(), Run(stage="join")
    begun, over, go = threading.Event(), threading.Event(), threading.Event()

    def load(url):
        begun.set()
        go.wait()
        if is_unwanted()():
            raise Unwanted
        return url

    def held(check):
        with asking(check):
            return beside.held("a", load, 0, run, "sidecars read")

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(held, over.is_set)  # loads
        assert begun.wait(30)
        wanted, unwanted = pool.submit(held, lambda: False), pool.submit(held, over.is_set)
        over.set()
        try:
            assert isinstance(unwanted.exception(30), Unwanted)  # though the file does not come
        finally:
            go.set()
        assert isinstance(first.exception(30), Unwanted)
        assert wanted.result(30) == "a"


@pytest.mark.parametrize("name", FORMATS)
def test_one_file_for_all_shards_is_read_once(folder, name):
    before = reads()
    pipe = sp.stream(urls(folder)).join(f"{folder}/recap/all.{name}", columns="recap")
    found = {sample["__key__"]: sample["recap"] for sample in pipe}
    assert set(found) == set(KEYS)
    assert reads() - before == 1


def test_a_function_says_where_the_sidecar_is(folder):
    def beside(url):
        return url.replace(".tar", ".json").replace(f"{folder}", f"{folder}/recap") if "0.tar" not in url else None

    stream = sp.stream(urls(folder))
    with pytest.raises(sp.StageError, match="sample '00' of .*0.tar: its shard has no sidecar; say missing='keep'"):
        list(stream.join(beside))
    found = list(stream.join(beside, missing="keep", columns=["recap"]))
    assert [sample["recap"] for sample in found[:6]] == [None] * 5 + ["new 10"]
    assert len(list(stream.join(beside, missing="drop"))) == 25
    with pytest.raises(sp.ConfigError, match="name them in columns="):
        list(stream.join(beside, missing="keep"))
    with pytest.raises(sp.ConfigError, match="the function gave int"):
        list(stream.join(len))


def test_columns_can_be_chosen_and_renamed_and_prefixed(folder):
    stream = sp.stream(urls(folder))
    place = f"{folder}/recap/{{name}}."
    for name in FORMATS:
        first = next(iter(stream.join(place + name, columns={"long": "recap"}, prefix="x.")))
        assert [field for field in first if field.startswith("x.")] == ["x.long"]
        with pytest.raises(sp.IndexMismatch, match="has no column 'nothing'; it has recap, score"):
            list(stream.join(place + name, columns="nothing"))
    with pytest.raises(sp.ConfigError, match=r"sample '00' of .*: it has a field 'txt' already; say prefix="):
        list(stream.join(place + "json", columns={"txt": "recap"}))


@pytest.mark.parametrize("on", ["uid", ("id", "json.uid")])
def test_other_columns_can_be_joined_on(folder, tmp_path, on):
    name = on if isinstance(on, str) else on[0]
    rows = [{name: f"u{key}", "n": int(key)} for key in KEYS]
    (tmp_path / "all.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for pipe in (sp.stream(urls(folder)), sp.stream(urls(folder)).decode()):
        assert [each["n"] for each in pipe.join(tmp_path / "all.jsonl", on=on)] == [int(key) for key in KEYS]
    with pytest.raises(sp.StageError, match="it has no 'json.none' to join on"):
        list(sp.stream(urls(folder)).join(tmp_path / "all.jsonl", on=(name, "json.none")))


def test_a_damaged_json_that_is_joined_on_is_a_bad_sample(tmp_path):
    (tmp_path / "all.jsonl").write_text('{"uid": "a", "n": 1}')
    rows = [{"__key__": str(i), "__url__": "0.tar", "json": json} for i, json in enumerate((b"{", b'{"uid": "a"}'))]
    with pytest.raises(sp.DecodeError, match="stage 'join', sample '0' of 0.tar: field 'json': 1 bytes are no sound"):
        list(sp.from_iterable(rows).join(tmp_path / "all.jsonl", on="uid"))
    assert [s["n"] for s in sp.from_iterable(rows, on_error="skip").join(tmp_path / "all.jsonl", on="uid")] == [1]


def test_rows_that_are_no_objects_are_a_column(folder, tmp_path):
    (tmp_path / "all.json").write_text(json.dumps({key: f"new {key}" for key in KEYS}))
    first = next(iter(sp.stream(urls(folder)).join(tmp_path / "all.json", columns={"recap": "value"})))
    assert first["recap"] == "new 00"


@pytest.mark.parametrize("name", ["json", "jsonl", "parquet", "recap.tar"])
def test_missing_rows(folder, tmp_path, name):
    (tmp_path / f"all.{name}").write_bytes(FORMATS[name](KEYS[1:]))
    stream, place = sp.stream(urls(folder)), tmp_path / f"all.{name}"
    with pytest.raises(sp.StageError, match=r"sample '00' of .*all.* has no row for '00' \(it has '01', '02'"):
        list(stream.join(place))
    dropped = counters.get("join", "without a row (sample dropped)")
    assert [each["__key__"] for each in stream.join(place, missing="drop")] == KEYS[1:]
    assert counters.get("join", "without a row (sample dropped)") - dropped == 1
    kept = counters.get("join", "without a row (kept)")
    first = next(iter(stream.join(place, missing="keep")))
    assert (first["recap"], first["score"]) == (None, None)
    assert counters.get("join", "without a row (kept)") - kept == 1
    skipping = sp.stream(urls(folder), on_error="skip").join(place)
    assert [each["__key__"] for each in skipping] == KEYS[1:]


DAMAGE = {
    "twice.json": (b'{"00": 1, "01": {"a": 1}, "00": 2}', sp.DuplicateKey, "has key '00' twice"),
    "rows.json": (b'[{"key": "00"}, {"key": "00"}]', sp.DuplicateKey, "has key '00' twice"),
    "a.jsonl": (b'{"key": 0}\n{"key": "0"}', sp.DuplicateKey, "has key '0' twice"),
    "a.parquet": (as_parquet(["1", "1"]), sp.DuplicateKey, "has key '1' twice"),
    "a.tar": (as_tar(["1", "2"]), sp.StageError, "has no row for '00'"),
    "cut.tar": (as_tar(["1", "2"])[:700], sp.TruncatedShard, "cut.tar"),
    "cut.json": (b'{"00": ', sp.IndexMismatch, "is no sound json"),
    "cut.jsonl": (b'{"key": "00"}\n{"key"', sp.IndexMismatch, "is no sound jsonl"),
    "cut.parquet": (as_parquet(["1"])[:-9], sp.IndexMismatch, "cut.parquet is damaged .*fetch or make it again"),
    "none.jsonl": (b'{"id": "00"}', sp.IndexMismatch, r"has no column 'key' for the keys \(it has id\)"),
    "flat.json": (b"3", sp.IndexMismatch, "neither an object by key nor a list"),
    "texts.json": (b'["a"]', sp.IndexMismatch, "its rows are no objects but str"),
    "a.txt": (b"", sp.ConfigError, "ends in none of .tar"),
    "ragged.csv": (b"key,a\n00,1,2", sp.IndexMismatch, "is no sound csv: line 2 has 3 values, the first line names 2"),
    "names.csv": (b"key,a,a\n00,1,2", sp.IndexMismatch, "two of its columns have one name"),
    "quoted.csv": (b'key,a\n00,"1"2', sp.IndexMismatch, "is no sound csv: line 2"),
    "cut.json.gz": (gzip.compress(b"{}")[:-3], sp.IndexMismatch, "too early"),
    "nul.json": (b'{"00": "\0"}', sp.IndexMismatch, "NUL"),
}


@pytest.mark.parametrize("name", DAMAGE)
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_damaged_sidecars_end_the_run_with_a_reason(folder, tmp_path, name, on_error):
    data, error, words = DAMAGE[name]
    (tmp_path / name).write_bytes(data)
    if on_error == "skip" and error is sp.StageError:
        error, words = sp.TooManyErrors, "join|skipped"
    stream = sp.stream(urls(folder), on_error=sp.ErrorPolicy(on_error, max_in_row=3) if on_error == "skip" else "raise")
    with pytest.raises(error, match=words):
        list(stream.join(tmp_path / name))


def test_a_sidecar_that_is_not_there_is_an_error_that_says_so(folder):
    with pytest.raises(sp.ShardMissing, match=r"0.none.json is not there: it is the sidecar of .*0.tar; make it"):
        list(sp.stream(urls(folder)).join("{stem}.none.json"))


def test_a_sidecar_is_read_within_bounds(folder, tmp_path):
    limits = sp.Limits(max_index_bytes=10_000)
    for name in ("parquet", "jsonl"):
        (tmp_path / f"all.{name}").write_bytes(FORMATS[name]([f"{i:05d}" for i in range(2000)]))
        with pytest.raises(sp.StreampipeError, match="10000"):
            list(sp.stream(urls(folder), limits=limits).join(tmp_path / f"all.{name}"))


def test_signed_urls_have_no_template():
    with pytest.raises(sp.ConfigError, match=r"https://h/0.tar has a query.* give a function"):
        Place("{stem}.json")("https://h/0.tar?sig=abc")
    assert Place("all.json")("https://h/0.tar?sig=abc") == "all.json"


def test_templates():
    assert Place("{folder}-recap/{name}.json")("s3://b/x/0.tar.gz") == "s3://b/x-recap/0.json"
    assert Place("{folder}/{name}.json")("0.tar") == "./0.json"
    for wrong, words in (("{shard}.json", "not {shard}"), ("{stem.json", "is no template"), (3, "takes a template")):
        with pytest.raises(sp.ConfigError, match=words):
            Place(wrong)


def test_remote_sidecars_are_read_through_the_streams_source(folder):
    store = fsspec.filesystem("memory")
    for path in [*folder.glob("*.tar"), *(folder / "recap").glob("?.json")]:
        store.pipe_file(f"/joined/{path.name}", path.read_bytes())
    for tier in (None, "sequential"):
        pipe = sp.stream("memory://joined/{0..5}.tar", tier=tier).join("{stem}.json")
        assert [each["recap"] for each in pipe] == [f"new {key}" for key in KEYS]
    main(["index", "memory://joined/{0..5}.tar"])
    before = reads()
    pipe = sp.stream("memory://joined/{0..5}.tar", tier="planned", shuffle=True).join("{stem}.json").batch(10)
    found = {key: recap for batch in pipe for key, recap in zip(batch["__key__"], batch["recap"], strict=True)}
    assert found == {key: f"new {key}" for key in KEYS}
    assert reads() - before == SHARDS


def test_sidecars_over_http_are_read_once_with_the_streams_headers(folder):
    objects = {path.name: path.read_bytes() for path in folder.glob("?.tar")}
    objects |= {path.name: path.read_bytes() for path in (folder / "recap").glob("[0-4].json")}
    with FaultServer(objects) as server:
        options = {"headers": {"X-Token": "secret"}}
        network = sp.Network(tries=2, first_wait=0.01, stall=5)
        stream = sp.stream([server.url(f"{i}.tar") for i in range(5)], storage_options=options, network=network)
        server.script("2.json", Status(503))
        assert [each["recap"] for each in stream.join("{stem}.json")] == [f"new {key}" for key in KEYS[:25]]
        asked = [request for request in server.requests if request.path.endswith(".json")]
        assert {request.headers["x-token"] for request in asked} == {"secret"}
        assert sorted(request.path for request in asked if request.status == 200) == [f"/{i}.json" for i in range(5)]
        with pytest.raises(sp.ShardMissing, match=r"/5.json is not there: it is the sidecar of http.*/5.tar"):
            list(sp.stream(server.url("5.tar"), network=network).join("{stem}.json"))


def test_the_laws_hold_for_a_pipeline_with_sidecars_and_captions(folder):
    def pipeline():
        pipe = sp.stream(urls(folder), shuffle=7).join(f"{folder}/recap/{{name}}.json")
        return pipe.caption(("recap", "txt"), weights=(1, 1), dropout=0.3, tags=sp.Tags(shuffle=True))

    pipe = pipeline()
    for world_size, workers in ((1, 1), (2, 1), (2, 3)):
        check_cover(pipe, KEYS, world_size, workers)
    check_epoch_order(pipe)

    def batches(world_size, workers):
        size = 6 // world_size
        ranks = [pipeline().batch(size).loader(workers, rank=rank, world_size=world_size) for rank in range(world_size)]
        steps = zip(*ranks, strict=True)
        return [{key: text for each in step for key, text in pairs(each)} for step in steps]

    def pairs(batch):
        return zip(batch["__key__"], batch["caption"], strict=True)

    assert len(batches(1, 0)) == 5
    assert batches(1, 0) == batches(2, 0) == batches(3, 2)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["json", "rows.json", "jsonl", "recap.tar"]), st.data())
def test_damaged_sidecars_are_errors_of_ours_or_rows(name, data):
    whole = FORMATS[name](["1", "2", "3"])
    if data.draw(st.booleans()):
        broken = whole[: data.draw(st.integers(0, len(whole)))]
    else:
        at = data.draw(st.integers(0, len(whole) - 1))
        broken = whole[:at] + data.draw(st.binary(max_size=4)) + whole[at + data.draw(st.integers(0, 4)) :]
    url = f"memory://broken/all.{name}"
    fsspec.filesystem("memory").pipe_file(f"/broken/all.{name}", broken)
    try:
        rows = read(url, "0.tar", Source(), "key", None, sp.Limits())
        assert isinstance(rows.get("1"), (dict, type(None)))
    except sp.StreampipeError as error:
        assert f"all.{name}" in str(error)


def test_each_part_of_a_mixture_has_its_sidecars(folder):
    parts = [
        sp.stream(urls(folder), shuffle=True).join(f"{folder}/recap/{{name}}.{each}") for each in ("json", "jsonl")
    ]
    found = list(sp.mix(parts))
    assert all(each["recap"] == f"new {each['__key__']}" for each in found)
    assert len(found) == 60
    with pytest.raises(sp.ConfigError, match="join stands behind mix"):
        sp.mix(parts).join("{stem}.json")


def test_an_iterable_with_urls_can_be_joined(folder):
    rows = [{"__key__": "31", "__url__": str(folder / "3.tar")}]
    (found,) = sp.from_iterable(rows).join(f"{folder}/recap/{{name}}.json", columns="recap")
    assert found["recap"] == "new 31"
    with pytest.raises(sp.ConfigError, match="does not say which shard"):
        list(sp.from_iterable([{"__key__": "31"}]).join("{stem}.json"))


def test_a_caption_can_come_from_a_sidecar(folder):
    for name in ("json", "recap.tar"):
        pipe = sp.stream(urls(folder)).join(f"{folder}/recap/{{name}}.{name}").caption(("recap", "txt"))
        assert [each["caption"] for each in pipe] == [f"new {key}" for key in KEYS]


def test_the_stage_shows_what_was_asked_for(folder):
    pipe = sp.stream(urls(folder)).join("{stem}.json", missing="drop")
    assert "join(sidecar='{stem}.json', missing='drop')" in repr(pipe)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"missing": "empty"}, "missing is one of 'error', 'keep', 'drop', not 'empty'"),
        ({"on": ("a", "b", "c")}, "on is a column, or a column and the sample's key"),
        ({"columns": {"a": ""}}, "columns are names"),
        ({"prefix": "__"}, "prefix is what fields begin with"),
        ({"collumns": "a"}, "collumns"),
    ],
)
def test_options_are_checked_when_the_stage_is_made(options, words):
    with pytest.raises(sp.ConfigError, match=words):
        sp.from_iterable([]).join("{stem}.json", **options)
