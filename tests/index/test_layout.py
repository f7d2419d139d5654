"""Samples are cut out by the index's places only where a parser would give the same; all others are parsed."""

import os
import tarfile

import pyarrow as pa
import pytest

import streampipe as sp
from streampipe.index import ShardIndex, scan
from streampipe.index.layout import Layout
from streampipe.source import Source
from streampipe.tar import Limits
from tests.data import shard

FIELDS = {"jpg": b"x" * 700, "seg.png": b"", "txt": "ä"}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "00000.tar"
    path.write_bytes(shard([(f"k{i}é", FIELDS) for i in range(3)]))
    return path


def changed(index, change):
    """An index with the fields of its second sample changed."""
    rows = index.table.to_pylist()
    change(rows[1])
    return ShardIndex(pa.Table.from_pylist(rows, index.table.schema), index.facts)


def plain(index, limits=None):
    layout = Layout(index, limits or Limits())
    return [bool(layout.row(i)[-1]) for i in range(len(layout))]


def test_rows_tell_spans_keys_and_fields(path):
    data, index = path.read_bytes(), scan(str(path), Source(), Limits())
    layout = Layout(index, Limits())
    for i, wanted in enumerate(index.table.to_pylist()):
        start, end, crc32, key, key_end, first, last, is_plain = layout.row(i)
        assert (start, end - start, crc32, is_plain) == (wanted["offset"], wanted["size"], wanted["crc32"], 1)
        assert layout.key(key, key_end).decode() == wanted["key"]
        places = list(layout.places(first, last))
        found = [data[start + a : start + b] for a, b in zip(places[::2], places[1::2], strict=True)]
        assert dict(zip(layout.names(first, last), found, strict=True)) == {**FIELDS, "txt": "ä".encode()}


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row["fields"][0].update(name="__jpg__"),
        lambda row: row["fields"][0].update(name="JPG"),
        lambda row: row["fields"][0].update(name="a/b"),
        lambda row: row["fields"][0].update(name="txt"),
        lambda row: row["fields"][0].update(name=None),
        lambda row: row["fields"][0].update(size=-1),
        lambda row: row["fields"][0].update(size=row["size"]),
        lambda row: row["fields"][0].update(size=1 << 62),
        lambda row: row["fields"][0].update(offset=row["offset"]),
        lambda row: row["fields"][0].update(offset=row["fields"][0]["offset"] + 1),
        lambda row: row["fields"][2].update(offset=row["fields"][1]["offset"]),
        lambda row: row["fields"].reverse(),
        lambda row: row["fields"].pop(),
        lambda row: row["fields"].clear(),
    ],
)
def test_a_sample_whose_places_or_names_no_parser_gives_is_not_cut_out(path, change):
    index = scan(str(path), Source(), Limits())
    assert plain(index) == [True, True, True]
    assert plain(changed(index, change)) == [True, False, True]


def test_limits_are_those_of_a_parser(path):
    index = scan(str(path), Source(), Limits())
    assert plain(index, Limits(max_sample_members=2)) == [False] * 3
    assert plain(index, Limits(max_member_bytes=699)) == [False] * 3
    assert plain(index, Limits(max_member_bytes=700)) == [True] * 3
    with pytest.raises(sp.LimitExceeded):
        list(sp.stream(str(path), limits=Limits(max_member_bytes=699)))


def test_samples_of_different_fields_have_their_own_names(tmp_path):
    fields = [{"jpg": b"1", "txt": "a"}, {"jpg": b"2"}, {"txt": "b", "cls": "7", "jpg": b"3"}]
    (tmp_path / "00000.tar").write_bytes(shard([(f"{i}", each) for i, each in enumerate(fields)]))
    for where in (None, "index"):
        if where:
            sp.index(str(tmp_path), progress=False)
        found = [{k: v for k, v in each.items() if k[0] != "_"} for each in sp.stream(str(tmp_path))]
        assert found == [{k: v if isinstance(v, bytes) else v.encode() for k, v in each.items()} for each in fields]


@pytest.mark.parametrize("kept", ["remembered", "beside"])
def test_a_changed_header_is_found_as_a_parser_finds_it(path, kept):
    pipe = sp.stream(str(path))
    if kept == "beside":
        sp.index(str(path), progress=False)
    assert len(list(pipe)) == 3
    data, stat = bytearray(path.read_bytes()), path.stat()
    with tarfile.open(path) as tar:
        at = tar.getmembers()[4].offset
    data[at + 3] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(sp.CorruptShard, match=r"byte \d+"):
        list(sp.stream(str(path)))


def test_a_remembered_scan_reads_what_changed_in_a_header_and_means_nothing(path):
    """As a parser does: another owner, with its checksum, is the same sample."""
    assert len(list(sp.stream(str(path)))) == 3
    data, stat = bytearray(path.read_bytes()), path.stat()
    data[265:269], data[148:156] = b"root", bytes(8)
    block = data[:148] + b" " * 8 + data[156:512]
    data[148:156] = b"%06o\0 " % sum(block)
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert [each["jpg"] for each in sp.stream(str(path))] == [FIELDS["jpg"]] * 3


def test_an_index_whose_key_the_shard_does_not_have_is_a_mismatch(path):
    found = sp.index(str(path), progress=False)
    place = path.with_name("00000.index.parquet")
    index = changed(ShardIndex.from_bytes(place.read_bytes(), "x"), lambda row: row.update(key="k7é"))
    place.write_bytes(index.to_bytes())
    with pytest.raises(sp.IndexMismatch, match="the index has sample 'k7é' here, the shard has 'k1é'"):
        list(sp.stream(str(path)))
    assert found.samples == 3
