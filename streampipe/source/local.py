"""Files of this machine, read as they are asked for.

They are not mapped: a file that shrinks while it is mapped (``rsync --inplace``, a writer that begins anew) kills every
process that touches what is gone, and no check before the touch helps, because samples are used long after they were
read. A read of what is gone is a short read, which is an error. It costs one copy: 20 us for a sample of 100 kB.
"""

from __future__ import annotations

import fnmatch
import glob
import mmap
import os
import re
import stat
from collections.abc import Iterator
from datetime import datetime, timezone
from time import perf_counter

from streampipe.counters import counters
from streampipe.errors import ShardChanged
from streampipe.observe import Tally
from streampipe.source.location import local_path, redact
from streampipe.source.store import Pin

DISK = "reading files"
"""The name under which reading files is counted."""
BLOCK = 512 << 10
"""Bytes of a piece: what a processor keeps near itself, so that a further copy costs little."""
_ESCAPED = re.compile(r"\[([*?[])\]")


class LocalFile:
    """An open file. It is closed when nobody holds it any more.

    Args:
        url: for messages.
        file: a descriptor, which becomes this object's.
        size: bytes that count, from the first on; None: all.
    """

    def __init__(self, url: str, file: int, size: int | None = None) -> None:
        self.url = url
        self._file = file
        self.size = os.fstat(file).st_size if size is None else size

    def __len__(self) -> int:
        return self.size

    def __bytes__(self) -> bytes:
        return self.read(0, self.size)

    def read(self, start: int, end: int) -> bytes:
        """The bytes [start, end), or as far as the file had any when it was opened.

        Raises:
            ShardChanged: it has become shorter since.
        """
        if not start <= end <= self.size:
            end = max(start, min(end, self.size))
        data = os.pread(self._file, end - start, start)
        while len(data) < end - start:  # the kernel gives 2 GB at a time
            more = os.pread(self._file, end - start - len(data), start + len(data))
            if not more:
                raise self._cut_off()
            data += more
        return data

    def watched(self, start: int, end: int, tally: Tally) -> bytes:
        """``read``, with what it reads counted, and while times are taken timed."""
        began = perf_counter() if tally.stack.on else 0.0
        data = self.read(start, end)
        if began:
            tally.busy += perf_counter() - began
        tally.bytes += len(data)
        return data

    def _cut_off(self) -> ShardChanged:
        return ShardChanged(
            f"{redact(self.url)} was cut off while it was read: it had {self.size} bytes, and has "
            f"{os.fstat(self._file).st_size} now; write shards under another name and rename them when they are whole, "
            f"then begin the epoch anew"
        )

    def pieces(self, start: int = 0) -> Iterator[bytes]:
        """All bytes from ``start`` on."""
        tally = counters.tally(DISK)
        for at in range(start, self.size, BLOCK):
            yield self.watched(at, at + BLOCK, tally)

    def mapped(self) -> memoryview:
        """All bytes as memory, for who looks at headers only, once."""
        return memoryview(mmap.mmap(self._file, self.size, access=mmap.ACCESS_READ)) if self.size else memoryview(b"")

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def open_local(path: str, url: str) -> LocalFile | None:
    """A file of this name; None for what is no regular file: a named pipe gives its bytes once.

    Raises:
        OSError: there is none, or it may not be read.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        return None
    return LocalFile(url, os.open(path, os.O_RDONLY | os.O_CLOEXEC))


def pin_of(file: str | int) -> Pin:
    """Which version of a file is there now, as far as its size and date tell.

    Raises:
        OSError: it is not there.
    """
    facts = os.stat(file)
    seconds, rest = divmod(facts.st_mtime_ns, 10**9)
    return Pin(facts.st_size, None, f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d %H:%M:%S}.{rest:09d}")


def of_one_folder(pattern: str) -> list[str] | None:
    """What matches a glob, sorted, if it is of one local folder (``/data/shards/*.tar``); else None.

    It is the usual one, and a folder may hold 10^5 files: it is read, and nothing is asked of each.
    """
    folder, slash, name = pattern.rpartition("/")
    plain = _ESCAPED.sub(r"\1", folder)
    plainly = "://" not in pattern and local_path(pattern) is not None
    if not plainly or not glob.has_magic(name) or "**" in name or glob.escape(plain) != folder:
        return None
    if not os.path.isabs(pattern):
        plain = os.path.relpath(plain or ".")
        slash, plain = ("", "") if plain == "." else ("/", plain)
    matches = re.compile(fnmatch.translate(name)).match
    try:
        return sorted(f"{plain}{slash}{each}" for each in os.listdir(plain or slash or ".") if matches(each))
    except (FileNotFoundError, NotADirectoryError):
        return []
