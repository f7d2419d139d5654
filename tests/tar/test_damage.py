"""Nothing silent: every one-bit flip in every header and every truncation of small archives."""

import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streampipe as sp
from streampipe.tar import Limits, read_members, stream_members
from tests.data import shard

LONG = "d" * 90 + "/" + "n" * 90 + ".txt"


def archive(format_, names=("a.jpg", "b.txt")):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format_) as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = 700, 1234567890.5 if format_ == tarfile.PAX_FORMAT else 1234567890
            tar.addfile(info, io.BytesIO(name[:1].encode() * 700))
    return file.getvalue()


ARCHIVES = {
    "ours": shard([("a", {"txt": "x" * 600, "jpg": b"y" * 10}), ("b", {"txt": "z"})]),
    "ustar": archive(tarfile.USTAR_FORMAT),
    "ustar prefix": archive(tarfile.USTAR_FORMAT, ("a.jpg", LONG)),
    "gnu": archive(tarfile.GNU_FORMAT),
    "gnu long name": archive(tarfile.GNU_FORMAT, ("a.jpg", LONG)),
    "pax": archive(tarfile.PAX_FORMAT),
}


def contents(data):
    return [(member.name, bytes(member.data)) for member in read_members(data, shard="s.tar")]


def header_blocks(data):
    """Offsets of all header blocks, those of extended headers too."""
    at, found = 0, []
    while any(data[at : at + 512]):
        found.append(at)
        size = int(data[at + 124 : at + 135], 8)
        at += 512 + size + -size % 512
    return found, at


@pytest.mark.parametrize("kind", ARCHIVES)
def test_every_flipped_header_bit_is_an_error(kind):
    data = ARCHIVES[kind]
    headers, end = header_blocks(data)
    silent = []
    for start in [*headers, end, end + 512]:
        for byte in range(start, start + 512):
            for bit in range(8):
                damaged = bytearray(data)
                damaged[byte] ^= 1 << bit
                try:
                    contents(damaged)
                except sp.ShardError as error:
                    assert "s.tar" in str(error)
                else:
                    silent.append((byte - start, bit))
    # The last byte of a checksum field is a blank or a NUL: the bit between them changes nothing that is said.
    assert set(silent) <= {(155, 5)}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_every_truncation_is_an_error(kind):
    data = ARCHIVES[kind]
    _, end = header_blocks(data)
    for length in range(end + 1024):
        with pytest.raises(sp.TruncatedShard, match=rf"s\.tar ends at byte {length},"):
            contents(data[:length])
    for length in range(end + 1024, len(data), 97):
        assert contents(data[:length]) == contents(data)


@pytest.mark.parametrize("kind", ARCHIVES)
def test_streaming_gives_the_same_members_and_errors_however_it_is_cut(kind):
    data = ARCHIVES[kind]
    whole = contents(data)
    for size in (1, 7, 511, 512, 513, 4096):
        chunks = [data[i : i + size] for i in range(0, len(data), size)]
        members = list(stream_members(chunks, shard="s.tar"))
        assert [(m.name, bytes(m.data)) for m in members] == whole
        assert [m.data_offset for m in members] == [m.data_offset for m in read_members(data, shard="s.tar")]
    for length in range(0, 2600, 37):
        with pytest.raises(sp.TruncatedShard) as from_buffer:
            contents(data[:length])
        chunks = [data[:length][i : i + 100] for i in range(0, length, 100)]
        with pytest.raises(sp.TruncatedShard) as from_stream:
            list(stream_members(chunks, shard="s.tar"))
        assert str(from_buffer.value) == str(from_stream.value)


@given(st.binary(max_size=3000))
def test_arbitrary_bytes_give_members_or_a_shard_error(data):
    for read in (read_members(data, shard="s"), stream_members([data[:700], data[700:]], shard="s")):
        try:
            list(read)
        except sp.ShardError:
            pass


@settings(max_examples=300)
@given(st.sampled_from(sorted(ARCHIVES)), st.integers(0, 4000), st.binary(min_size=1, max_size=40))
def test_overwritten_stretches_never_shorten_an_archive(kind, at, noise):
    data = bytearray(ARCHIVES[kind])
    at %= len(data)
    data[at : at + len(noise)] = noise
    try:
        found = contents(bytes(data))
    except sp.ShardError:
        return
    assert len(found) == len(contents(ARCHIVES[kind]))


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (b"", sp.TruncatedShard, "ends at byte 0"),
        (b"<html><body>404</body></html>" * 40, sp.CorruptShard, "<html>"),
        (bytes(512) + ARCHIVES["ours"], sp.CorruptShard, "lone block of zeros"),
        (ARCHIVES["ours"] + ARCHIVES["ustar"], sp.CorruptShard, "concatenated=True"),
        (ARCHIVES["ours"][:-100] + b"x" + bytes(99), sp.CorruptShard, "more data behind"),
        (ARCHIVES["ours"][:512] + b"garbage " * 64 + ARCHIVES["ours"][512:], sp.CorruptShard, "checksum"),
    ],
)
def test_what_is_no_archive_is_named(data, error, words):
    with pytest.raises(error, match=words):
        contents(data)
    with pytest.raises(error, match=words):
        list(stream_members([data[i : i + 300] for i in range(0, len(data), 300)], shard="s"))


def test_an_archive_of_zeros_alone_is_empty():
    assert contents(bytes(10240)) == []


def test_concatenated_archives_are_read_where_asked_for():
    data, both = ARCHIVES["ours"] + ARCHIVES["ustar"], Limits(concatenated=True)
    names = [member.name for member in read_members(data, shard="s", limits=both)]
    assert names == ["a.jpg", "a.txt", "b.txt", "a.jpg", "b.txt"]
    chunks = [data[i : i + 1000] for i in range(0, len(data), 1000)]
    assert [member.name for member in stream_members(chunks, shard="s", limits=both)] == names


@pytest.mark.parametrize("tier", ["planned", "sequential"])
def test_concatenated_archives_can_be_streamed_in_both_tiers(tmp_path, tier):
    (tmp_path / "a.tar").write_bytes(shard([("a", {"txt": "1"})]) + shard([("b", {"txt": "2"})]))
    with pytest.raises(sp.CorruptShard, match=r"sp\.Limits\(concatenated=True\)"):
        list(sp.stream(tmp_path / "a.tar", tier=tier))
    pipe = sp.stream(tmp_path / "a.tar", tier=tier, limits=sp.Limits(concatenated=True))
    assert [(sample["__key__"], sample["txt"]) for sample in pipe] == [("a", b"1"), ("b", b"2")]
