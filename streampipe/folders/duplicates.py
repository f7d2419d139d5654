"""Images that are there twice, byte for byte.

Only images of one size can be equal, so only those are read, and they are compared by a digest of their bytes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter

_BLOCK = 1 << 20


def repeated(folder: str, images: Iterable[tuple[int, int, str]]) -> Iterator[tuple[int, str, str]]:
    """Of images, each (size, number, path), sorted, those that an earlier one equals: number, path, the other's path.

    What cannot be read is equal to nothing: whoever packs it says why.
    """
    for _, same_size in groupby(images, key=itemgetter(0)):
        seen: dict[bytes, str] = {}
        for _, number, path in same_size:
            try:
                digest = _digest(os.path.join(folder, path))
            except OSError:
                continue
            first = seen.setdefault(digest, path)
            if first is not path:
                yield number, path, first


def _digest(path: str) -> bytes:
    digest = hashlib.sha256()
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY), "rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.digest()
