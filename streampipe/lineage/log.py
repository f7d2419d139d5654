"""Writes which samples each batch had, as Parquet files in a folder that appear whole.

Strategy: rows wait in memory and become a file now and then, at the end of a pass or process, and where a state is
taken, so that a checkpoint and the log agree (every few seconds where states are taken all the time). A killed job
loses what it did since. A disk that does not take a file (it is full) ends no training: rows wait, and it is tried
again. When it goes on from a checkpoint it does some steps again: a file says when it was written,
and readers believe the newest one.
"""

from __future__ import annotations

import json
import logging
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic, time_ns
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from streampipe.atomic import AtomicFile
from streampipe.context import Position
from streampipe.errors import ConfigError

log = logging.getLogger("streampipe")
SCHEMA = pa.schema(
    [
        ("step", pa.int64()),  # batches that this rank had received before, since training began
        ("epoch", pa.int32()),
        ("rank", pa.int32()),
        ("slot", pa.int32()),
        ("shard", pa.int32()),
        ("number", pa.int64()),  # of the sample in its shard
        ("key", pa.string()),
        ("url", pa.string()),
    ]
)
NAME, END = "trained-on-", ".parquet"
ABOUT = b"streampipe"
_ROWS = 200_000
_MOST_ROWS = 5 * _ROWS  # that wait for a disk to take them: half a gigabyte
_SECONDS = 60.0
_SOON = 5.0  # between states that are written for


class Log:
    """The log of one rank.

    Args:
        folder: where the files go; it is made if need be.
    """

    def __init__(self, folder: str | os.PathLike[str], rank: int, ranks: int) -> None:
        place = Path(folder)
        if "://" in str(folder) or place.is_file():
            raise ConfigError(f"loader(log=) is a folder of this machine, as in log='trained_on', not {folder!r}")
        place.mkdir(parents=True, exist_ok=True)
        self._waiting = _Waiting(place, rank, ranks)
        self._for_state = -_SOON
        weakref.finalize(self, _at_end, self._waiting, os.getpid())  # when the process ends, too

    def begins(self, state: Callable[[], Any]) -> None:
        """A batch comes next. ``state`` gives the loader's before it: each file keeps the one at its beginning."""
        if self._waiting.begun is None:
            self._waiting.begun = state()

    def batch(self, step: int, item: Any) -> None:
        """One batch was received, the ``step``-th.

        Raises:
            ConfigError: it does not say which samples it was made of.
        """
        keys, urls, positions = _samples(item)
        waiting, number = self._waiting, len(keys)
        columns = waiting.columns
        columns["step"] += [step] * number
        columns["rank"] += [waiting.rank] * number
        columns["slot"] += range(number)
        columns["key"] += keys
        columns["url"] += urls
        columns["epoch"] += [each[0] for each in positions]
        columns["shard"] += [each[1] for each in positions]
        columns["number"] += [each[2] for each in positions]
        if len(columns["step"]) >= waiting.enough or monotonic() - waiting.written > _SECONDS:
            self.write()

    def soon(self) -> None:
        """A state was taken: what came before it should be on the disk."""
        if monotonic() - self._for_state >= _SOON:
            self._for_state = monotonic()
            self.write()

    def write(self) -> None:
        """Write what waits."""
        self._waiting.write()


class _Waiting:
    """The rows that wait, which the log's end must reach without the log."""

    def __init__(self, folder: Path, rank: int, ranks: int) -> None:
        self.folder = folder
        self.rank, self.ranks = rank, ranks
        self.columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
        self.begun: Any = None  # the state before the first of them
        self.written = monotonic()
        self.enough = _ROWS

    def write(self, last: bool = False) -> None:
        """Make them a file, or let them wait where the disk does not take it. ``last``: nobody will try again."""
        columns, self.written = self.columns, monotonic()
        if not columns["step"]:
            return
        try:
            self._publish(columns["step"][0], columns["step"][-1])
        except OSError as error:
            self._keep(len(columns["step"]), error, last)
        else:
            self._forget()

    def _publish(self, first: int, last: int) -> None:
        about = {"rank": self.rank, "ranks": self.ranks, "first": first, "last": last, "written": time_ns()}
        schema = SCHEMA.with_metadata({ABOUT: json.dumps({**about, "state": self.begun})})
        name = f"{NAME}{first:012d}-rank{self.rank:05d}-{about['written']:x}{END}"
        with AtomicFile(self.folder / name) as draft:
            pq.write_table(pa.table(self.columns, schema=schema), draft.file, compression="zstd")
            draft.publish()

    def _keep(self, rows: int, error: OSError, last: bool) -> None:
        """They wait for another time, as long as they are not too many."""
        steps = self.columns["step"]
        lost = last or rows >= _MOST_ROWS
        log.warning(
            "what was trained on in steps %d to %d (rank %d) could not be written to %s (%s): make room there; %s",
            *(steps[0], steps[-1], self.rank, self.folder, error),
            "these steps are lost to the log" if lost else "it is tried again, and training goes on",
        )
        self.enough = rows + _ROWS
        if lost:
            self._forget()

    def _forget(self) -> None:
        self.columns = {name: [] for name in SCHEMA.names}
        self.begun, self.enough = None, _ROWS


def _at_end(waiting: _Waiting, process: int) -> None:
    """The log is gone, or the process ends. A fork has a copy of the rows, which are not its own."""
    if os.getpid() == process:
        waiting.write(last=True)


def _samples(item: Any) -> tuple[Sequence[Any], Sequence[Any], Sequence[Any]]:
    """Keys, URLs and positions of a batch's samples."""
    if isinstance(item, Mapping) and "__key__" in item:
        fields = [item.get(name) for name in ("__key__", "__url__", "__position__")]
        keys, urls, positions = fields if isinstance(fields[0], list) else [[each] for each in fields]
        whole = isinstance(positions, list) and isinstance(keys, list) and len(positions) == len(keys)
        if whole and all(isinstance(each, (Position, tuple, list)) for each in positions or ()):
            return list(map(str, keys or ())), urls or [None] * len(keys or ()), positions or []
    raise ConfigError(
        "loader(log=) needs batches that say which samples they were made of: dicts with __key__, __url__ and "
        "__position__, which a collate function or a stage behind batch has dropped; let it keep the fields that "
        "begin with two underscores"
    )
