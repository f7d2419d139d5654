"""Shards whose index is known when they are written: what a scan would find, without reading them again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from streampipe.checksum import Hashes, crc32
from streampipe.decoding.codec import ImageHeader
from streampipe.index.known import Known
from streampipe.index.scan import Rows
from streampipe.index.table import ShardIndex
from streampipe.tar import TarWriter


class IndexWriter:
    """Writes samples as a shard, and notes its index meanwhile: byte for byte the one that ``scan`` makes of it.

    >>> import io
    >>> file = io.BytesIO()
    >>> shard = IndexWriter(file.write, "a.tar")
    >>> shard.add("0001", {"txt": b"a cat", "json": b'{"score": 3}'})
    >>> index = shard.close()
    >>> index.keys(), index.columns(["score"])["score"].to_pylist(), index.shard_bytes == len(file.getvalue())
    (['0001'], [3], True)

    Without ``sha256`` the index has none of the shard, and is as it is otherwise: each sample has its crc32.
    ``hashes`` makes it.
    """

    def __init__(
        self, write: Callable[[bytes], object], name: str, sha256: bool = True, hashes: Hashes | None = None
    ) -> None:
        self._into = write
        self._digest = hashlib.sha256() if sha256 else None
        self._hashes = hashes or Hashes()
        self._crc32 = 0
        self._rows = Rows(name, Known())
        self._tar = TarWriter(self._write)

    @property
    def offset(self) -> int:
        """The bytes that were written."""
        return self._tar.offset

    def add(self, key: str, fields: Mapping[str, bytes]) -> ImageHeader | None:
        """Write one sample. What the header of its main image says; None where there is none, or a damaged one.

        Raises:
            UnsafeName, DuplicateKey, ConfigError: as ``TarWriter.add``; nothing of it is written then.
        """
        self._crc32 = 0
        return self._rows.written(self._tar.add(key, fields), fields, self._crc32)

    def close(self) -> ShardIndex:
        """Write the end marker. The index."""
        self._tar.close()
        facts: dict[str, Any] = {"bytes": self._tar.offset}
        self._hashes.finish()
        if self._digest is not None:
            facts["sha256"] = self._digest.hexdigest()
        return self._rows.to_index(facts, set())

    def _write(self, data: bytes) -> None:
        self._into(data)
        if self._digest is not None:
            self._hashes.update(self._digest, data)
        self._crc32 = crc32(data, self._crc32)
