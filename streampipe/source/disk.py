"""What a cache does with files: marks of ownership, room on the disk, deleting only one's own."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import struct
from pathlib import Path
from typing import NamedTuple

from streampipe.atomic import delete_if_free, is_same, open_regular, target_of, unlink
from streampipe.source.store import Pin

SHARD, LOCK = ".shard", ".lock"
MARK = b"streampipe-cache-1"
TAIL = struct.Struct("<I18s")  # length of the JSON, and the mark
_SHARD_NAME = re.compile(r"[0-9a-f]{40}(\.shard)?")
_LOCK_NAME = re.compile(r"[0-9a-f]{40}\.lock")


class Kept(NamedTuple):
    """A kept shard, as its file says."""

    size: int
    version: str | None
    crc: int


def read_tail(file: int, size: int) -> Kept | None:
    """What a file says of itself; None if it is not a kept shard."""
    tail = os.pread(file, TAIL.size, size - TAIL.size) if size >= TAIL.size else b""
    if len(tail) < TAIL.size:
        return None
    length, mark = TAIL.unpack(tail)
    start = size - TAIL.size - length
    if mark != MARK or length > 4096 or start < 0:
        return None
    try:
        facts = json.loads(os.pread(file, length, start))
        kept = Kept(int(facts["size"]), facts["version"], int(facts["crc32"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return kept if kept.size == start else None


def other_version(kept: Kept, pin: Pin) -> bool:
    """Whether a kept shard is known to be another version than the pinned one."""
    changed = pin.mark is not None and kept.version is not None and pin.mark != kept.version
    return changed or (pin.size is not None and pin.size != kept.size)


def evict(path: Path) -> bool:
    """Delete a kept shard that is ours and that nobody uses."""
    try:
        file = open_regular(path)
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
        return is_same(file, path) and unlink(path)
    finally:
        os.close(file)


def delete_abandoned(path: Path) -> bool:
    """Delete a part or lock of the cache whose owner is gone, as its lock says."""
    target = target_of(path.name)
    ours = _LOCK_NAME.fullmatch(path.name) if target is None else _SHARD_NAME.fullmatch(target)
    return bool(ours) and delete_if_free(path)


def reserve(file: int, size: int) -> None:
    """Take the room now: a full disk is then found before anything is downloaded."""
    if not hasattr(os, "posix_fallocate"):
        return
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


def progress_of(path: Path) -> int:
    """A number that changes while a file is written."""
    try:
        return path.stat().st_blocks + path.stat().st_mtime_ns
    except OSError:
        return 0
