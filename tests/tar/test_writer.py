import io
import subprocess
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

import streampipe as sp
from streampipe.tar import TarWriter, header_bytes, read_members
from tests.data import shard


def test_the_same_samples_give_the_same_bytes():
    samples = [("a", {"txt": "x", "jpg": b"y"}), ("b/c", {"json": "{}"})]
    assert shard(samples) == shard([(key, dict(reversed(fields.items()))) for key, fields in samples])


def test_no_extended_header_unless_needed():
    assert len(header_bytes("a" * 100, 1)) == 512
    assert len(header_bytes("d" * 150 + "/" + "a" * 100, 1)) == 512
    assert len(header_bytes("a" * 101, 1)) > 512
    assert len(header_bytes("é.jpg", 1)) > 512
    assert len(header_bytes("a", 8 << 30)) > 512


@pytest.mark.parametrize(
    "name", ["a.jpg", "d" * 150 + "/" + "a" * 99, "x" * 300 + ".jpg", "ü/é.jpg", "a/" * 60 + "b.txt"]
)
def test_tarfile_and_gnu_tar_read_the_names(tmp_path, name):
    data = header_bytes(name, 3, mtime=9) + b"abc" + bytes(509) + bytes(1024)
    (tmp_path / "t.tar").write_bytes(data)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert [(m.name, m.size, m.mtime) for m in tar] == [(name, 3, 9)]
    listing = subprocess.run(
        ["tar", "--quoting-style=literal", "-tf", tmp_path / "t.tar"], capture_output=True, check=True
    )
    assert listing.stdout.decode() == name + "\n"
    assert [(m.name, m.mtime) for m in read_members(data, shard="s")] == [(name, 9)]


def test_sizes_beyond_eleven_octal_digits_are_written_as_pax():
    with tarfile.open(fileobj=io.BytesIO(header_bytes("a.bin", 9 << 30) + bytes(1024))) as tar:
        assert tar.next().size == 9 << 30


def test_offsets_point_at_the_bytes():
    file = io.BytesIO()
    writer = TarWriter(file.write)
    writer.add("a", {"txt": "hello"})
    written = writer.add("b", {"txt": "there", "cls": "1"})
    writer.close()
    data = file.getvalue()
    assert {name: data[f.offset : f.offset + f.size] for name, f in written.fields.items()} == {
        "txt": b"there",
        "cls": b"1",
    }
    tail = data[written.offset : written.offset + written.size]
    assert [m.name for m in read_members(tail + bytes(1024), shard="s")] == ["b.cls", "b.txt"]


@pytest.mark.parametrize(
    "key", ["img1.5", "", "a/", "/a", "../a", "a/../b", "a\nb", "__meta__", "__x__/a", "\udc80", "PaxHeaders.3/a"]
)
def test_keys_that_would_read_back_differently_are_refused(key):
    with pytest.raises(sp.UnsafeName):
        TarWriter(lambda data: None).add(key, {"txt": "x"})


@pytest.mark.parametrize("field", ["", "JPG", "a/b", "__key__", "a\0", "\udc80"])
def test_fields_that_would_read_back_differently_are_refused(field):
    with pytest.raises(sp.UnsafeName):
        TarWriter(lambda data: None).add("a", {field: "x"})


def test_names_of_systems_files_which_readers_skip_are_refused():
    shard = TarWriter(lambda data: None)
    shard.add("a", {"db": "x", "ini": "x"})
    for key, field in (("x/Thumbs", "db"), ("desktop", "ini")):
        shard.add(key, {"jpg": "x"})
        with pytest.raises(sp.UnsafeName, match="readers skip"):
            shard.add(f"b/{key}", {"jpg": "x", field: "x"})
    shard.add("PaxHeader", {"jpg": "x"})


def test_text_that_is_no_unicode_is_refused_with_its_field():
    with pytest.raises(sp.ConfigError, match=r"sample 'a': field 'txt' is no valid text"):
        TarWriter(lambda data: None).add("a", {"txt": "\ud800"})


def test_a_refused_sample_leaves_nothing_behind():
    file = io.BytesIO()
    writer = TarWriter(file.write)
    for fields, error in (({"a": "x", "b": 1}, sp.ConfigError), ({}, sp.ConfigError), ({"A": "x"}, sp.UnsafeName)):
        with pytest.raises(error):
            writer.add("k", fields)
    assert file.getvalue() == b""
    writer.add("k", {"a": "x"})
    with pytest.raises(sp.DuplicateKey):
        writer.add("k", {"b": "x"})


keys = st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="."), min_size=1, max_size=40)
fields = st.dictionaries(st.text("abc.", min_size=1, max_size=8), st.binary(max_size=600), min_size=1, max_size=3)


@given(st.dictionaries(keys, fields, max_size=4))
def test_what_is_accepted_reads_back_equal(samples):
    from streampipe.samples import group

    file = io.BytesIO()
    writer = TarWriter(file.write)
    written = []
    for key, values in samples.items():
        try:
            writer.add(key, values)
        except sp.UnsafeName:
            continue
        written.append((key, values))
    writer.close()
    read = group(read_members(file.getvalue(), shard="s"), "s")
    assert [(s["__key__"], {n: v for n, v in s.items() if not n.startswith("__")}) for s in read] == written
