"""What a cache does with files: locks that are not waited for, marks of ownership, deleting only one's own."""

from __future__ import annotations

import errno
import fcntl
import json
import mmap
import os
import struct
from pathlib import Path
from typing import NamedTuple

from streampipe.source.http import Pin

MARK = b"streampipe-cache-1"
TAIL = struct.Struct("<I18s")  # length of the JSON, and the mark


class Kept(NamedTuple):
    """A kept shard, as its file says."""

    size: int
    version: str | None
    crc: int


def read_tail(file: int, size: int) -> Kept | None:
    """What a file says of itself; None if it is not a kept shard."""
    if size < TAIL.size:
        return None
    length, mark = TAIL.unpack(os.pread(file, TAIL.size, size - TAIL.size))
    start = size - TAIL.size - length
    if mark != MARK or length > 4096 or start < 0:
        return None
    try:
        facts = json.loads(os.pread(file, length, start))
        kept = Kept(int(facts["size"]), facts["version"], int(facts["crc32"]))
    except (ValueError, KeyError, TypeError):
        return None
    return kept if kept.size == start else None


def other_version(kept: Kept, pin: Pin) -> bool:
    changed = pin.version is not None and kept.version is not None and pin.version != kept.version
    return changed or (pin.size is not None and pin.size != kept.size)


def mapped(file: int, size: int) -> memoryview:
    return memoryview(mmap.mmap(file, size, access=mmap.ACCESS_READ)) if size else memoryview(b"")


def lock(file: int, how: int) -> bool:
    """A lock if there is one to be had at once."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def evict(path: Path) -> bool:
    """Delete a kept shard that is ours and that nobody uses."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        if read_tail(file, os.fstat(file).st_size) is None:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass  # no locks here: whoever uses it keeps what is open
        return unlink(path)
    finally:
        os.close(file)


def delete_abandoned(path: Path) -> bool:
    """Delete a part whose writer is gone, as its lock says. Where locks do not work it is left alone."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return len(path.name.split(".")) == 3 and unlink(path)
    except OSError:
        return False
    finally:
        os.close(file)


def reserve(file: int, size: int) -> None:
    """Take the room now: a full disk is then found before anything is downloaded."""
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise


def planted(folder: os.stat_result) -> str | None:
    """Why what a folder holds may not be ours, and what to do; None where nobody else could have put it there."""
    if folder.st_uid != os.geteuid():
        return f"belongs to user {folder.st_uid}, not to you: whoever owns it could plant training data; chown it"
    if folder.st_mode & 0o022:
        return "can be written by others, who could plant training data; chmod go-w it"
    return None


def is_same(file: int, path: Path) -> bool:
    try:
        return os.fstat(file).st_ino == path.stat().st_ino
    except OSError:
        return False


def progress_of(path: Path) -> int:
    try:
        return path.stat().st_blocks + path.stat().st_mtime_ns
    except OSError:
        return 0


def unlink(path: Path) -> bool:
    try:
        os.unlink(path)
    except OSError:
        return False
    return True
