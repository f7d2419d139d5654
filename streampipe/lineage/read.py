"""Reads a log of what was trained on."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from streampipe.errors import ConfigError
from streampipe.kinds import checked_class
from streampipe.lineage.log import ABOUT, END, NAME


class Part(NamedTuple):
    """A file of a log: the steps ``first`` to ``last`` of a rank, as far as they count, and the loader's state before
    them.
    """

    path: Path
    rank: int
    ranks: int
    first: int
    last: int
    written: int
    state: dict[str, Any]


@checked_class
class Lineage:
    """What was trained on, from the folder that ``loader(log=...)`` wrote.

    Where a job went on from an earlier step, what was written last counts, and nothing of what it had done from that
    step on before, on whatever ranks.

    Raises:
        ConfigError: the folder holds no log; a file of it is damaged.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        paths = sorted(self.folder.glob(f"{NAME}*{END}"))
        if not paths:
            raise ConfigError(f"{self.folder} holds no log of what was trained on; loader(log=folder) writes one")
        self.parts = _that_count(sorted(map(_part, paths), key=lambda part: part.written))

    @property
    def ranks(self) -> int:
        """How many ranks the job had that wrote last."""
        return self.parts[-1].ranks

    def part_of(self, step: int, rank: int) -> Part:
        """The file that has a step of a rank.

        Raises:
            ConfigError: none has.
        """
        found = [part for part in self.parts if part.rank == rank and part.first <= step <= part.last]
        if not found:
            mine = [part for part in self.parts if part.rank == rank]
            known = f"it has {min(p.first for p in mine)} to {max(p.last for p in mine)}" if mine else "it has none"
            raise ConfigError(f"{self.folder} has no step {step} of rank {rank}: {known}")
        return found[-1]

    def step(self, step: int, rank: int = 0) -> pa.Table:
        """A row for each sample of a step, in the order of the batch's slots."""
        part = self.part_of(step, rank)
        return pq.read_table(part.path, filters=[("step", "=", step)]).replace_schema_metadata(None)

    def table(self) -> pa.Table:
        """A row for each sample of each step of all ranks, by step, rank and slot: which step had which sample."""
        tables = []
        for part in self.parts:
            rows = pq.read_table(part.path, filters=[("step", "<=", part.last)])
            tables.append(rows.replace_schema_metadata(None))
        return pa.concat_tables(tables).sort_by([("step", "ascending"), ("rank", "ascending"), ("slot", "ascending")])


def _that_count(parts: Sequence[Part]) -> list[Part]:
    """The parts, in the order in which they were written, without the steps from which on their rank, or a job of other
    ranks, went on later.
    """
    of_rank: dict[int, int] = {}  # of the parts behind: the first step of each rank, and of jobs of so many ranks
    of_jobs: dict[int, int] = {}
    found = []
    for part in reversed(parts):
        others = (first for ranks, first in of_jobs.items() if ranks != part.ranks)
        end = min([part.last + 1, of_rank.get(part.rank, part.last + 1), *others])
        if part.first < end:
            found.append(part._replace(last=end - 1))
        of_rank[part.rank] = min(part.first, of_rank.get(part.rank, part.first))
        of_jobs[part.ranks] = min(part.first, of_jobs.get(part.ranks, part.first))
    return found[::-1]


def _part(path: Path) -> Part:
    try:
        about = json.loads(pq.read_schema(path).metadata[ABOUT])
        rank, ranks, first, last, written = (int(about[name]) for name in ("rank", "ranks", "first", "last", "written"))
        return Part(path, rank, ranks, first, last, written, dict(about["state"]))
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path} is no part of a log of what was trained on ({error}); move it away") from None
