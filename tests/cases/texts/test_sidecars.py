"""Sidecars as other tools write them: byte order marks, line ends, quotes, kinds of columns."""

import csv
import datetime
import decimal
import gzip
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streampipe as sp
from tests.data import shard

TEXTS = ['a cat, "big"', "two\nlines", "caf\u00e9", " blanks ", "", "tab\tinside"]
KEYS = [str(i) for i in range(len(TEXTS))]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "0.tar").write_bytes(shard([(key, {"cls": key}) for key in KEYS]))
    return tmp_path


def joined(folder, name, **options):
    return [each["text"] for each in sp.stream(folder / "0.tar").join(folder / name, **options)]


def separated(delimiter, end, texts=TEXTS):
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerow(["key", "text"])
    writer.writerows(zip(KEYS, texts, strict=False))
    return file.getvalue()


@pytest.mark.parametrize("kind", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(("name", "delimiter"), [("t.csv", ","), ("t.tsv", "\t"), ("t.CSV", ",")])
def test_separated_values(folder, name, delimiter, end, kind):
    (folder / name).write_bytes(separated(delimiter, end).encode(kind))
    assert joined(folder, name) == [text or None for text in TEXTS]
    (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
    assert joined(folder, f"{name}.gz") == [text or None for text in TEXTS]


def test_a_tsv_whose_quotation_marks_are_signs_like_any_other(folder):
    (folder / "t.tsv").write_text('key\ttext\n0\t"cut\n1\t6" tall\n2\tx\n3\tx\n4\tx\n5\tx\n')
    assert joined(folder, "t.tsv") == ['"cut', '6" tall', "x", "x", "x", "x"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("key,text\n0,a\n1,b,c\n", "line 3 has 3 values, the first line names 2"),
        ("key,text\n0\n", "line 2 has 1 values"),
        ("key,text,text\n0,a,b\n", "two of its columns have one name"),
        ('key,text\n0,"a', "line 2"),
        ("key,text\n0,a\n0,b\n", "has key '0' twice"),
        ("id,text\n0,a\n", "has no column 'key' for the keys"),
        ("key,text\n0,a\0b\n", "NUL"),
    ],
)
def test_ragged_tables_are_errors_that_name_the_line(folder, content, words):
    (folder / "t.csv").write_text(content)
    with pytest.raises(sp.StreampipeError, match=words):
        joined(folder, "t.csv")


@pytest.mark.parametrize("kind", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
def test_json_lines(folder, end, kind):
    rows = [json.dumps({"key": key, "text": text}, ensure_ascii=False) for key, text in zip(KEYS, TEXTS, strict=True)]
    (folder / "t.jsonl").write_bytes((end.join(rows) + end).encode(kind))
    assert joined(folder, "t.jsonl") == TEXTS
    (folder / "t.jsonl.gz").write_bytes(gzip.compress((folder / "t.jsonl").read_bytes()))
    assert joined(folder, "t.jsonl.gz") == TEXTS


def test_json_lines_name_the_line_that_is_damaged(folder):
    (folder / "t.jsonl").write_text('{"key": "0", "text": "a"}\n{"key":\n')
    with pytest.raises(sp.IndexMismatch, match=r"t.jsonl is no sound jsonl \(line 2: "):
        joined(folder, "t.jsonl")


def test_lines_that_hold_other_separators_stay_whole(folder):
    rows = "\n".join(json.dumps({"key": key, "text": "a\u2028b"}, ensure_ascii=False) for key in KEYS)
    (folder / "t.jsonl").write_text(rows)
    assert joined(folder, "t.jsonl") == ["a\u2028b"] * len(KEYS)


MOMENT = datetime.datetime(2024, 5, 6, 7, 8, 9)
COLUMNS = {
    "dictionary": (pa.array(["a"] * 6).dictionary_encode(), "a"),
    "large string": (pa.array(["a"] * 6, pa.large_string()), "a"),
    "view": (pa.array(["a"] * 6, pa.string_view()), "a"),
    "binary": (pa.array([b"\x00a"] * 6), b"\x00a"),
    "fixed binary": (pa.array([b"ab"] * 6, pa.binary(2)), b"ab"),
    "decimal": (pa.array([decimal.Decimal("1.50")] * 6), decimal.Decimal("1.50")),
    "timestamp": (pa.array([MOMENT] * 6, pa.timestamp("ms")), MOMENT),
    "texts": (pa.array([["a", "b"]] * 6), ["a", "b"]),
    "dictionary in a list": (pa.array([["a"]] * 6, pa.list_(pa.dictionary(pa.int32(), pa.string()))), ["a"]),
    "object": (pa.array([{"x": 1}] * 6), {"x": 1}),
    "nothing": (pa.nulls(6), None),
    "half": (pa.array(np.array([0.5] * 6, np.float16)), 0.5),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_kinds_of_parquet_columns(folder, name):
    column, value = COLUMNS[name]
    pq.write_table(pa.table({"key": KEYS, "text": column}), folder / "t.parquet")
    assert joined(folder, "t.parquet") == [value] * len(KEYS)


def test_lists_of_numbers_are_arrays_of_the_columns_type(folder):
    column = pa.array([[1.5, 2.5]] * 6, pa.list_(pa.float32(), 2))
    pq.write_table(pa.table({"key": KEYS, "text": column}), folder / "t.parquet")
    for found in joined(folder, "t.parquet"):
        assert found.dtype == np.float32
        assert found.tolist() == [1.5, 2.5]


@pytest.mark.parametrize(
    "keys", [pa.array(range(6)), pa.array(KEYS).dictionary_encode(), pa.array(KEYS, pa.large_string())]
)
def test_kinds_of_keys(folder, keys):
    pq.write_table(pa.table({"key": keys, "text": TEXTS}), folder / "t.parquet")
    assert joined(folder, "t.parquet") == TEXTS


def repeated(rows):
    return pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["x" * (1 << 20)]))


BOMBS = {
    "dictionary": lambda: (pa.table({"key": repeated(4096)}), {}),
    "dictionary in a list": lambda: (
        pa.table({"key": pa.ListArray.from_arrays(pa.array(range(4097), pa.int32()), repeated(4096))}),
        {},
    ),
    "differences": lambda: (
        pa.table({"key": ["x" * (1 << 20) + str(i) for i in range(300)]}),
        {"use_dictionary": False, "column_encoding": "DELTA_BYTE_ARRAY"},
    ),
    "numbers": lambda: (pa.table({"key": np.ones(20_000_000, np.int64)}), {}),
    "rows": lambda: (pa.table({"key": np.ones(20_000_000, bool)}), {}),
}
"""Made when they are asked for: half a gigabyte of a test process would be copied with each of its forks."""


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_parquet_that_unpacks_to_much_is_refused_before_it_does(name):
    import resource

    from streampipe.index.parquet import read_table

    table, options = BOMBS[name]()
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd", store_schema=False, **options)
    assert len(file.getvalue()) < 1 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(sp.IndexMismatch, match="at most 67108864 are read"):
        read_table(file.getvalue(), "x.parquet", 64 << 20, row_bytes=160)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 << 10


def test_a_json_sidecar_whose_objects_would_take_too_much_is_refused(folder):
    (folder / "t.json").write_bytes(b'{"0": [' + b"{}," * 2_000_000 + b"{}]}")
    pipe = sp.stream(folder / "0.tar", limits=sp.Limits(max_index_bytes=64 << 20)).join(folder / "t.json")
    with pytest.raises(sp.IndexMismatch, match="could take .* bytes as objects, at most 67108864"):
        list(pipe)
