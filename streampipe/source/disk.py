"""What a cache does with files: locks that are not waited for, marks of ownership, deleting only one's own."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import re
import socket
import stat
import struct
from pathlib import Path
from typing import NamedTuple

from streampipe.source.store import Pin

PART, SHARD, LOCK = ".part", ".shard", ".lock"
MARK = b"streampipe-cache-1"
TAIL = struct.Struct("<I18s")  # length of the JSON, and the mark


_PART_NAME = re.compile(r"[0-9a-f]{40}\.[\w-]+-\d+-[0-9a-f]{16}\.part")
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


def lock(file: int, how: int) -> bool:
    """A lock if there is one to be had at once."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def unique() -> str:
    """A part of a file name that no other thread, process or host has."""
    host = re.sub(r"[^\w-]", "_", socket.gethostname(), flags=re.ASCII)
    return f"{host}-{os.getpid()}-{random.SystemRandom().getrandbits(64):016x}"


def open_regular(path: Path, how: int = os.O_RDONLY) -> int:
    """A descriptor of a file that is nothing but a file; a named pipe of this name is not waited for.

    Raises:
        FileNotFoundError: there is none.
    """
    file = os.open(path, how | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise FileNotFoundError(errno.ENOENT, "no regular file", str(path))
    return file


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
    """Delete a part or lock whose owner is gone, as its lock says. Where locks do not work it is left alone."""
    if not (_PART_NAME.fullmatch(path.name) or _LOCK_NAME.fullmatch(path.name)):
        return False
    try:
        file = open_regular(path, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return is_same(file, path) and unlink(path)
    except OSError:
        return False
    finally:
        os.close(file)


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


def is_same(file: int, path: Path) -> bool:
    """Whether a descriptor is still that of the file of this name."""
    try:
        return os.path.samestat(os.fstat(file), path.lstat())
    except OSError:
        return False


def progress_of(path: Path) -> int:
    """A number that changes while a file is written."""
    try:
        return path.stat().st_blocks + path.stat().st_mtime_ns
    except OSError:
        return 0


def unlink(path: Path) -> bool:
    """Delete; whether that was possible."""
    try:
        os.unlink(path)
    except OSError:
        return False
    return True
