import io
import subprocess
import tarfile
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streampipe as sp
from streampipe.counters import counters
from streampipe.tar import Limits, read_members, stream_members

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def pack(members, format_):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format_) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def info(name, size=0, **attributes):
    result = tarfile.TarInfo(name)
    result.size = size
    for key, value in attributes.items():
        setattr(result, key, value)
    return result


part = st.text(st.characters(blacklist_characters="/\0\n\r", blacklist_categories=("Cs",)), min_size=1, max_size=60)
names = st.lists(part.filter(lambda p: p not in (".", "..")), min_size=1, max_size=6).map("/".join)


@settings(max_examples=150)
@given(st.lists(st.tuples(names, st.binary(max_size=1500)), max_size=5), st.sampled_from(["gnu", "pax"]))
def test_reads_what_tarfile_reads(entries, format_):
    data = pack([(info(name, len(body), mtime=7.25), body) for name, body in entries], FORMATS[format_])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        theirs = [(m.name, tar.extractfile(m).read(), m.mtime, m.offset_data) for m in tar]
    ours = [(m.name, bytes(m.data), m.mtime, m.data_offset) for m in read_members(data, shard="s")]
    assert ours == theirs


@pytest.mark.parametrize("format_", ["ustar", "gnu", "posix", "v7", "oldgnu"])
def test_reads_what_gnu_tar_writes(tmp_path, format_):
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    bodies = {"a.jpg": b"j" * 1000, "a.txt": b"", "sub/b.c.d": b"x" * 512}
    if format_ not in ("v7",):
        bodies["sub/" + "n" * 95 + ".txt"] = b"long"
    for name, body in bodies.items():
        (folder / name).write_bytes(body)
    subprocess.run(
        ["tar", "-cf", tmp_path / "t.tar", f"--format={format_}", "--sort=name", "-C", folder, "."], check=True
    )
    found = {m.name: bytes(m.data) for m in read_members((tmp_path / "t.tar").read_bytes(), shard="s")}
    assert found == {f"./{name}": body for name, body in bodies.items()}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (tarfile.LNKTYPE, "hard link to 'a.jpg'"),
        (tarfile.SYMTYPE, "symbolic link to 'a.jpg'"),
        (tarfile.FIFOTYPE, "fifo"),
        (tarfile.CHRTYPE, "character device"),
        (tarfile.BLKTYPE, "block device"),
    ],
)
def test_what_is_no_file_is_refused_by_name(kind, words):
    data = pack([(info("b.jpg", type=kind, linkname="a.jpg"), b"")], tarfile.PAX_FORMAT)
    with pytest.raises(sp.UnsupportedMember, match=f"'b.jpg' is a {words}"):
        list(read_members(data, shard="s"))


@pytest.mark.parametrize("format_", ["gnu", "posix"])
def test_sparse_files_are_refused(tmp_path, format_):
    with open(tmp_path / "s.bin", "wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
    subprocess.run(["tar", "-cSf", tmp_path / "t.tar", f"--format={format_}", "-C", tmp_path, "s.bin"], check=True)
    with pytest.raises(sp.UnsupportedMember, match="sparse"):
        list(read_members((tmp_path / "t.tar").read_bytes(), shard="s"))


@pytest.mark.parametrize("name", ["/etc/passwd", "../a.jpg", "a/../../b.jpg", "a\nb.jpg"])
def test_unsafe_names_are_refused(name):
    with pytest.raises(sp.UnsafeName):
        list(read_members(pack([(info(name), b"")], tarfile.PAX_FORMAT), shard="s"))


def test_two_dots_inside_a_name_are_fine():
    data = pack([(info("a..b/c..jpg"), b"")], tarfile.PAX_FORMAT)
    assert [m.name for m in read_members(data, shard="s")] == ["a..b/c..jpg"]


def with_size(field):
    from streampipe.tar.header import checksum

    block = bytearray(pack([(info("a.jpg", 4), b"data")], tarfile.USTAR_FORMAT))
    block[124:136] = field
    block[148:156] = b"%06o\0 " % checksum(bytes(block[:512]))
    return bytes(block)


@pytest.mark.parametrize(
    "field", [b"-0000001750\0", b"+0000001750\0", b"00_00001750\0", b"0000000008\0 ", b"\xff" * 12]
)
def test_sizes_that_are_no_octal_numbers_are_refused(field):
    with pytest.raises(sp.CorruptShard, match="size field"):
        list(read_members(with_size(field), shard="s"))


def test_a_size_beyond_the_archive_is_truncation_and_one_beyond_the_limit_is_refused():
    with pytest.raises(sp.TruncatedShard, match="inside 'a.jpg'"):
        list(read_members(with_size(b"00010000000\0"), shard="s"))
    huge = with_size(b"\x80" + (8 << 30).to_bytes(11, "big"))
    for read in (read_members(huge, shard="s"), stream_members([huge], shard="s")):
        with pytest.raises(sp.LimitExceeded, match="max_member_bytes"):
            list(read)


def test_large_extended_headers_are_refused_before_they_are_read():
    data = pack([(info("n" * 70_000 + ".jpg"), b"")], tarfile.PAX_FORMAT)
    with pytest.raises(sp.LimitExceeded, match="max_header_bytes"):
        list(read_members(data, shard="s"))
    assert len(list(read_members(data, shard="s", limits=Limits(max_header_bytes=1 << 20)))) == 1


def test_a_size_in_base_256_is_read():
    (member,) = read_members(with_size(b"\x80" + (4).to_bytes(11, "big")), shard="s")
    assert bytes(member.data) == b"data"


def test_an_empty_file_is_an_empty_field():
    (member,) = read_members(pack([(info("a.txt"), b"")], tarfile.PAX_FORMAT), shard="s")
    assert bytes(member.data) == b""


def extended(kind, payload):
    """An extended header alone, without the member that it speaks of."""
    return info("x", len(payload), type=kind).tobuf(tarfile.USTAR_FORMAT) + payload + bytes(-len(payload) % 512)


def record(name, value):
    size = len(name) + len(value) + 3
    size += len(str(size + len(str(size))))
    return b"%d %s=%s\n" % (size, name, value)


@pytest.mark.parametrize("kind", [b"x", b"g", b"L"])
def test_extended_headers_before_one_member_are_bounded_together(kind):
    payload = b"n" * 5000 if kind == b"L" else record(b"comment", b"c" * 5000)
    data = extended(kind, payload) * 14 + pack([(info("a.jpg", 4), b"data")], tarfile.USTAR_FORMAT)
    for read in (read_members(data, shard="s"), stream_members([data[:9000], data[9000:]], shard="s")):
        with pytest.raises(sp.LimitExceeded, match="max_header_bytes"):
            list(read)


def test_any_number_of_global_headers_costs_linear_time_and_no_memory():
    member = pack([(info("a.jpg", 4), b"data")], tarfile.USTAR_FORMAT)[:1024]
    records = [b"".join(record(b"k%d" % (1000 * i + j), b"v") for j in range(1000)) for i in range(200)]
    entries = [extended(b"g", each) + member for each in records]
    start = time.process_time()
    list(read_members(b"".join(entries[:100]) + bytes(1024), shard="s"))
    half = time.process_time()
    tracemalloc.start()
    assert sum(1 for _ in stream_members([*entries, bytes(1024)], shard="s")) == 200
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
    assert half - start < 10  # a second at most; squared it would be a minute


def test_a_global_header_speaks_of_all_members_behind_it():
    member = pack([(info("a.jpg", 4), b"data")], tarfile.USTAR_FORMAT)[:1024]
    data = extended(b"g", record(b"mtime", b"7.5") + record(b"comment", b"hello")) + member + member + bytes(1024)
    assert [m.mtime for m in read_members(data, shard="s")] == [7.5, 7.5]
    sparse = extended(b"g", record(b"GNU.sparse.major", b"1")) + member + bytes(1024)
    with pytest.raises(sp.UnsupportedMember, match="sparse"):
        list(read_members(sparse, shard="s"))


def test_names_that_are_not_utf8_can_be_printed_and_are_counted():
    data = bytearray(pack([(info("a.jpg"), b"")], tarfile.USTAR_FORMAT))
    data[0] = 0xE4
    from streampipe.tar.header import checksum

    data[148:156] = b"%06o\0 " % checksum(bytes(data[:512]))
    counters.take()
    (member,) = read_members(bytes(data), shard="s")
    assert member.name == "\\xe4.jpg"
    assert counters.get("reading", "names that are not UTF-8") == 1


def test_payloads_over_a_buffer_are_views_not_copies():
    data = pack([(info("a.jpg", 4), b"data")], tarfile.USTAR_FORMAT)
    (member,) = read_members(data, shard="s")
    assert isinstance(member.data, memoryview)
    assert member.data.obj is data
