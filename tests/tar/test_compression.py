import gzip
import resource
import zlib

import pytest
import zstandard

import streampipe as sp
from streampipe.tar import Limits, compression, compression_of, decompress
from tests.data import shard

DATA = shard([("a", {"txt": "hello" * 500})])


def inflate(data, kind="gzip", size=100, **options):
    chunks = [data[i : i + size] for i in range(0, len(data), size)]
    return b"".join(decompress(chunks, shard="s.tar.gz", kind=kind, **options))


@pytest.mark.parametrize("size", [1, 10, 1 << 20])
def test_gzip_of_several_members_and_zero_padding(size):
    assert inflate(gzip.compress(DATA), size=size) == DATA
    assert inflate(gzip.compress(DATA[:3000]) + gzip.compress(DATA[3000:]) + bytes(700), size=size) == DATA


def test_an_inflater_is_given_little_at_once_because_what_follows_a_stream_is_copied(monkeypatch):
    """A million streams of nothing in one chunk would be copied a million times."""
    given, pieces = [], compression._Gzip.pieces
    monkeypatch.setattr(compression._Gzip, "pieces", lambda self, data: given.append(len(data)) or pieces(self, data))
    assert b"".join(decompress([gzip.compress(b"") * 20_000], shard="a.tar.gz")) == b""
    assert max(given) <= 1 << 16


def test_zstd_of_several_frames():
    frame = zstandard.ZstdCompressor()
    data = frame.compress(DATA[:3000]) + frame.compress(DATA[3000:])
    assert inflate(data, "zstd") == DATA
    with pytest.raises(sp.CorruptShard):
        inflate(data[:10] + b"garbage" + data[17:], "zstd")


def test_every_truncation_of_gzip_is_an_error():
    data = gzip.compress(DATA)
    for length in range(len(data)):
        with pytest.raises(sp.TruncatedShard):
            inflate(data[:length])


def test_trailing_junk_and_damage_are_errors():
    with pytest.raises(sp.CorruptShard, match="not gzip"):
        inflate(gzip.compress(DATA) + b"junk")
    broken = bytearray(gzip.compress(DATA))
    broken[len(broken) // 2] ^= 255
    with pytest.raises(sp.CorruptShard, match="damaged"):
        inflate(bytes(broken))


def test_a_bomb_is_stopped_early():
    packer = zlib.compressobj(9, wbits=31)
    piece = packer.compress(bytes(1 << 20))
    bomb = piece + b"".join(packer.compress(bytes(1 << 20)) for _ in range(600)) + packer.flush()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    out = 0
    with pytest.raises(sp.LimitExceeded, match="200 times"):
        for chunk in decompress([bomb], shard="s.tar.gz"):
            out += len(chunk)
    assert out < 150 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # kilobytes
    assert sum(map(len, decompress([bomb], shard="s", limits=Limits(max_inflate_ratio=2000)))) == 601 << 20


def test_compression_is_seen_in_the_content_before_the_name():
    assert compression_of("a.tar", gzip.compress(b"")[:8]) == "gzip"
    assert compression_of("a.tar.zst", b"") == "zstd"
    assert compression_of("s3://b/a.tgz?versionId=3", b"") == "gzip"
    assert compression_of("a.tar", DATA[:8]) is None
    assert compression_of("a.tar.gz", DATA) is None  # fetched, and unpacked on the way
    assert compression_of("a.tar.gz", bytes(1024)) is None
    assert compression_of("a.tar.gz", b"x" * 1024) == "gzip"


@pytest.mark.parametrize("tier", [None, "sequential"])
def test_a_plain_shard_with_the_name_of_a_compressed_one_is_read(tmp_path, tier):
    (tmp_path / "0.tar.gz").write_bytes(DATA)
    assert [each["__key__"] for each in sp.stream(str(tmp_path), tier=tier)] == ["a"]
