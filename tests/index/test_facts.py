"""Facts of samples: from an index, from the samples themselves, and from files beside the shards."""

import json
import os

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streampipe as sp
from streampipe.counters import counters
from streampipe.decoding import probe
from streampipe.index.columns import MOST_COLUMNS, Columns
from streampipe.index.facts import OWN, facts_of, scalars_of
from streampipe.index.table import ShardIndex, make
from tests.data import encoded, natural, photo, shard

NESTED = {"stability_metadata": {"aes_scorelv2": 6.5, "deep": {"x": "y"}}, "a": {"b": 1}, "a.b": 2, "l": [{"n": 1}]}


def write(folder, rows, name="0.tar"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(shard([(f"{i}", {"json": json.dumps(row)}) for i, row in enumerate(rows)]))
    return str(folder)


def answers(folder, condition, **options):
    """The kept keys, or the error, in both tiers; they must be the same."""
    found = []
    for tier in ("planned", "sequential"):
        try:
            kept = sp.stream(folder, tier=tier).where(condition, **options)
            found.append([sample["__key__"] for sample in kept])
        except sp.StreampipeError as error:
            found.append(type(error).__name__)
    assert found[0] == found[1]
    return found[0]


def test_scalars_inside_objects_have_dotted_names_and_those_at_the_top_win():
    assert scalars_of(json.dumps(NESTED).encode()) == {
        "a.b": 2,
        "stability_metadata.aes_scorelv2": 6.5,
        "stability_metadata.deep.x": "y",
    }
    deep = {"n": 1}
    for _ in range(500):
        deep = {"o": deep, "n": 1}
    assert set(scalars_of(deep)) == {"o." * i + "n" for i in range(9)}


def test_nested_scalars_can_be_asked_for_in_both_tiers(tmp_path):
    rows = [NESTED, {"stability_metadata": {"aes_scorelv2": 4}}, {"stability_metadata": 3}, {}]
    folder = write(tmp_path / "n", rows)
    assert answers(folder, "stability_metadata.aes_scorelv2 > 5") == ["0"]
    assert answers(folder, "aesthetic > 3") == ["0", "1"]
    assert answers(folder, "stability_metadata.deep.x == 'y' and a.b == 2") == ["0"]
    assert answers(folder, pc.field("stability_metadata.aes_scorelv2") > 3) == ["0", "1"]


any_text = st.text(st.characters(), max_size=4)  # halves of characters included


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.recursive(
            st.dictionaries(any_text, st.one_of(st.none(), st.integers(), any_text)),
            lambda inner: st.dictionaries(any_text, inner),
            max_leaves=3,
        ),
        min_size=1,
        max_size=3,
    )
)
def test_an_index_can_hold_whatever_json_holds(rows):
    facts = [facts_of({"__key__": str(i), "json": json.dumps(row).encode()}) for i, row in enumerate(rows)]
    own = {"size": 512, "crc32": None, "fields": [], "width": None, "height": None}
    table = [{"key": str(i), "offset": 512 * i, **own} for i in range(len(rows))]
    scalars = [{name: v for name, v in each.items() if name not in ("key", "width", "height")} for each in facts]
    index = ShardIndex.from_bytes(
        make(table, Columns(scalars), {"bytes": 512 * len(rows)}).to_bytes(), "a.index.parquet"
    )
    for name in {name for each in scalars for name in each}:
        held = index.columns([name])[name]
        values = held if isinstance(held, list) else held.to_pylist()
        assert values == [each.get(name) for each in scalars]


def old_index(folder):
    """The index as it was made before objects were looked into."""
    sp_index = sp.stream(folder).source.finder.find(f"{folder}/0.tar")
    table = sp_index.table.select([name for name in sp_index.table.column_names if "." not in name])
    facts = {name: value for name, value in sp_index.facts.items() if name != "nested"}
    with open(f"{folder}/0.index.parquet", "wb") as file:
        file.write(ShardIndex(table, facts).to_bytes())


def test_an_older_index_is_used_for_what_it_has(tmp_path):
    folder = write(tmp_path / "old", [{"n": 1, "pwatermark": 0.1, **NESTED}, {"n": 2, "pwatermark": 0.9}])
    old_index(folder)
    assert answers(folder, "n > 1 and watermark > 0.5") == ["1"]
    for name in ("aesthetic", "a.b"):
        with pytest.raises(sp.IndexMismatch, match=f"{name} may stand for a value inside an object.*index again"):
            list(sp.stream(folder, tier="planned").where(f"{name} > 1"))
    from streampipe.cli import main

    main(["index", folder])
    assert answers(folder, "aesthetic > 5 and a.b > 1") == ["0"]


def test_too_many_columns_are_left_out_and_said(tmp_path):
    rows = [{"n": i, "tags": {f"tag{i}_{j}": 0.5 for j in range(30)}, "aesthetic_score": i} for i in range(40)]
    folder = write(tmp_path / "many", rows)
    assert answers(folder, "n > 37") == ["38", "39"]
    assert answers(folder, "aesthetic > 38") == ["39"]
    assert answers(folder, "tags.tag3_4 > 0") == ["3"]  # came early
    for name in ("tags.tag39_29", "never.seen"):
        with pytest.raises(sp.IndexMismatch, match="there were too many"):
            list(sp.stream(folder).where(f"{name} > 0"))
    assert [each["__key__"] for each in sp.stream(folder, tier="sequential").where("tags.tag39_29 > 0")] == ["39"]
    assert sp.stream(folder).source.finder.find(f"{folder}/0.tar").table.num_columns <= MOST_COLUMNS + len(OWN)
    assert len(make([], Columns(), {}).table.column_names) == 7


def beside(folder, rows):
    table = {name: [row.get(name) for row in rows] for name in dict.fromkeys(n for row in rows for n in row)}
    pq.write_table(pa.table({"key": [str(i) for i in range(len(rows))], **table}), f"{folder}/0.parquet")


def test_columns_of_img2datasets_parquet_count_in_both_tiers_and_are_read_once_a_shard(tmp_path):
    folder = write(tmp_path / "b", [{"n": 1}, {"n": 2, "AESTHETIC_SCORE": 9}, {"n": 3}, {"aesthetic": 9}])
    beside(folder, [{"aesthetic": 6.0, "width": 700, "n": 5}, {"aesthetic": 1.0}, {"aesthetic": None}, {"n": 7}])
    assert answers(folder, "aesthetic > 5") == ["0", "3"]
    assert answers(folder, "n > 2") == ["2", "3"]
    assert answers(folder, "json.width == 700") == answers(folder, "width == 700") == ["0"]
    assert answers(folder, pc.field("aesthetic") > 5) == ["0", "3"]
    before = counters.get("where", "looks beside shards")
    list(sp.stream(folder, tier="sequential", epochs=2).where("aesthetic > 5"))
    assert counters.get("where", "looks beside shards") - before == 1
    before = counters.get("where", "looks beside shards")
    list(sp.stream(folder, tier="sequential").where("key >= '0'"))
    assert counters.get("where", "looks beside shards") == before
    pq.write_table(pa.table({"x": [1]}), f"{folder}/0.parquet")
    os.utime(f"{folder}/0.tar")
    assert answers(folder, "aesthetic > 5 and n > 0", missing="keep") == ["0", "1", "2", "3"]


def test_remote_shards_have_files_beside_them_too(tmp_path):
    folder = write(tmp_path / "r", [{"n": 1}, {"n": 2}])
    beside(folder, [{"score": 1.0}, {"score": 2.0}])
    store = fsspec.filesystem("memory")
    for name in os.listdir(folder):
        with open(f"{folder}/{name}", "rb") as file:
            store.pipe_file(f"/facts/{name}", file.read())
    pipe = sp.stream("memory://facts/0.tar", tier="sequential").where("score > 1")
    assert [sample["__key__"] for sample in pipe] == ["1"]


def test_where_behind_a_join_asks_the_joined_columns(tmp_path):
    folder = write(tmp_path / "j", [{"aesthetic": 1, "n": i} for i in range(4)])
    (tmp_path / "scores.json").write_text(json.dumps({str(i): {"score": i, "aesthetic": 5 + i} for i in range(4)}))
    for tier in (None, "sequential"):
        pipe = sp.stream(folder, tier=tier).where("n < 3").join(tmp_path / "scores.json", columns=["score"])
        assert [each["__key__"] for each in pipe.where("score >= 1 and n > 0")] == ["1", "2"]
        assert [each["__key__"] for each in pipe.decode().where("score >= 1 and n > 0")] == ["1", "2"]
        pipe = sp.stream(folder, tier=tier).join(tmp_path / "scores.json")
        assert [each["__key__"] for each in pipe.where("aesthetic >= 7")] == ["2", "3"]
        assert [each["__key__"] for each in pipe.caption(("score",)).where("caption == '2'")] == ["2"]


def test_facts_of_decoded_samples():
    sample = {"__key__": "a", "jpg": photo(1, 50, 30), "json": b'{"n": 1}', "x": np.float32(0.5), "width": 7}
    assert facts_of(sample) == {"key": "a", "width": 50, "height": 30, "n": 1, "x": 0.5}
    (decoded,) = sp.from_iterable([sample]).decode()
    assert facts_of(decoded) == {"key": "a", "width": 7, "height": None, "n": 1, "x": 0.5}
    assert facts_of({"json": b"{", "txt": b"x", "none": None}) == {"key": None, "width": None, "height": None}


values = st.one_of(st.none(), st.integers(-5, 5), st.floats(-3, 3), st.sampled_from(["a", "b"]), st.booleans())
names = st.sampled_from(["aesthetic", "AESTHETIC_SCORE", "pwatermark", "punsafe", "NSFW", "w", "width", "h", "n"])
objects = st.dictionaries(names, values)
rows = st.fixed_dictionaries(
    {},
    optional={
        "aesthetic": values,
        "aesthetic_score": values,
        "width": values,
        "w": values,
        "stability_metadata": st.dictionaries(st.sampled_from(["aes_scorelv2", "p_nsfwdf"]), values),
    },
)
columns = st.fixed_dictionaries({}, optional={"AESTHETIC_SCORE": st.floats(-3, 3), "width": st.integers(0, 99)})
parts = st.sampled_from(
    ["aesthetic > 1", "aesthetic is None", "nsfw == 'a'", "width >= 30", "original_width == width", "json.width < 9"]
)
conditions = st.builds(lambda a, op, b: f"{a} {op} {b}", parts, st.sampled_from(["and", "or", "and not"]), parts)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(rows, columns), min_size=1, max_size=6), conditions, st.sampled_from(["drop", "keep"]))
def test_aliases_objects_and_files_beside_mean_the_same_in_both_tiers(tmp_path_factory, found, condition, missing):
    folder = tmp_path_factory.mktemp("facts")
    samples = [
        (str(i), {"json": json.dumps(row), **({"jpg": photo(1, 20 + i, 30)} if i % 2 else {})})
        for i, (row, _) in enumerate(found)
    ]
    (folder / "0.tar").write_bytes(shard(samples))
    if any(row for _, row in found):
        beside(folder, [row for _, row in found])
    answers(str(folder), condition, missing=missing)


@pytest.mark.parametrize(
    ("names", "main"),
    [
        (("control.png", "bmp"), "bmp"),
        (("mask.png", "bmp"), "bmp"),
        (("bmp", "jpg"), "jpg"),
        (("bmp", "image.png"), "image.png"),
        (("bmp", "mask.bmp"), "bmp"),
    ],
)
def test_the_main_image_is_the_one_that_decode_takes_for_it(names, main):
    files = {name: encoded(natural(200 - 20 * i, 100 - 10 * i), "BMP") for i, name in enumerate(names)}
    sample = {"__key__": "a", **files}
    facts = facts_of(sample)
    (made,) = sp.from_iterable([sample]).decode(8, formats=("bmp",))
    assert made["original_size"] == (facts["height"], facts["width"]) == probe(files[main]).stored
