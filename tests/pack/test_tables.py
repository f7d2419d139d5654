"""What a table says of an image reaches its sample, however it is written."""

import json
import unicodedata

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streampipe as sp
from tests.pack.test_layouts import folder, texts_of
from tests.pack.test_pack import quiet


def test_captions_that_are_numbers_are_captions(tmp_path):
    source = folder(tmp_path / "in", "a.jpg", "b.jpg", **{
        "metadata.csv": "file_name,label\na.jpg,7\nb.jpg,seven"})  # fmt: skip
    found = texts_of(source, tmp_path / "out", caption_column="label")
    assert {key: fields["txt"] for key, fields in found.items()} == {"a": "7", "b": "seven"}
    assert json.loads(found["a"]["json"]) == {"label": 7}
    rows = [{"file_name": "a.jpg", "text": True, "caption": 2024}, {"file_name": "b.jpg", "text": 1, "prompt": "a dog"}]
    lines = folder(tmp_path / "lines", "a.jpg", "b.jpg", **{"metadata.jsonl": "\n".join(map(json.dumps, rows))})
    found = texts_of(lines, tmp_path / "of lines")
    assert {key: fields["txt"] for key, fields in found.items()} == {"a": "2024", "b": "a dog"}


def test_a_column_that_is_said_to_be_the_caption_and_holds_none_is_refused(tmp_path):
    source = folder(tmp_path / "in", "a.jpg", **{"metadata.jsonl": '{"file_name": "a.jpg", "tags": ["x"]}'})
    with pytest.raises(sp.PackError, match="the caption of a.jpg is no text: its 'tags' is"):
        quiet(source, tmp_path / "out", caption_column="tags")
    pq.write_table(pa.table({"file_name": ["a.jpg"], "note": [float("nan")]}), tmp_path / "t.parquet")
    quiet(source, tmp_path / "out", metadata=tmp_path / "t.parquet", caption_column="note")  # nothing was written there


def test_columns_of_one_name_in_a_parquet_file_are_refused(tmp_path):
    source = folder(tmp_path / "in", "a.jpg")
    table = pa.Table.from_arrays([pa.array(["a.jpg"]), pa.array(["x"]), pa.array(["y"])], ["file_name", "text", "text"])
    pq.write_table(table, source / "metadata.parquet")
    with pytest.raises(sp.PackError, match="it has 'text' twice"):
        quiet(source, tmp_path / "out")


@pytest.mark.parametrize(("disk", "table"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_names_are_the_same_composed_and_decomposed(tmp_path, disk, table):
    rows = unicodedata.normalize(table, "file_name,text,control_file_name\né.jpg,a caption,ü.png\n")
    names = [unicodedata.normalize(disk, name) for name in ("é.jpg", "ü.png")]
    found = texts_of(folder(tmp_path / "in", *names, **{"metadata.csv": rows}), tmp_path / "out")
    del found["é"]["json"]
    assert found == {"é": {"jpg": "image", "txt": "a caption", "control.png": "image"}}


def test_an_image_with_a_row_of_its_own_is_a_sample_and_a_part_of_others(tmp_path):
    """A chain of edits: b is made of a, and c of a and b."""
    rows = [
        {"file_name": "a.jpg", "text": "a thing"},
        {"file_name": "b.jpg", "text": "make it blue", "source_file_name": "a.jpg"},
        {"file_name": "c.jpg", "text": "blend", "ref_file_names": ["a.jpg", "b.jpg"]},
        {"file_name": "d.jpg", "text": "of one without a row", "source_file_name": "x.jpg"},
    ]
    lines = "\n".join(map(json.dumps, rows))
    source = folder(tmp_path / "in", "a.jpg", "b.jpg", "c.jpg", "d.jpg", "x.jpg", **{"metadata.jsonl": lines})
    found = texts_of(source, tmp_path / "out")
    assert {key: json.loads(fields.pop("json"))["text"] == fields["txt"] for key, fields in found.items()}
    assert found == {
        "a": {"jpg": "image", "txt": "a thing"},
        "b": {"jpg": "image", "txt": "make it blue", "source.jpg": "image"},
        "c": {"jpg": "image", "txt": "blend", "ref0.jpg": "image", "ref1.jpg": "image"},
        "d": {"jpg": "image", "txt": "of one without a row", "source.jpg": "image"},
    }


def test_a_part_with_the_mere_name_of_its_image_is_no_sample(tmp_path):
    rows = "image,control_file_name,text\na.png,cond/a.png,hello"
    source = folder(tmp_path / "in", "a.png", "cond/a.png", **{"metadata.csv": rows})
    assert {key: set(fields) for key, fields in texts_of(source, tmp_path / "out", file_column="image").items()} == {
        "a": {"png", "control.png", "json", "txt"}
    }


def test_a_part_that_a_row_of_its_own_calls_by_its_mere_name_is_a_sample_too(tmp_path):
    rows = "image,source_file_name\n1,\nb.png,imgs/1.png\nimgs/3.png,imgs/3.png"
    source = folder(tmp_path / "in", "imgs/1.png", "b.png", "imgs/3.png", **{"metadata.csv": rows})
    found = texts_of(source, tmp_path / "out", file_column="image")
    assert {key: fields.keys() - {"json"} for key, fields in found.items()} == {
        "imgs/1": {"png"},
        "b": {"png", "source.png"},
        "imgs/3": {"png", "source.png"},
    }


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("metadata.jsonl", '{"file_name": "a.jpg", "text": "x", "text": "y"}', "the row of a.jpg has 'text' twice"),
        ("captions.json", '[{"file_name": "a.jpg", "n": 1, "n": 2}]', "the row of a.jpg has 'n' twice"),
        ("captions.json", '{"a.jpg": {"n": 1, "n": 2}}', "the row of a.jpg has 'n' twice"),
        ("captions.json", '{"file_name": "a.jpg", "n": 1, "n": 2}', "the row of a.jpg has 'n' twice"),
    ],
)
def test_a_name_that_is_twice_in_a_row_is_refused_and_within_its_values_the_last_stands(tmp_path, name, text, words):
    source = folder(tmp_path / "in", "a.jpg", **{name: text})
    with pytest.raises(sp.PackError, match=f"{name} cannot be read .{words}, and only one can be meant"):
        quiet(source, tmp_path / "out")
    nested = '{"k": {"n": 1, "n": 2}, "l": [{"n": 3, "n": 4}]}'
    (source / name).write_text(f'{{"file_name": "a.jpg", "deep": {nested}}}')
    facts = json.loads(texts_of(source, tmp_path / "out")["a"]["json"])
    assert facts["deep"] == {"k": {"n": 2}, "l": [{"n": 4}]}


def test_one_control_image_of_two_samples_is_in_both(tmp_path):
    rows = "file_name,control_file_name\na.jpg,c.png\nb.jpg,c.png"
    found = texts_of(folder(tmp_path / "in", "a.jpg", "b.jpg", "c.png", **{"metadata.csv": rows}), tmp_path / "out")
    assert {key: set(fields) for key, fields in found.items()} == {
        "a": {"jpg", "control.png"},
        "b": {"jpg", "control.png"},
    }
