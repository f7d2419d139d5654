"""Parquet files with images in them, as Hugging Face's datasets are stored: planned from footers, asked by columns."""

import pickle
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streampipe as sp
from streampipe.source import Source
from streampipe.testing import FaultServer, Status, check_source
from tests.data import photo

SIZES = [(60 + 20 * (i % 3), 40 + 10 * (i % 4)) for i in range(11)]  # width, height
JPEGS = [photo(i, *size) for i, size in enumerate(SIZES)]
ROWS = [
    {
        "image": {"bytes": data, "path": f"{i}.jpg"},
        "text": f"photo {i}",
        "score": float(i),
        "n": i,
        "boxes": [i, 2 * i],
    }
    for i, data in enumerate(JPEGS)
]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("STREAMPIPE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def data(tmp_path):
    """Two files, of row groups of four rows and of three."""
    folder = tmp_path / "data"
    folder.mkdir()
    for number, (rows, group) in enumerate(((ROWS[:6], 4), (ROWS[6:], 3))):
        write(folder / f"train-{number}.parquet", rows, row_group_size=group)
    return folder


def write(path, rows, **options):
    pq.write_table(pa.Table.from_pylist(rows), path, **options)


def numbers(pipe):
    return [sample["n"] for sample in pipe]


def test_it_keeps_what_a_sample_source_promises(data):
    source = sp.Parquet(data)
    assert source.counts() == [4, 2, 3, 2]
    check_source(source)


@pytest.mark.parametrize("tier", [None, "sequential"])
def test_a_row_is_a_sample_and_its_columns_are_fields(data, tier):
    samples = list(sp.stream(data / "*.parquet", tier=tier))
    assert [{name: sample[name] for name in ROWS[0]} for sample in samples] == [
        {**row, "image": row["image"]["bytes"]} for row in ROWS
    ]
    assert [sample["__key__"] for sample in samples][5:7] == ["train-0/00000005", "train-1/00000000"]
    assert samples[6]["__url__"] == str(data / "train-1.parquet")


def test_images_and_captions_are_found_where_datasets_put_them(data):
    (batch,) = sp.stream(data).where("n == 4").decode(32).caption().batch(1)
    assert tuple(batch["image"].shape) == (1, 3, 32, 32)
    assert batch["caption"] == ["photo 4"]


def test_batches_are_planned_from_the_footers_and_resume(data):
    pipe = sp.stream(data, shuffle=True, seed=1, tier="planned").select("n").batch(2)
    loader = pipe.loader()
    assert len(loader) == 6
    assert "indexed: it is known where each sample is" in pipe.explain()
    assert "each shard front to back" in pipe.explain()
    whole = []
    for batch in loader:
        whole.append(batch["n"].tolist())
        if len(whole) == 2:
            state = loader.state_dict()
    again = pipe.loader(num_workers=2)
    again.load_state_dict(state)
    assert [batch["n"].tolist() for batch in again] == whole[2:]
    assert sorted(n for batch in whole for n in batch) == list(range(11))


def test_conditions_are_answered_by_the_columns_that_they_name_alone(data, monkeypatch):
    asked = []
    table = sp.Parquet._table
    monkeypatch.setattr(
        sp.Parquet, "_table", lambda self, shard, names: asked.append(names) or table(self, shard, names)
    )
    pipe = sp.stream(data, tier="planned").where("score >= 3 and n != 7")
    assert len(pipe.loader()) == 7
    assert {frozenset(each) for each in asked} == {frozenset(("score", "n"))}
    assert numbers(pipe) == [3, 4, 5, 6, 8, 9, 10]
    assert numbers(sp.stream(data, tier="sequential").where("score >= 3 and n != 7")) == [3, 4, 5, 6, 8, 9, 10]


@pytest.mark.parametrize("stated", [False, True], ids=["by their headers", "by columns"])
def test_buckets_know_the_sizes_of_images(tmp_path, stated, monkeypatch):
    sizes = [{"width": w, "height": h} if stated else {} for w, h in SIZES]
    write(tmp_path / "a.parquet", [row | size for row, size in zip(ROWS, sizes, strict=True)], row_group_size=4)
    if stated:
        monkeypatch.setattr(sp.Parquet, "_scan", None)
    pipe = sp.stream(tmp_path, shuffle=True, tier="planned").bucket([(40, 60), (50, 100)], tail="merge")
    batches = list(pipe.decode().batch(2))
    assert sorted(n for batch in batches for n in batch["n"]) == list(range(11))
    assert {tuple(batch["image"].shape[2:]) for batch in batches} == {(40, 60), (50, 100)}


def test_only_the_columns_that_are_named_are_fields_and_one_is_the_key(data):
    (sample, *_) = sp.stream(sp.Parquet(data, columns=["n"], key="text"))
    assert (sample["__key__"], sample["n"], len(sample)) == ("photo 0", 0, 4)
    with pytest.raises(sp.ConfigError, match="columns='m' is no column; there are image, text"):
        sp.Parquet(data, columns=["m"])
    with pytest.raises(sp.ConfigError, match="key='n' is no column of texts"):
        sp.Parquet(data, key="n")


@pytest.mark.parametrize("names", [("image", "image0"), ("image0", "image")])
def test_an_image_of_a_list_never_takes_the_place_of_another_column(tmp_path, names):
    several = [{"bytes": JPEGS[0], "path": ""}, {"bytes": JPEGS[1], "path": ""}]
    values = {"image": several, "image0": "a text"}
    write(tmp_path / "a.parquet", [{name: values[name] for name in names}])
    with pytest.raises(sp.CorruptShard, match=r"row 0: two of its values would be field 'image0'"):
        list(sp.stream(tmp_path / "a.parquet"))


def test_two_columns_of_one_name_are_refused_because_a_row_would_lose_one(tmp_path):
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["t", "t"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(sp.ConfigError, match=r"a.parquet has 2 columns 't'"):
        sp.stream(tmp_path / "a.parquet")


@pytest.mark.parametrize("tier", ["planned", "sequential"])
@pytest.mark.parametrize("condition", ["kind == 'b'", "place == 7 and key != 'x'"])
def test_categories_are_the_values_that_they_stand_for(tmp_path, tier, condition):
    table = pa.table({"kind": ["a", "b", "b"], "place": [5, 7, 7], "key": ["k", "l", "m"]})
    table = pa.table({name: table.column(name).dictionary_encode() for name in table.column_names})
    pq.write_table(table, tmp_path / "a.parquet")
    found = sp.stream(tmp_path / "a.parquet", tier=tier).where(condition)
    assert [(each["__key__"], each["kind"]) for each in found] == [("l", "b"), ("m", "b")]


def test_times_finer_than_pythons_are_an_error_that_names_the_file_and_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    pq.write_table(pa.table({"t": pa.array([1], pa.timestamp("ns")), "n": [1]}), tmp_path / "a.parquet")
    with pytest.raises(sp.ConfigError, match=r"a.parquet: a column has values that Python has not .* leave it out"):
        list(sp.stream(tmp_path / "a.parquet"))
    assert numbers(sp.stream(sp.Parquet(tmp_path / "a.parquet", columns=["n"]))) == [1]


def test_several_images_in_a_column_and_nulls(tmp_path):
    image = {"bytes": JPEGS[0], "path": None}
    write(tmp_path / "a.parquet", [{"images": [image, image], "text": None}, {"images": [image], "text": "b"}])
    first, second = sp.stream(tmp_path)
    assert (first["images0"], first["images1"], "text" in first) == (JPEGS[0], JPEGS[0], False)
    assert (second["images0"], "images1" in second, second["text"]) == (JPEGS[0], False, "b")


def test_a_remote_file_is_read_in_ranges_that_are_tried_again(data):
    with FaultServer({path.name: path.read_bytes() for path in data.iterdir()}) as server:
        server.script("train-1.parquet", Status(503))
        pipe = sp.stream([server.url(f"train-{i}.parquet") for i in range(2)], shuffle=True, seed=2)
        assert sorted(numbers(pipe.where("n > 3"))) == list(range(4, 11))
        assert "no columns width and height" in pipe.bucket([(40, 60)]).batch(2).explain()
        assert all(request.range for request in server.requests if request.method == "GET")


def test_a_remote_file_is_kept_in_the_cache(data, tmp_path):
    with FaultServer({path.name: path.read_bytes() for path in data.iterdir()}) as server:
        urls = [server.url(f"train-{i}.parquet") for i in range(2)]
        pipe = sp.stream(urls, shuffle=True, seed=2, epochs=2, cache=tmp_path / "kept")
        assert sorted(numbers(pipe)) == sorted([*range(11), *range(11)])
        before = len(server.requests)
        assert sorted(numbers(pipe.where("n > 3"))) == sorted([*range(4, 11)] * 2)
        assert len([each for each in server.requests[before:] if each.method == "GET"]) == 0


def test_files_that_are_damaged_changed_or_of_other_columns_are_errors(data, tmp_path):
    pipe = sp.stream(data)
    whole = (data / "train-1.parquet").read_bytes()
    write(data / "train-1.parquet", ROWS[6:9])
    with pytest.raises(
        sp.ShardChanged, match="train-1.parquet was replaced since its rows were counted: make the stream anew"
    ):
        list(pipe)
    (data / "train-1.parquet").write_bytes(whole[:-100])
    with pytest.raises(sp.CorruptShard, match="train-1.parquet cannot be read as Parquet"):
        sp.stream(data)
    write(data / "train-1.parquet", [{"n": 1}])
    with pytest.raises(sp.ConfigError, match="train-1.parquet has columns n, .* stream them one by one"):
        sp.stream(data)


@pytest.mark.parametrize("kind", ["remote", "local", "kept"])
def test_a_file_that_is_replaced_is_never_read_by_the_footer_of_the_old_one(tmp_path, kind):
    """The columns of this one have changed places, and the sizes of all is the same."""
    old, new = tmp_path / "old.parquet", tmp_path / "new.parquet"
    ways = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    pq.write_table(pa.table({"a": list(range(20_000)), "b": list(range(20_000, 40_000))}), old, **ways)
    pq.write_table(pa.table({"b": list(range(20_000, 40_000)), "a": list(range(20_000))}), new, **ways)
    assert old.stat().st_size == new.stat().st_size
    with FaultServer({"x.parquet": old.read_bytes()}) as server:
        source = Source(cache=sp.Cache(tmp_path / "kept") if kind == "kept" else None)
        given = sp.Parquet(str(old) if kind == "local" else server.url("x.parquet"), source)
        assert next(given.read(0))["a"] == 0
        server.put("x.parquet", new.read_bytes())
        if kind == "kept":
            (kept,) = (tmp_path / "kept").glob("*.shard")
            kept.unlink()
            given = pickle.loads(pickle.dumps(given))  # another process, which asks anew what is there
        new.replace(old)
        for _ in range(2):
            with pytest.raises(sp.ShardChanged, match="replaced since its rows were counted: make the stream anew"):
                next(given.read(0))
            given.source.begin()
        again = sp.Parquet(given.files)
        assert next(again.read(0))["a"] == 0


def test_a_damaged_page_is_an_error_or_the_rest_of_its_row_group_is_skipped(data):
    path = data / "train-0.parquet"
    whole = bytearray(path.read_bytes())
    at = whole.index(JPEGS[1][:40])
    whole[at - 4 : at] = b"\xff\xff\xff\x7f"  # the length of a value
    path.write_bytes(whole)
    with pytest.raises(sp.CorruptShard, match="train-0.parquet"):
        list(sp.stream(data))
    found = numbers(sp.stream(data, on_error=sp.ErrorPolicy("skip")))
    assert found == [4, 5, 6, 7, 8, 9, 10]


def test_paths_without_bytes_are_an_error_that_says_so(tmp_path):
    write(
        tmp_path / "a.parquet", [{"image": {"bytes": None, "path": "x/1.jpg"}}, {"image": {"bytes": b"1", "path": ""}}]
    )
    with pytest.raises(sp.CorruptShard, match="row 0: column 'image' holds the path 'x/1.jpg', not the bytes"):
        list(sp.stream(tmp_path))


def first_word(text):
    return text.split()[0]


@sp.stage(rows="each", state="nothing", fields=["n", "score"])
def added(samples):
    for sample in samples:
        yield {**sample, "sum": sample["n"] + sample["score"]}


NARROW = {  # by what is read: a chain with select in it
    "n": lambda pipe: pipe.select("n"),
    "n text": lambda pipe: pipe.map(first_word, "text").select("n"),
    "image score": lambda pipe: pipe.select("png;image", "score").decode(16, crop="random").batch(2),
    "caption image n text": lambda pipe: pipe.rename(caption="text").select("image", "n"),
    "boxes n score": lambda pipe: pipe.drop("boxes").apply(added()).select("sum", "n"),
    "n ": lambda pipe: pipe.where("score < 8").assign(weight=0.5).select("n", "weight").filter(lambda s: s["n"] % 3),
}


@pytest.mark.parametrize("read", NARROW)
def test_select_reads_no_other_columns_and_changes_nothing_else(data, read, monkeypatch):
    asked = []
    rows = sp.Parquet._rows
    monkeypatch.setattr(
        sp.Parquet, "_rows", lambda self, shard, names, first=0: asked.append(names) or rows(self, shard, names, first)
    )
    pipe = NARROW[read](sp.stream(data, shuffle=True, seed=1))
    found = list(pipe)
    assert {name for names in asked for name in names} == set(ROWS[0]) & set(read.split())
    assert "no other fields than " in pipe.explain()
    half = pipe.loader()
    next(iter(half))
    state = half.state_dict()
    monkeypatch.setattr(sp.Parquet, "only", lambda self, fields: None)
    whole = NARROW[read](sp.stream(data, shuffle=True, seed=1))
    assert list(map(repr, whole)) == list(map(repr, found))
    rest = whole.loader()
    rest.load_state_dict(state)
    assert list(map(repr, rest)) == list(map(repr, found[1:]))


@pytest.mark.parametrize(
    "chain",
    [
        lambda pipe: pipe.map(dict).select("n"),
        lambda pipe: pipe.filter(lambda s: s["score"] > 3).select("n"),
        lambda pipe: pipe.decode(16),
    ],
    ids=["a function of the sample", "a filter", "no select"],
)
def test_where_nobody_knows_what_is_looked_at_all_columns_are_read(data, chain):
    assert "no other fields" not in chain(sp.stream(data)).explain()


def test_bytes_of_other_columns_of_a_remote_file_are_not_fetched(tmp_path):
    """A column of half a megabyte between two small ones; pieces that are fetched ahead end where a column does."""
    rows = [{"a": n, "heavy": bytes([n]) * (1 << 16), "z": -n} for n in range(8)]
    write(tmp_path / "wide.parquet", rows, compression="none", use_dictionary=False)
    with FaultServer({"wide.parquet": (tmp_path / "wide.parquet").read_bytes()}) as server:
        pipe = sp.stream(server.url("wide.parquet")).select("a", "z")
        server.requests.clear()
        assert [(sample["a"], sample["z"]) for sample in pipe] == [(n, -n) for n in range(8)]
        spans = [each.range for each in server.requests if each.range]
        assert sum(end - start for start, end in spans) < 70_000  # of which the footer is read in 64 KiB


def test_a_field_that_is_not_there_is_told_with_all_that_are(data):
    with pytest.raises(sp.StageError, match=r"no field 'm' \(it has image, text, score, n, boxes\)"):
        list(sp.stream(data).select("n", "m"))


def test_parts_of_a_mixture_read_what_they_select(data):
    part = sp.stream(data, shuffle=True).select("n")
    mixed = sp.mix([part, part], repeats=[1, 1])
    assert sorted(numbers(mixed)) == sorted([*range(11)] * 2)
