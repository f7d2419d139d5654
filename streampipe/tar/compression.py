"""Compressed shards: chunks in, inflated chunks out, never more at once than was asked for."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from streampipe.errors import ConfigError, CorruptShard, LimitExceeded, TruncatedShard
from streampipe.tar.header import BLOCK, ZERO_BLOCK, is_header
from streampipe.tar.limits import Limits

_BZIP2 = (b"1AY&", b"\x17\x72\x45\x38")  # how a bzip2 stream goes on that has something, or nothing, in it
_PIECE = 1 << 20  # most bytes inflated at once
_FED = (
    1 << 16
)  # given to an inflater at once: what is left behind a stream is copied, and a million streams fit in a chunk
_MAGIC = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"\xfd7zXZ\0", "xz"), (b"BZh", "bzip2"))
_SUFFIXES = {
    "gzip": (".gz", ".tgz"),
    "zstd": (".zst", ".tzst"),
    "xz": (".xz", ".txz"),
    "bzip2": (".bz2", ".tbz2", ".tbz"),
}
_XZ_MEMORY = 256 << 20  # bytes that an xz decoder may ask for; the strongest preset takes 65 MiB


def compression_of(shard: str, head: bytes) -> str | None:
    """``"gzip"``, ``"zstd"``, ``"xz"``, ``"bzip2"`` or None, by the first block of a shard, else by its name.

    >>> compression_of("a.tar", b"\\x1f\\x8b\\x08"), compression_of("a.tgz", b""), compression_of("a.tar", b"0001.jpg")
    ('gzip', 'gzip', None)
    """
    for magic, kind in _MAGIC:
        if head.startswith(magic) and (kind != "bzip2" or (head[3:4] in b"123456789" and head[4:8] in _BZIP2)):
            return kind
    if len(head) >= BLOCK and (head[:BLOCK] == ZERO_BLOCK or is_header(head[:BLOCK])):
        return None  # whatever it is called: what fetched it may have unpacked it
    name = shard.partition("?")[0].lower()
    return next((kind for kind, suffixes in _SUFFIXES.items() if name.endswith(suffixes)), None)


def begun(chunks: Iterable[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """The first block of a shard that comes in chunks of any size, or what there is of it; and all chunks.

    >>> head, chunks = begun([b"ab", b"c"])
    >>> head, list(chunks)
    (b'abc', [b'abc'])
    """
    source, head = iter(chunks), b""
    while len(head) < BLOCK and (more := next(source, b"")):
        head += more
    return head[:BLOCK], chain([head] if head else [], source)


def decompress(
    chunks: Iterable[bytes], *, shard: str, kind: str = "gzip", limits: Limits | None = None
) -> Iterator[bytes]:
    """The inflated bytes of a compressed shard; several compressed streams may follow each other, and zeros the last.

    Raises:
        TruncatedShard: the compressed data ends too early.
        CorruptShard: it is damaged, or something else follows it.
        LimitExceeded: it inflates to more than ``max_inflate_ratio`` times its size (beyond ``inflate_floor`` bytes).
        ConfigError: zstd, without the package that reads it.
    """
    steps = _zstd(chunks, shard) if kind == "zstd" else _inflated(chunks, shard, kind)
    yield from _bounded(steps, shard, limits or Limits())


Step = tuple[int, bytes]  # bytes read, bytes inflated


def _bounded(steps: Iterable[Step], shard: str, limits: Limits) -> Iterator[bytes]:
    read = made = 0
    for taken, piece in steps:
        read += taken
        made += len(piece)
        if made > limits.inflate_floor and made > limits.max_inflate_ratio * max(read, 1):
            raise LimitExceeded(
                f"{shard}: {read} compressed bytes have inflated to {made}, more than "
                f"{limits.max_inflate_ratio} times; raise Limits.max_inflate_ratio if this is meant"
            )
        if piece:
            yield piece


def _inflated(chunks: Iterable[bytes], shard: str, kind: str) -> Iterator[Step]:
    """gzip, xz and bzip2."""
    magic = next(magic for magic, each in _MAGIC if each == kind)
    inflater: _Gzip | _Buffering | None = None
    at = streams = 0
    for piece in (chunk[start : start + _FED] for chunk in chunks for start in range(0, len(chunk), _FED)):
        data, taken = bytes(piece), len(piece)
        at += taken
        while data:
            if inflater is None:
                data = data.lstrip(b"\0") if streams else data
                if not data:
                    break
                if not magic.startswith(data[: len(magic)]):
                    raise CorruptShard(f"{shard}: before byte {at} stands something that is not {kind}; fetch it again")
                inflater = _Gzip() if kind == "gzip" else _Buffering(kind)
            try:
                for made in inflater.pieces(data):
                    yield taken, made
                    taken = 0
            except (zlib.error, lzma.LZMAError, OSError) as error:
                if "Memory usage limit" in str(error):
                    raise LimitExceeded(
                        f"{shard}: its {kind} data needs more than {_XZ_MEMORY} bytes to read"
                    ) from None
                raise CorruptShard(
                    f"{shard}: the {kind} data is damaged before byte {at} ({error}); fetch or write the shard again"
                ) from None
            data = b""
            if inflater.eof:
                data, inflater = inflater.unused_data, None
                streams += 1
    if inflater is not None or streams == 0:
        raise TruncatedShard(f"{shard}: the {kind} data ends at byte {at}, too early; fetch or write the shard again")


class _Gzip:
    """Inflates one gzip stream."""

    def __init__(self) -> None:
        self._inflater = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        """Whether the stream has ended; behind it stands ``unused_data``."""
        return self._inflater.eof

    @property
    def unused_data(self) -> bytes:
        """What was given beyond the end."""
        return self._inflater.unused_data

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """What comes out for some more data, in pieces of a bounded size."""
        while True:
            piece = self._inflater.decompress(data, _PIECE)
            yield piece
            data = self._inflater.unconsumed_tail
            if self._inflater.eof or (not data and len(piece) < _PIECE):
                return


class _Buffering:
    """The same for bzip2 and xz, whose inflaters keep what they have not used yet."""

    def __init__(self, kind: str) -> None:
        self._inflater: Any = (
            bz2.BZ2Decompressor() if kind == "bzip2" else lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY)
        )

    @property
    def eof(self) -> bool:
        """Whether the stream has ended; behind it stands ``unused_data``."""
        return bool(self._inflater.eof)

    @property
    def unused_data(self) -> bytes:
        """What was given beyond the end."""
        return bytes(self._inflater.unused_data)

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """What comes out for some more data, in pieces of a bounded size."""
        while True:
            yield self._inflater.decompress(data, _PIECE)
            data = b""
            if self._inflater.eof or self._inflater.needs_input:
                return


def _zstd(chunks: Iterable[bytes], shard: str) -> Iterator[Step]:
    try:
        import zstandard
    except ImportError:
        raise ConfigError(f"{shard} is compressed with zstd: pip install 'streampipe[zstd]'") from None
    source = _Chunks(chunks)
    inflater: Any = zstandard.ZstdDecompressor(max_window_size=1 << 27)
    reader = inflater.stream_reader(source, read_across_frames=True)
    before = 0
    try:
        while piece := reader.read(_PIECE):
            yield source.read_bytes - before, piece
            before = source.read_bytes
    except zstandard.ZstdError as error:
        raise CorruptShard(
            f"{shard}: the zstd data is damaged before byte {source.read_bytes} ({error}); fetch or write it again"
        ) from None
    if source.read_bytes == 0:
        raise TruncatedShard(f"{shard}: the zstd data is empty; fetch or write the shard again")


class _Chunks:
    """An iterator of chunks as a file to read from."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._held = b""
        self.read_bytes = 0

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes; empty at the end."""
        if not self._held:
            self._held = bytes(next(self._chunks, b""))
        piece = self._held if size < 0 else self._held[:size]
        self._held = self._held[len(piece) :]
        self.read_bytes += len(piece)
        return piece
