"""Where cached values are kept: in memory, bounded in entries; on disk, bounded in bytes."""

from __future__ import annotations

import copy
import os
import re
import threading
from collections import OrderedDict
from typing import Any

from streampipe.atomic import delete_if_free, target_of, write_atomic
from streampipe.decorators.codec import decode, encode

MISS = object()
_VALUE = re.compile(r"[0-9a-f]{40}\.value")


class Memory:
    """The ``size`` values that were used last. What comes out is a copy, so nobody can change what is kept."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._values: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> Any:
        """The value, or MISS."""
        with self._lock:
            if key not in self._values:
                return MISS
            self._values.move_to_end(key)
            value = self._values[key]
        return copy.deepcopy(value)

    def put(self, key: str, value: Any) -> int:
        """Keep a value; how many others had to go."""
        kept = copy.deepcopy(value)
        with self._lock:
            self._values[key] = kept
            self._values.move_to_end(key)
            gone = max(0, len(self._values) - self.size)
            for _ in range(gone):
                self._values.popitem(last=False)
        return gone

    def __reduce__(self) -> Any:
        return Memory, (self.size,)  # values and lock stay behind: another process begins with nothing


class Disk:
    """Values in files of a folder, up to ``limit`` bytes, shared by processes. A damaged file is a miss.

    What killed processes left behind is deleted when the folder is gone through: at a process's first value, and
    whenever it is full.
    """

    def __init__(self, folder: str, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        self._bytes: int | None = None  # what is there, as far as this process knows

    def get(self, key: str) -> Any:
        """The value, or MISS."""
        path = self._path(key)
        try:
            with open(path, "rb") as file:
                value = decode(file.read())
            os.utime(path)  # used now: eviction takes the one that was not used for longest
        except (OSError, ValueError, KeyError, TypeError):
            return MISS
        return value

    def put(self, key: str, value: Any) -> int:
        """Keep a value; how many others had to go. Readers see a whole file or none."""
        data = encode(value)
        path = self._path(key)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            write_atomic(path, data, sync=False)  # its checksum is compared when it is read
        except OSError:  # a full disk: the value is not kept, and nothing is left behind
            return 0
        self._bytes = self._total() if self._bytes is None else self._bytes + len(data)
        return self._evict() if self._bytes > self.limit else 0

    def _path(self, key: str) -> str:
        return os.path.join(self.folder, key[:2], key + ".value")

    def _files(self) -> list[tuple[float, int, str]]:
        found = []
        for folder, _, names in os.walk(self.folder):
            for name in names:
                if _VALUE.fullmatch(target_of(name) or ""):
                    delete_if_free(os.path.join(folder, name))
                elif _VALUE.fullmatch(name):  # nothing that was not written here is ever touched
                    try:
                        facts = os.stat(os.path.join(folder, name))
                    except OSError:
                        continue
                    found.append((facts.st_mtime, facts.st_size, os.path.join(folder, name)))
        return sorted(found)

    def _total(self) -> int:
        return sum(size for _, size, _ in self._files())

    def _evict(self) -> int:
        files = self._files()
        self._bytes = sum(size for _, size, _ in files)
        gone = 0
        for _, size, path in files:
            if self._bytes <= 0.9 * self.limit:  # some room, so that not every value has to look
                break
            try:
                os.unlink(path)
            except OSError:
                continue
            self._bytes -= size
            gone += 1
        return gone
