"""Answers about a dataset, kept: how many samples of each shard a question chooses, by group.

An answer is a matrix of whole numbers (shards x groups) and some totals. Making it may mean to read 200,000 files; it
is small itself. So it is made once, and kept under a fingerprint of the data and of the question: beside the manifest,
where there is one and that folder can be written; else in the stream's cache; else in the user's own folder. Ranks,
workers, later epochs and later jobs find it there. Another manifest, another shard or another question is another
fingerprint, so no answer is ever changed, and nobody needs to be told that one is out of date.

An answer appears whole or not at all, and its numbers are checked by a checksum; one that is damaged is made again.
Processes of one machine that want the same answer at once wait for the first of them. The lock is the kernel's, so it
is gone with a process that is killed; and whoever has waited too long makes the answer without it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from streampipe.atomic import is_same, lock, unlink, write_atomic
from streampipe.checksum import crc32
from streampipe.errors import IndexMismatch, StreampipeError
from streampipe.index.memory import memory, own_folder
from streampipe.source import Source, local_path, redact
from streampipe.source.location import scheme_of

log = logging.getLogger("streampipe")
PREFIX, SUFFIX, LOCK = "answer-", ".bin", ".lock"
VERSION = 1
_MARK = b"streampipe answer 1, crc32 %010d\n"
_LENGTH = len(_MARK % 0)
_CODEC = pa.Codec("zstd")
_POLL, _LONGEST = 0.05, 900.0  # seconds between two looks at a lock, and after which nobody waits any longer
_MOST_KEPT = 500  # answers in a folder of this machine; of more, those that were used last stay
_READ_ONLY = ("http", "https")


@dataclass
class Tally:
    """What a question finds in shards.

    ``counts``: samples by shard (row) and group (column), int32. ``sums``: a number of each group, summed over its
    samples. ``numbers``: what is to be counted, by stage and reason. ``first``: the first sample (shard, row) that
    lacks what the question needs. ``wanted`` and ``whole``: bytes of the samples that are chosen, and of the shards.
    ``most``: the largest number of each group, where the question asks for it.
    """

    counts: np.ndarray
    sums: np.ndarray
    numbers: Counter[str] = field(default_factory=Counter)
    first: tuple[int, int] | None = None
    wanted: int = 0
    whole: int = 0
    most: np.ndarray | None = None

    def to_bytes(self) -> bytes:
        """As a file: a line that says what it is, with a checksum of all that follows; JSON in a line; the counts."""
        counts = np.ascontiguousarray(self.counts, np.int32)
        about: dict[str, Any] = {"shape": counts.shape, "sums": self.sums.tolist(), "numbers": self.numbers}
        about |= {"first": self.first, "wanted": self.wanted, "whole": self.whole}
        about |= {} if self.most is None else {"most": self.most.tolist()}
        rest = json.dumps(about).encode() + b"\n" + _CODEC.compress(counts.tobytes(), asbytes=True)
        return bytes(_MARK % crc32(rest) + rest)

    @classmethod
    def from_bytes(cls, data: bytes, name: str, shape: tuple[int, int]) -> Tally:
        """From a file called ``name``.

        Raises:
            IndexMismatch: it is none of this version and shape, or damaged.
        """
        mark, rest = data[:_LENGTH], data[_LENGTH:]
        if mark == _MARK % crc32(rest):
            text, _, packed = rest.partition(b"\n")
            about = json.loads(text)
            if about["shape"] == list(shape):
                held = _CODEC.decompress(packed, decompressed_size=4 * shape[0] * shape[1], asbytes=True)
                counts, first = np.frombuffer(held, np.int32).reshape(shape), about["first"]
                sums, numbers = np.array(about["sums"], float), Counter(about["numbers"])
                most = np.array(about["most"], np.int64) if "most" in about else None
                first = first and (first[0], first[1])
                return cls(counts, sums, numbers, first, about["wanted"], about["whole"], most)
        raise IndexMismatch(f"{name} is damaged, or of another version; delete it")


class Answers:
    """The answers about one dataset.

    Args:
        beside: the folder of its manifest; None where there is none.
    """

    def __init__(self, source: Source, beside: str | None) -> None:
        self._source = source
        self._beside = beside
        folder = str(source.cache.folder / "answers") if source.cache is not None else memory("answers")
        self._own = own_folder(folder, _is_ours, "what was counted is not remembered")

    def find(self, fingerprint: str, shape: tuple[int, int]) -> Tally | None:
        """The answer of this fingerprint, for so many shards and groups; None if there is none that is sound."""
        for folder in filter(None, (self._own, self._beside)):
            place = _place(folder, fingerprint)
            data = self._source.read_if_there(place)
            if data is not None:
                try:
                    found = Tally.from_bytes(data, redact(place), shape)
                except IndexMismatch as error:
                    log.warning("%s; it is made again", error)
                    continue
                if folder == self._own:
                    with suppress(OSError):
                        os.utime(place)
                return found
        return None

    def keep(self, fingerprint: str, answer: Tally) -> None:
        """Keep an answer where it can be kept."""
        data = answer.to_bytes()
        if self._beside is not None and scheme_of(self._beside) not in _READ_ONLY:
            try:
                self._source.write(_place(self._beside, fingerprint), data)
                _prune(local_path(self._beside))
                return
            except (StreampipeError, OSError) as error:
                log.info("%s; the answer is kept on this machine", error)
        if self._own is not None:
            try:
                write_atomic(_place(self._own, fingerprint), data)
                _prune(self._own)
            except OSError as error:
                log.warning("what was counted could not be remembered (%s); it is counted again next time", error)

    def place(self, fingerprint: str) -> str | None:
        """The file that an answer is kept in, as it is shown; None if it is kept nowhere."""
        places = [_place(folder, fingerprint) for folder in (self._own, self._beside) if folder is not None]
        return next((redact(each) for each in places if self._source.read_if_there(each) is not None), None)

    @contextmanager
    def alone(self, fingerprint: str) -> Iterator[None]:
        """While no other process of this machine makes the same answer."""
        file = self._lock(fingerprint)
        try:
            yield
        finally:
            if file is not None:
                unlink(_place(self._own or "", fingerprint) + LOCK)
                lock(file, fcntl.LOCK_UN)  # by itself: a process that was forked meanwhile holds the descriptor, too
                os.close(file)

    def _lock(self, fingerprint: str) -> int | None:
        if self._own is None:
            return None
        path, until = _place(self._own, fingerprint) + LOCK, time.monotonic() + _LONGEST
        while time.monotonic() < until:
            try:
                file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if is_same(file, path):  # else its last holder has deleted it
                        return file
                except BlockingIOError:
                    time.sleep(_POLL)
                except BaseException:
                    os.close(file)
                    raise
                os.close(file)
            except OSError:
                return None  # there are no locks here
        return None


def fingerprint(*parts: Any) -> str:
    """A digest of what an answer depends on; parts are plain JSON."""
    return hashlib.sha256(json.dumps([VERSION, *parts], sort_keys=True).encode()).hexdigest()[:32]


def _place(folder: str, fingerprint: str) -> str:
    return f"{folder.rstrip('/')}/{PREFIX}{fingerprint}{SUFFIX}"


def _is_ours(name: str) -> bool:
    return name.startswith(PREFIX) and name.endswith(SUFFIX)


def _prune(folder: str | None) -> None:
    """Of a great many answers, delete those that were not used for longest; a lock goes with its holder."""
    if folder is None:
        return
    with suppress(OSError):
        names = [name for name in os.listdir(folder) if _is_ours(name)]
        if len(names) > _MOST_KEPT:
            used = {name: os.stat(os.path.join(folder, name)).st_mtime for name in names}
            for name in sorted(names, key=lambda name: used[name])[: len(names) - _MOST_KEPT // 2]:
                unlink(os.path.join(folder, name))
