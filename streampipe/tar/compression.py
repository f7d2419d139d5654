"""Compressed shards: chunks in, inflated chunks out, never more at once than was asked for."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from streampipe.errors import ConfigError, CorruptShard, LimitExceeded, TruncatedShard
from streampipe.tar.limits import Limits

_PIECE = 1 << 20  # most bytes inflated at once
_MAGIC = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"))
_SUFFIXES = ((".gz", "gzip"), (".tgz", "gzip"), (".zst", "zstd"), (".tzst", "zstd"))


def compression_of(shard: str, head: bytes) -> str | None:
    """``"gzip"``, ``"zstd"`` or None, by the first bytes of a shard, else by its name.

    >>> compression_of("a.tar", b"\\x1f\\x8b\\x08"), compression_of("a.tgz", b""), compression_of("a.tar", b"0001.jpg")
    ('gzip', 'gzip', None)
    """
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    name = shard.partition("?")[0].lower()
    return next((kind for suffix, kind in _SUFFIXES if name.endswith(suffix)), None)


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
    if kind == "zstd":
        yield from _bounded(_zstd(chunks, shard), shard, limits or Limits())
    else:
        yield from _bounded(_gzip(chunks, shard), shard, limits or Limits())


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


def _gzip(chunks: Iterable[bytes], shard: str) -> Iterator[Step]:
    inflater: zlib._Decompress | None = None
    at = members = 0
    for chunk in chunks:
        data, taken = bytes(chunk), len(chunk)
        at += taken
        while True:
            if inflater is None:
                data = data.lstrip(b"\0") if members else data
                if not data:
                    break
                if not b"\x1f\x8b".startswith(data[:2]):
                    raise CorruptShard(f"{shard}: before byte {at} stands something that is not gzip; fetch it again")
                inflater = zlib.decompressobj(wbits=31)
            try:
                piece = inflater.decompress(data, _PIECE)
            except zlib.error as error:
                raise CorruptShard(
                    f"{shard}: the gzip data is damaged before byte {at} ({error}); fetch or write the shard again"
                ) from None
            yield taken, piece
            taken = 0
            if inflater.eof:
                data, inflater = inflater.unused_data, None
                members += 1
            else:
                data = inflater.unconsumed_tail
                if not data and len(piece) < _PIECE:
                    break
    if inflater is not None or members == 0:
        raise TruncatedShard(f"{shard}: the gzip data ends at byte {at}, too early; fetch or write the shard again")


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
