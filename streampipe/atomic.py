"""Files that appear whole or not at all, whoever is killed when; and what a killed writer leaves is swept by the next.

Strategy: a file is written under a name that no other thread, process or host has and that no reader takes for it, is
brought to the disk, and then gets its own name, which is one step. As long as it is written its writer holds a lock on
it, which the kernel frees when the writer dies: so what is abandoned is told from what another process writes now.
Where a file system has no locks, nothing is swept. A network file system that two hosts share is no exception.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import re
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import IO

PART = ".part"
_LEFTOVER = re.compile(r"(.+)\.[\w-]+-\d+-[0-9a-f]{16}\.part", re.ASCII | re.DOTALL)
Path = str | os.PathLike[str]


class AtomicFile:
    """A file on its way to ``target``. ``publish`` puts it there at once; without it, nothing is left of it.

    A context manager, too. ``file`` is open for writing and reading; ``path`` is its name until it is published.

    Args:
        private: only this user may read it.
    """

    def __init__(self, target: Path, *, private: bool = False) -> None:
        self.target = os.fspath(target)
        self._private = private
        self._named = False  # whether there is a file under the temporary name
        while not self._named:
            self._create()

    def _create(self) -> None:
        self.path = f"{self.target}.{unique()}{PART}"
        mode = 0o600 if self._private else 0o666
        self.file: IO[bytes] = open(self.path, "x+b", opener=lambda path, flags: os.open(path, flags, mode))  # noqa: SIM115
        lock(self.file.fileno(), fcntl.LOCK_EX)
        self._named = is_same(self.file.fileno(), self.path)
        if not self._named:  # it was taken for abandoned between its creation and its lock
            self.file.close()

    def __enter__(self) -> AtomicFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def sync(self) -> None:
        """Bring what was written to the disk."""
        self.file.flush()
        os.fsync(self.file.fileno())

    def publish(self, *, new: bool = False, sync: bool = True) -> bool:
        """Put what was written in its place, and let the lock go; whether it is there now.

        Under ``new`` a file that is there stays, and the answer is False; a file system without hard links cannot tell,
        and replaces it. Without ``sync`` a power failure may leave a damaged file: for what its readers check.
        """
        self.file.flush()
        if sync:
            os.fsync(self.file.fileno())
        if new:
            try:
                os.link(self.path, self.target)
            except FileExistsError:
                return False
            except OSError:
                new = False
        os.unlink(self.path) if new else os.replace(self.path, self.target)
        self._named = False
        lock(self.file.fileno(), fcntl.LOCK_UN)
        return True

    def discard(self) -> None:
        """Leave nothing of what was not published, and close the file."""
        if self._named:
            unlink(self.path)  # if that fails, the next run sweeps it
            self._named = False
        with suppress(OSError):  # what a buffer still holds is nobody's any more
            self.file.close()


def write_atomic(target: Path, data: bytes, *, new: bool = False, sync: bool = True) -> bool:
    """Write a small file that appears whole or not at all; see ``AtomicFile.publish``.

    Raises:
        OSError: the disk does not do; nothing is left behind.
    """
    with AtomicFile(target) as draft:
        draft.file.write(data)
        return draft.publish(new=new, sync=sync)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk: a file that was renamed stays so after a power failure."""
    handle = os.open(folder or ".", os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(folder: Path, wanted: Callable[[str], bool]) -> int:
    """Delete what killed writers left in a folder of the files whose names are ``wanted``; how many there were.

    What is being written now is locked, and stays; so does everything that was not written here.
    """
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return 0
    return sum(
        delete_if_free(os.path.join(folder, name))
        for name in names
        if (target := target_of(name)) is not None and wanted(target)
    )


def target_of(name: str) -> str | None:
    """The name that a file under a temporary name was to get; None if this is no temporary name.

    >>> target_of("00000.tar.host-12-0123456789abcdef.part"), target_of("00000.tar.part")
    ('00000.tar', None)
    """
    found = _LEFTOVER.fullmatch(name)
    return found[1] if found else None


def delete_if_free(path: Path) -> bool:
    """Delete a file whose owner is gone, as its lock says. Where locks do not work it is left alone."""
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


def unique() -> str:
    """A part of a file name that no other thread, process or host has."""
    host = re.sub(r"[^\w-]", "_", socket.gethostname()[:32], flags=re.ASCII)
    return f"{host or 'host'}-{os.getpid()}-{random.SystemRandom().getrandbits(64):016x}"


def lock(file: int, how: int) -> bool:
    """A lock if there is one to be had at once."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def is_same(file: int, path: Path) -> bool:
    """Whether a descriptor is still that of the file of this name."""
    try:
        return os.path.samestat(os.fstat(file), os.lstat(path))
    except OSError:
        return False


def open_regular(path: Path, how: int = os.O_RDONLY) -> int:
    """A descriptor of a file that is nothing but a file; a named pipe of this name is not waited for.

    Raises:
        FileNotFoundError: there is none.
    """
    file = os.open(path, how | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise FileNotFoundError(errno.ENOENT, "no regular file", os.fspath(path))
    return file


def unlink(path: Path) -> bool:
    """Delete; whether that was possible."""
    try:
        os.unlink(path)
    except OSError:
        return False
    return True
