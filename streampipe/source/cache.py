"""Shards kept on this machine, for later epochs, other workers, other jobs.

A kept shard is one file: the shard's bytes, then a line of JSON with its size, version and crc32, and a mark by which
the cache knows its own. It gets its name at once and whole (written under another, synced, renamed), so whatever
happens to a process or a disk, a file under its final name is whole or is found out when it is opened: size and crc32
are compared with what was downloaded, version and size with what the store has now.

Processes share the folder through the file system alone. Locks (flock) only save work: who cannot have one downloads
for itself. A shard in use is locked shared, which keeps it from being evicted; it stays readable even if it is.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from streampipe.atomic import PART, is_same, lock, open_regular, target_of, unlink
from streampipe.checksum import crc32
from streampipe.counters import counters
from streampipe.errors import ConfigError
from streampipe.kinds import checked_class
from streampipe.source.disk import (
    LOCK,
    SHARD,
    Kept,
    delete_abandoned,
    evict,
    other_version,
    planted,
    progress_of,
    read_tail,
)
from streampipe.source.local import LocalFile
from streampipe.source.location import redact
from streampipe.source.part import FACTS, Part
from streampipe.source.store import Pin

_SPARE = 0.05  # of a disk that is left free where no size is given
_ROOM, _PATIENCE = "room", 5.0  # the lock of who makes room, and how long it is waited for (seconds)
_POLL, _LOOK = 0.02, 0.5  # seconds between two looks at a lock, and at how far its holder has come
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_log = logging.getLogger("streampipe")


@checked_class
class Cache:
    """A folder of shards, shared by all processes of a machine.

    Args:
        folder: made if it is not there, for this user only.
        max_bytes: how large it may become; None: until 5 % of the disk are left.
        shared: several jobs read the same shards through it at the same time. Where it is too small for all of them,
            the shard that nobody has opened for the longest time goes first, so that who comes later finds what others
            fetched. Else one that this job's epoch is done with goes first, so that a part of the shards stays for the
            next epoch.

    Raises:
        ConfigError: the folder belongs to somebody else, or others may write to it.
    """

    def __init__(self, folder: str | os.PathLike[str], max_bytes: int | None = None, shared: bool = False) -> None:
        self.folder = Path(folder).absolute()
        self.max_bytes = max_bytes
        self.shared = shared
        self._checked: dict[str, tuple[int, Kept]] = {}  # files whose crc32 this process has compared: inode, facts
        self._warned = False
        if max_bytes is not None and max_bytes <= 0:
            raise ConfigError(f"a cache has a size above 0, not {max_bytes}")
        self._own()

    def _own(self) -> None:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            facts = self.folder.stat()
        except OSError as error:
            raise ConfigError(f"cache={str(self.folder)!r} cannot be made: {error}; choose another folder") from error
        if not stat.S_ISDIR(facts.st_mode):
            raise ConfigError(f"cache={str(self.folder)!r} is no folder")
        if why := planted(facts):
            raise ConfigError(f"cache={str(self.folder)!r} {why}, or choose another folder")

    def path(self, url: str) -> Path:
        """Where a shard is kept: the same name in another bucket is another file."""
        return self.folder / (hashlib.sha256(url.encode()).hexdigest()[:40] + SHARD)

    def has(self, url: str) -> bool:
        """Whether some version of a shard is kept."""
        return self.path(url).exists()

    def file(self, url: str, pin: Pin) -> LocalFile | None:
        """The kept bytes of the version ``pin``; None if there are none, or damaged ones."""
        path = self.path(url)
        try:
            file = open_regular(path)
            try:
                lock(file, fcntl.LOCK_SH)  # as long as the descriptor is open
                facts = os.fstat(file)
                kept = read_tail(file, facts.st_size)
            except BaseException:
                os.close(file)
                raise
            found = LocalFile(url, file, 0 if kept is None else kept.size)
            if kept is None or other_version(kept, pin):
                return None  # not ours, cut off, or out of date: replaced by the next download
            mark = (facts.st_ino, kept)
            if self._checked.get(path.name) != mark and _crc_of(found) != kept.crc:
                counters.add("cache", "damaged shards")
                _log.warning("%s: its copy in the cache is damaged (crc32); it is fetched again", redact(url))
                return None
            self._checked[path.name] = mark
            with suppress(OSError):  # a disk that can only be read serves as well
                os.utime(path)
            counters.add("cache", "hits")
            return found
        except FileNotFoundError:
            return None
        except OSError as error:
            self.failed(error)
            return None

    def finished(self, url: str) -> None:
        """The plan does not need a shard any more in this epoch: the last one finished is the first to go.

        It is the one that is needed again latest, if the epochs' orders are alike. Other jobs may need it sooner.
        """
        if self.shared:
            return
        now = time.time()
        try:
            os.utime(self.path(url), (now, 1e9 - now / 1e3))
        except OSError:
            return

    @contextmanager
    def turn(self, url: str, patience: float) -> Iterator[bool]:
        """Wait for whoever downloads this shard now; then True where it is ours to do, as long as we are in here.

        False where locks do not work, or where the other brings nothing for ``patience`` seconds.
        """
        path = self.path(url).with_suffix(LOCK)
        with self._locked(path, patience) as ours:
            yield ours

    @contextmanager
    def _locked(self, path: Path, patience: float) -> Iterator[bool]:
        try:
            file = self._wait(path, patience)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                self.failed(error)
            file = None
        try:
            yield file is not None
        finally:
            if file is not None:
                unlink(path)  # while it is ours; who waits on the old file finds that it is gone
                os.close(file)

    def _wait(self, path: Path, patience: float) -> int | None:
        seen, since, looked = -1, time.monotonic(), 0.0
        while True:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if is_same(file, path):
                    return file
            except BlockingIOError:
                pass
            except BaseException:
                os.close(file)
                raise
            os.close(file)
            now = time.monotonic()
            if now - looked > _LOOK:
                looked, done = now, sum(progress_of(part) for part in self.folder.glob(f"{path.stem}.*{PART}"))
                if done != seen:
                    seen, since = done, now
            if now - since > patience:
                return None
            time.sleep(_POLL)

    def part(self, url: str, size: int | None) -> Part:
        """A new file for a shard that is downloaded, with room made for it.

        Raises:
            OSError: there is no room, or the disk does not do.
        """
        # one at a time, or several would take the same room; who waits too long for that takes what there is
        with self._locked(self.folder / f"{_ROOM}{LOCK}", _PATIENCE):
            self.make_room(size or 0)
            try:
                return Part(self.path(url), size)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                self.make_room(2 * (size or 0))
                return Part(self.path(url), size)

    def make_room(self, size: int) -> None:
        """Evict until a shard of so many bytes fits, with what is noted of it.

        Only files of the cache's own are touched, and none that are in use.

        Raises:
            OSError: they do not fit, whatever goes.
        """
        if self.max_bytes is not None and size > self.max_bytes:
            raise OSError(errno.ENOSPC, f"a shard of {size} bytes is larger than the cache ({self.max_bytes})")
        size += FACTS if size else 0
        entries, used = self._entries()
        disk = os.statvfs(self.folder)
        spare = int(_SPARE * disk.f_blocks * disk.f_frsize) if self.max_bytes is None else 0
        over = size + spare - disk.f_bavail * disk.f_frsize
        if self.max_bytes is not None:
            over = max(over, used + size - self.max_bytes)
        for _, bytes_, path in sorted(entries):
            if over <= 0:
                return
            if evict(path):
                counters.add("cache", "evicted")
                over -= bytes_
        if over > 0:
            raise OSError(errno.ENOSPC, f"there is no room for {size} bytes: what is left in the cache is in use")

    def _entries(self) -> tuple[list[tuple[int, int, Path]], int]:
        """Kept shards (when used, bytes, path) and the bytes of all that is there. Abandoned files are deleted."""
        entries, used = [], 0
        names = os.listdir(self.folder)
        for path in map(self.folder.joinpath, names):
            if path.suffix not in (PART, LOCK, SHARD):
                continue
            try:
                facts = path.lstat()
            except OSError:  # a part that has become a shard meanwhile takes room under that name
                target = target_of(path.name)
                if target is None or target in names:
                    continue
                path = self.folder / target
                try:
                    facts = path.lstat()
                except OSError:
                    continue
            if path.suffix in (PART, LOCK) and delete_abandoned(path):
                continue
            used += facts.st_size
            if path.suffix == SHARD and stat.S_ISREG(facts.st_mode):
                entries.append((facts.st_mtime_ns, facts.st_size, path))
        return entries, used

    def failed(self, error: OSError) -> None:
        """The disk does not do: say so once; shards are then read past the cache."""
        counters.add("cache", "disk errors")
        if not self._warned:
            self._warned = True
            _log.warning("the cache at %s cannot be used (%s): shards are read past it", self.folder, error)


def _crc_of(file: LocalFile) -> int:
    found = 0
    for piece in file.pieces():
        found = crc32(piece, found)
    return found
