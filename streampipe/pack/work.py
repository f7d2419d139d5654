"""The shards of a job, made: in processes, on a cluster, or here; what is finished is kept."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from tqdm import tqdm

from streampipe.cluster import Cluster
from streampipe.errors import PackError, StreampipeError
from streampipe.pack.change import Change
from streampipe.pack.job import claim, finish, note, shard_name
from streampipe.pack.output import Output
from streampipe.pack.shard import AGAIN, Made, Task, make
from streampipe.pack.sift import Sift
from streampipe.pack.split import split
from streampipe.pack.summary import Summary
from streampipe.pack.supply import Supply
from streampipe.processes import Tell, ordered

_WORTH = 64 << 20  # bytes from which worker processes are started by default
_WORKERS = 8


@dataclass(frozen=True)
class Planned:
    """A shard that is to be made: its samples' numbers, and their part."""

    start: int
    count: int
    part: int = 0


@dataclass(frozen=True)
class How:
    """Who makes the shards: so many processes (None: as many as are worth it), started as ``context`` says, or the
    cluster that it is.
    """

    workers: int | None
    context: Any
    progress: bool


@dataclass(frozen=True)
class Job:
    """What is done to all samples, and where they go."""

    out: Output
    asked: dict[str, Any]
    on_error: str
    change: Change
    verify: bool
    sift: Sift
    unpickle: bool = False
    sha256: bool = True


class Work:
    """The shards of a job, made."""

    def __init__(self, supply: Supply, shards: Sequence[Planned], job: Job, summary: Summary) -> None:
        self._supply, self._shards, self._job, self._summary = supply, shards, job, summary
        self._out, self._asked = job.out, job.asked

    def __call__(self, how: How) -> None:
        """Make what is missing."""
        try:
            with self._out.exclusive():
                made = self._make(how)
                skipped = [each for one in made for each in one.skipped]
                summary = self._summary
                summary.skipped += skipped
                summary.samples = sum(one.entry.samples for one in made)
                summary.bytes = sum(one.entry.bytes for one in made)
                summary.stills = sum(one.stills for one in made)
                if not summary.samples:
                    raise PackError(
                        f"none of the {self._supply.samples} samples of {self._supply.name} could be read: "
                        f"{skipped[0].file} ({skipped[0].reason})"
                    )
                finish(self._out, self._asked, made, summary.skipped)
        except OSError as error:
            if isinstance(error, StreampipeError):
                raise
            where = error.filename2 or error.filename or str(self._out)
            raise PackError(f"{where} could not be written ({error.strerror or error}); {AGAIN}") from error

    def _make(self, how: How) -> list[Made]:
        names = [shard_name(number, len(self._shards)) for number in range(len(self._shards))]
        done = claim(self._out, self._asked, len(names), self._digest)
        self._summary.kept = len(done)
        todo = [(name, each) for name, each in zip(names, self._shards, strict=True) if name not in done]
        with tqdm(total=self._supply.samples, unit=" samples", desc="pack", disable=not how.progress) as bar:
            bar.update(sum(each.count for name, each in zip(names, self._shards, strict=True) if name in done))
            workers = workers_of(how.workers, self._supply, len(todo))
            tasks = self._tasks(todo, beside=not workers and not isinstance(how.context, Cluster))
            try:
                for made in _made(tasks, workers, how.context, bar.update):
                    note(self._out, made)
                    done[made.entry.shard] = made
            finally:
                self._out.tidy()  # after an error, what workers were at
        return [done[name] for name in names]

    def _digest(self, number: int) -> str:
        """Of what a shard is to be made of."""
        shard = self._shards[number]
        return self._supply.contents(shard.start, shard.count).digest

    def _tasks(self, todo: Sequence[tuple[str, Planned]], beside: bool) -> Iterator[Task]:
        job = self._job
        for name, shard in todo:
            contents = self._supply.contents(shard.start, shard.count)
            bucket = job.sift.name(shard.part)
            yield Task(
                job.out,
                name,
                contents,
                job.on_error,
                job.change,
                job.verify,
                bucket,
                job.unpickle,
                job.sha256,
                beside,
            )


def _made(tasks: Iterator[Task], workers: int, context: Any, tell: Tell) -> Iterator[Made]:
    if isinstance(context, Cluster):
        return context.ordered(make, tasks, tell)
    return ordered(make, tasks, workers, tell=tell, context=context)


def planned(supply: Supply, max_samples: int, max_bytes: int) -> Iterator[Planned]:
    """The shards that a supply becomes."""
    start = 0
    for part, rows in groupby(supply.sizes(), key=itemgetter(0)):
        for count in split((size for _, size in rows), max_samples, max_bytes):
            yield Planned(start, count, part)
            start += count


def workers_of(given: int | None, supply: Supply, shards: int) -> int:
    """How many processes are worth it."""
    if given is None:
        given = min(_WORKERS, len(os.sched_getaffinity(0))) if supply.bytes >= _WORTH else 0
    return given if min(given, shards) > 1 else 0
