"""Images that are there twice: byte for byte, or as the eye has it. Of those that are the same, the first one stays.

Equal are images whose bytes have one digest. Alike are those whose perceptual hashes (64 bits, of the imagehash
library) differ in at most 4 bits: sizes, formats, qualities differ, the picture does not. Two hashes that differ in 4
bits agree in one of five parts of them, so the candidates are looked up by their parts, in a temporary file.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

from streampipe.decoding import decode_image
from streampipe.errors import ConfigError, DecodeError
from streampipe.source import Source, local_path

ALIKE = "alike"
_BLOCK = 1 << 20
_BITS = 4
_PARTS = tuple((13 * part, (1 << 13) - 1) for part in range(_BITS + 1))


class Seen:
    """The images that were seen so far. Closed, it is gone.

    Args:
        how: ``True``: equal, byte for byte; ``"alike"``: to the eye, too.

    Raises:
        ConfigError: ``how`` is neither, or the library of perceptual hashes is missing.
    """

    def __init__(self, how: bool | str) -> None:
        if how not in (True, ALIKE):
            raise ConfigError(f"deduplicate is True, False or {ALIKE!r}, not {how!r}")
        self._hashes: Any = _imagehash() if how == ALIKE else None
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA temp_store=FILE;"
            "CREATE TABLE seen(number INT, part INT, value BLOB, whole BLOB, name TEXT);"
            "CREATE INDEX by_value ON seen(value, part); BEGIN;"
        )
        self._count = 0

    def close(self) -> None:
        """Let the temporary file go."""
        self._db.close()

    def mark(self, blocks: Iterable[bytes]) -> bytes | None:
        """What an image is known by; None for one that cannot be read or decoded, which is the same as no other."""
        try:
            if self._hashes is None:
                digest = hashlib.sha256()
                for block in blocks:
                    digest.update(block)
                return digest.digest()
            found = self._hashes.phash(decode_image(b"".join(blocks), output="pil"))
            return bytes.fromhex(str(found))
        except (OSError, DecodeError):  # whoever packs it says why
            return None

    def first(self, mark: bytes, name: str) -> str | None:
        """The name of the first image that this one is the same as; None: it is new, and remembered."""
        found = [
            (number, other)
            for part, value in self._parts(mark)
            for number, whole, other in self._db.execute(
                "SELECT number, whole, name FROM seen WHERE value = ? AND part = ?", (value, part)
            )
            if self._hashes is None or _differences(whole, mark) <= _BITS
        ]
        if found:
            return str(min(found)[1])
        rows = [(self._count, part, value, mark, name) for part, value in self._parts(mark)]
        self._db.executemany("INSERT INTO seen VALUES (?, ?, ?, ?, ?)", rows)
        self._count += 1
        return None

    def _parts(self, mark: bytes) -> list[tuple[int, Any]]:
        if self._hashes is None:
            return [(0, mark)]
        bits = int.from_bytes(mark, "big")
        return [(shift, bits >> shift & mask) for shift, mask in _PARTS]


def blocks_of(folder: str, path: str, source: Source | None) -> Iterator[bytes]:
    """The bytes of a file of a folder, in blocks; ``source`` reads one of a store."""
    if local_path(folder) is None:
        yield (source or Source()).read(f"{folder}/{path}")
        return
    place = os.path.join(folder, path)
    with open(os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY), "rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            yield block


def _differences(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).bit_count()


def _imagehash() -> Any:
    try:
        import imagehash
    except ImportError:
        raise ConfigError(
            f"deduplicate={ALIKE!r} needs one more package: pip install 'streampipe[perceptual]'"
        ) from None
    return imagehash
