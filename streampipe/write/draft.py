"""Files that appear whole or not at all, whoever is killed when.

A local file is written under a temporary name that no reader takes for a shard, and renamed when it is complete and on
disk. While it is written its writer holds a lock on it, which the kernel frees when the writer dies: so what a killed
run left is told from what another process writes now. An object store publishes an object when its upload is complete.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import tempfile
from contextlib import suppress
from types import TracebackType
from typing import IO

from streampipe.errors import PackError, StreampipeError
from streampipe.source import Source, local_path, redact

_SUFFIX = ".part"


class Draft:
    """A file on its way to ``url``. ``publish`` puts it there; without it, nothing is left of it.

    Used as a context manager: a full disk, a missing folder and the like come out as ``PackError``.
    """

    def __init__(self, url: str, source: Source) -> None:
        self.url = url
        self._source = source
        self._target = local_path(url)
        self._published = False

    def __enter__(self) -> Draft:
        try:
            self.path, self.file = self._create()
        except OSError as error:
            raise self._failed(error) from error
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self._published:
            with suppress(OSError):  # what stays is swept by the next run
                os.unlink(self.path)
        self.file.close()
        if isinstance(error, OSError) and not isinstance(error, StreampipeError):
            raise self._failed(error) from error

    def finish(self) -> None:
        """All is written: bring it to the disk."""
        self.file.flush()
        os.fsync(self.file.fileno())

    def publish(self, new: bool = False) -> bool:
        """Put what was written in its place, at once. Under ``new`` a file that is there stays, and the answer is
        False; a store, and a file system without hard links, cannot tell, and replace it.
        """
        self.finish()
        if self._target is None:
            self._source.upload(self.path, self.url)
            return True
        try:
            if new:
                os.link(self.path, self._target)
        except FileExistsError:
            return False
        except OSError:
            new = False
        os.unlink(self.path) if new else os.replace(self.path, self._target)
        self._published = True
        folder = os.open(os.path.dirname(self._target) or ".", os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return True

    def _create(self) -> tuple[str, IO[bytes]]:
        if self._target is None:
            handle, path = tempfile.mkstemp(suffix=_SUFFIX)
            return path, open(handle, "wb")
        while True:
            path = f"{self._target}.{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}"
            file = open(path, "xb")  # noqa: SIM115
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return path, file  # a file system without locks: leftovers are then not swept
            if os.path.exists(path):
                return path, file
            file.close()  # swept between its creation and its lock

    def _failed(self, error: OSError) -> PackError:
        return PackError(
            f"{redact(self.url)} could not be written ({error.strerror or error}); make room or mend the disk, and run "
            f"the same again: finished shards are kept"
        )


def put(url: str, data: bytes, source: Source, new: bool = False) -> bool:
    """A small file, in its place at once; under ``new``: if there is none. Whether it is there now."""
    with Draft(url, source) as draft:
        draft.file.write(data)
        return draft.publish(new)


def sweep(folder: str, names: frozenset[str]) -> None:
    """Delete what killed writers left of these files. What is being written now is locked, and stays."""
    for name in os.listdir(folder):
        if not name.endswith(_SUFFIX) or name.removesuffix(_SUFFIX).rpartition(".")[0] not in names:
            continue
        path = os.path.join(folder, name)
        try:
            with open(path, "rb+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(path)
        except OSError:
            continue
