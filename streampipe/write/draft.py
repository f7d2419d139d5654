"""Shards, indexes and records on their way to a URL: a local file is atomic, and an object store publishes an object
when its upload is complete."""

from __future__ import annotations

import os
import tempfile
from types import TracebackType

from streampipe.atomic import AtomicFile, sweep, sync_folder
from streampipe.errors import PackError, StreampipeError
from streampipe.source import Source, local_path, redact

_UPLOAD = "streampipe-upload"
"""What is to be uploaded, in the folder for temporary files."""


class Draft:
    """A file on its way to ``url``. ``publish`` puts it there; without it, nothing is left of it.

    Used as a context manager: a full disk, a missing folder and the like come out as ``PackError``.
    """

    def __init__(self, url: str, source: Source) -> None:
        self.url = url
        self._source = source
        self._target = local_path(url)

    def __enter__(self) -> Draft:
        try:
            if self._target is None:
                self._atomic = AtomicFile(os.path.join(tempfile.gettempdir(), _UPLOAD), private=True)
            else:
                self._atomic = AtomicFile(self._target)
        except OSError as error:
            raise self._failed(error) from error
        self.path, self.file = self._atomic.path, self._atomic.file
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._atomic.discard()
        if isinstance(error, OSError) and not isinstance(error, StreampipeError):
            raise self._failed(error) from error

    def finish(self) -> None:
        """All is written: bring it to the disk."""
        self._atomic.sync()

    def publish(self, new: bool = False) -> bool:
        """Put what was written in its place, at once. Under ``new`` a file that is there stays, and the answer is
        False; a store, and a file system without hard links, cannot tell, and replace it.
        """
        if self._target is None:
            self._atomic.sync()
            self._source.upload(self.path, self.url)
            return True
        done = self._atomic.publish(new=new)
        if done:
            sync_folder(os.path.dirname(self._target))
        return done

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


def sweep_uploads() -> None:
    """Delete what killed writers left in the folder for temporary files."""
    sweep(tempfile.gettempdir(), _UPLOAD.__eq__)
