"""Where shards go: a folder of this machine, or one of a store.

A folder of a store has no lock and no journal: both are kept on the machine that packs, in the user's own folder. What
is in the store appears whole, object by object, and is written again, with the same bytes, by who does not know of it.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from streampipe.atomic import AtomicFile, sweep, sync_folder, write_atomic
from streampipe.errors import OutputBusy, PackError
from streampipe.index.find import index_url
from streampipe.index.manifest import NAME
from streampipe.index.memory import memory
from streampipe.source import Source, local_path, redact
from streampipe.urls import PACK_LOCK

log = logging.getLogger("streampipe")
RECORD, JOURNAL, LIST, REPEATED = "pack.json", "packed.jsonl", "skipped.jsonl", "repeated.jsonl"
_FILES = frozenset((RECORD, JOURNAL, LIST, REPEATED, NAME))
_OURS = re.compile(r"\d{5,}\.(tar|index\.parquet)")
_UPLOAD = "streampipe-upload"
"""What is to be uploaded, in the folder for temporary files."""


@dataclass(frozen=True)
class Output:
    """A place for shards. Picklable; it holds nothing open."""

    url: str
    source: Source = field(default_factory=Source)

    @property
    def local(self) -> str | None:
        """The folder, where it is one of this machine."""
        return local_path(self.url)

    @property
    def state(self) -> str:
        """The folder of this machine that has the lock and the journal."""
        if self.local is not None:
            return self.local
        return os.path.join(memory("pack"), hashlib.sha256(self.url.encode()).hexdigest()[:32])

    def __str__(self) -> str:
        return redact(self.url)

    def of(self, name: str) -> str:
        """Where a file goes."""
        return os.path.join(self.local, name) if self.local is not None else f"{self.url.rstrip('/')}/{name}"

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the output. The kernel frees the lock when this process ends, however it ends.

        Raises:
            OutputBusy: another run of this machine writes there (of any machine, in a folder that is shared).
            PackError: it cannot be written.
        """
        try:
            os.makedirs(self.state, exist_ok=True)
            handle = os.open(os.path.join(self.state, PACK_LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise PackError(
                f"{self.state} cannot be written ({error.strerror or error}); choose another output folder"
            ) from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OutputBusy(
                    f"another run is writing to {self}; wait for it, or choose another output folder"
                ) from None
            except OSError as error:  # a file system without locks: go on, two runs at once would write the same bytes
                log.warning("%s cannot be locked (%s); make sure that only one run writes there", self, error)
            yield
        finally:
            os.close(handle)

    def names(self) -> set[str]:
        """The shards and indexes that are there, by name."""
        if self.local is not None:
            try:
                return {name for name in os.listdir(self.local) if name.endswith((".tar", ".parquet"))}
            except FileNotFoundError:
                return set()
        found = [url for end in ("tar", "parquet") for url in self.source.glob(self.of(f"*.{end}"))]
        return {url.rpartition("/")[2] for url in found}

    def size(self, name: str) -> int | None:
        """A local shard's size; of others nothing is known that a listing does not say."""
        try:
            return os.path.getsize(self.of(name)) if self.local is not None else None
        except OSError:
            return -1

    def read(self, name: str) -> bytes | None:
        """A small file; None if it is not there."""
        return self.source.read_if_there(self.of(name))

    def write(self, name: str, data: bytes) -> None:
        """Put a small file in its place, whole or not at all."""
        if self.local is not None:
            write_atomic(self.of(name), data)
        else:
            self.source.write(self.of(name), data)

    def delete(self, name: str) -> None:
        """Delete a local file that may be there; a store's is replaced when its time comes."""
        if self.local is not None and os.path.lexists(self.of(name)):
            os.unlink(self.of(name))

    def tidy(self) -> None:
        """Delete what killed writers left."""
        if self.local is not None:
            sweep(self.local, lambda name: name in _FILES or _OURS.fullmatch(name) is not None)
        else:
            sweep(self.state, _FILES.__contains__)
            sweep(tempfile.gettempdir(), _UPLOAD.__eq__)

    def sync(self) -> None:
        """Bring the names in a local folder to the disk."""
        if self.local is not None:
            sync_folder(self.local)

    def draft(self, name: str) -> AtomicFile:
        """A shard on its way: to be written, and then published."""
        if self.local is not None:
            return AtomicFile(self.of(name))
        return AtomicFile(os.path.join(tempfile.gettempdir(), _UPLOAD), private=True)

    def publish(self, draft: AtomicFile, name: str, index: bytes) -> None:
        """Put a shard in its place, after its index: where there is a shard, there is its index.

        One that is out of date goes before its new index is there: one never describes the other.
        """
        draft.sync()
        for old in (name, index_url(name)):
            self.delete(old)
        self.write(index_url(name), index)
        if self.local is not None:
            draft.publish(sync=False)  # it is on the disk
        else:
            self.source.upload(draft.path, self.of(name))
        self.sync()
