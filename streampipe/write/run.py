"""``write``: a pipeline becomes shards, in this process or in workers, on one rank or many.

The job is written down first, then shards with their indexes, in any order and by whoever, and the manifest last.
Shards that are there are kept. Ranks need not talk: each makes its own, and the last to finish finds all of them.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from streampipe.chain import takes_views, through
from streampipe.context import Run
from streampipe.counters import counters
from streampipe.errors import ConfigError, PackError, StageError, StreampipeError
from streampipe.index import ShardIndex
from streampipe.index.find import index_url
from streampipe.index.manifest import NAME, Entry, to_bytes
from streampipe.mix import MixSamples
from streampipe.pipeline import Pipeline
from streampipe.policy import ErrorPolicy
from streampipe.shards import ShardSamples
from streampipe.source import Source, redact
from streampipe.threads import ordered
from streampipe.write.draft import put
from streampipe.write.job import VERSION, check_pattern, claim, digest, is_done, shard_url
from streampipe.write.spec import describe
from streampipe.write.work import Done, Tell, Work, planned, told, write_shard

log = logging.getLogger("streampipe")
_THREADS = 16  # for many small requests to a store


@dataclass
class Summary:
    """What a run of ``write`` did. ``missing``: shards that other ranks have still to write, as far as one can see."""

    pattern: str
    samples: int = 0
    shards: int = 0
    kept: int = 0  # shards that an earlier run, or another rank, had finished
    missing: int = 0
    repeated: int = 0  # samples whose key is in another shard, too
    bytes: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        text = f"{self.samples} samples in {self.shards} shards ({self.bytes / 1e6:.1f} MB), {self.seconds:.1f} s"
        if self.kept:
            text += f"; {self.kept} shards were there already"
        if self.missing:
            text += f"; {self.missing} shards are other ranks' and not there yet: who finishes last writes the manifest"
        return f"{text}: {redact(self.pattern)}"


@dataclass(frozen=True)
class Options:
    """What ``write`` was told, beside pipeline and place."""

    max_samples: int
    num_workers: int
    threads: int
    world: tuple[int, int]
    policy: ErrorPolicy
    version: str
    quality: int
    source: Source
    context: Any
    progress: bool


def write(pipe: Pipeline, pattern: str, options: Options) -> Summary:
    """See ``Pipeline.write``."""
    start = time.perf_counter()
    check_pattern(pattern)
    if pipe.epochs is None:
        raise ConfigError("epochs=None makes the pipeline endless, so it cannot be written: give stream(epochs=n)")
    pipe = Pipeline(pipe.source, pipe.chain, seed=pipe.seed, epochs=pipe.epochs, policy=options.policy)
    found = planned(pipe, options.max_samples)
    if isinstance(found, str):
        summary = _in_one_go(pipe, pattern, options, found)
    else:
        plan, stages = found
        shards = plan.batches * (pipe.epochs or 1)
        work = Work(
            plan, stages, shards, pattern, pipe.seed, options.policy, options.source, options.quality, options.threads
        )
        summary = _planned(pipe, work, options)
    if not summary.missing:
        _manifest(summary, options)
    summary.seconds = time.perf_counter() - start
    return summary


def _planned(pipe: Pipeline, work: Work, options: Options) -> Summary:
    plan = work.plan
    facts = {
        "samples": plan.lanes.samples,
        "epochs": pipe.epochs,
        "window": plan.lanes.window if plan.shuffled else None,
        "lanes": [plan.lanes.places, plan.lanes.columns],
        "dataset": plan.dataset.fingerprint,
        "filter": plan.filter,
    }
    claim(work.pattern, _facts(pipe, work.pattern, options, facts), options.source, work.shards)
    summary = Summary(work.pattern, shards=work.shards)
    rank, world_size = options.world
    mine = list(range(rank, work.shards, world_size))
    todo = _missing(work.pattern, mine, options.source)
    size, samples = plan.lanes.size, plan.lanes.samples
    total = sum(min(size, samples - number % plan.batches * size) for number in todo)
    with tqdm(total=total, unit=" samples", desc="write", disable=not options.progress) as bar:
        workers = min(options.num_workers, len(todo))
        with closing(
            _in_workers(work, todo, workers, options) if workers else _here(work, todo, tell_bar(bar))
        ) as events:
            for event in events:
                if isinstance(event, int):
                    bar.update(event)
    others = sorted(set(range(work.shards)) - set(mine))
    summary.missing = len(_missing(work.pattern, others, options.source))
    summary.kept = work.shards - len(todo) - summary.missing
    return summary


def _missing(pattern: str, numbers: Sequence[int], source: Source) -> list[int]:
    done = ordered(lambda number: is_done(pattern, number, source), numbers, _THREADS if "://" in pattern else 0)
    return [number for number, there in zip(numbers, done, strict=True) if not there]


def tell_bar(bar: Any) -> Tell:
    return lambda samples: bar.update(samples) and None


def _here(work: Work, numbers: Sequence[int], tell: Tell) -> Generator[int | Done]:
    for number in numbers:
        yield work.make(number, tell)


def _in_workers(work: Work, numbers: Sequence[int], workers: int, options: Options) -> Generator[int | Done]:
    """The shards made by processes, each its share: what they tell of samples read and of shards done, as it comes."""
    named = options.context is None or isinstance(options.context, str)
    context: Any = get_context(options.context) if named else options.context
    running: dict[Connection, Any] = {}
    try:
        for worker in range(workers):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(work, numbers[worker::workers], theirs), daemon=True)
            process.start()
            theirs.close()  # so that the end of the process is the end of the pipe
            running[ours] = process
        while running:
            for connection in wait(list(running)):
                assert isinstance(connection, Connection)
                try:
                    message = connection.recv()
                except EOFError:
                    _check_ended(running.pop(connection))
                    continue
                if isinstance(message, BaseException):
                    raise message
                if isinstance(message, dict):
                    counters.merge(message)
                else:
                    yield message
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.join()


def _check_ended(process: Any) -> None:
    process.join()
    if process.exitcode:
        raise PackError(
            f"a worker process of write ended with status {process.exitcode} (killed, or out of memory); use fewer "
            f"workers or smaller batches, and run the same again: finished shards are kept"
        )


def _work(work: Work, numbers: Sequence[int], connection: Connection) -> None:
    """A worker process: make shards, tell the parent."""
    parent = os.getppid()
    torch.set_num_threads(1)
    counters.take()  # what a forked worker was born with is the parent's
    untold, last = 0, time.monotonic()

    def tell(samples: int) -> None:
        nonlocal untold, last
        untold += samples
        if time.monotonic() - last > 0.1:
            if os.getppid() != parent:
                os._exit(1)  # nobody is there any more to finish the job for
            connection.send(untold)
            untold, last = 0, time.monotonic()

    try:
        for number in numbers:
            done = work.make(number, tell)
            connection.send(untold)
            untold = 0
            connection.send(done)
            connection.send(counters.take())
    except StreampipeError as error:
        connection.send(type(error)(str(error)))
    except KeyboardInterrupt:
        os._exit(130)


def _in_one_go(pipe: Pipeline, pattern: str, options: Options, reason: str) -> Summary:
    """Where samples are not counted: one writer, front to back. What is there is kept, and gone through once more."""
    if options.num_workers > 0 or options.world[1] > 1:
        raise ConfigError(
            f"only one process can write this pipeline, because {reason}: make an index (streampipe index) to write in "
            f"parallel, or leave out num_workers= and run it on one rank"
        )
    claim(pattern, _facts(pipe, pattern, options, {"epochs": pipe.epochs}), options.source, 100_000)
    summary = Summary(pattern)
    with tqdm(unit=" samples", desc="write", disable=not options.progress) as bar:
        run = Run(seed=pipe.seed, policy=options.policy.fresh(), threads=options.threads)
        views = takes_views(pipe.chain)
        samples = (sample for epoch in range(pipe.epochs or 1) for sample in pipe.source(run, epoch, views is not None))
        items = through(pipe.chain, told(samples, tell_bar(bar)), run, views)
        for first in items:
            url = shard_url(pattern, summary.shards)
            of_shard = chain([first], islice(items, options.max_samples - 1))
            if is_done(pattern, summary.shards, options.source):
                summary.kept += 1
                for _ in of_shard:
                    pass
            else:
                write_shard(url, summary.shards, of_shard, run, options)
            summary.shards += 1
    return summary


def _facts(pipe: Pipeline, pattern: str, options: Options, more: dict[str, Any]) -> dict[str, Any]:
    """What decides the bytes of the shards. Not the error policy: ``"skip"`` may finish what ``"raise"`` stopped."""
    facts = {
        "streampipe": VERSION,
        "shards": pattern.rpartition("/")[2],
        "max_samples": options.max_samples,
        "inputs": _inputs(pipe.source),
        "seed": pipe.seed,
        **more,
        "pipeline": [describe(stage) for stage in pipe.chain],
        "quality": options.quality,
        "version": options.version,
    }
    plain: dict[str, Any] = json.loads(json.dumps(facts))
    return plain


def _inputs(source: Any) -> list[str]:
    """The source in words, with a digest of its URLs: two datasets may have the same numbers of samples."""
    if isinstance(source, MixSamples):
        return [line for pipe in source.pipes for line in (*_inputs(pipe.source), *map(describe, pipe.chain))]
    if not isinstance(source, ShardSamples):
        return [repr(source)]
    urls = [redact(url) if "://" in url else os.path.abspath(url) for url in source.shards]
    return [f"{len(urls)} shards, {urls[0]} to {urls[-1]} ({digest(urls)})"]


def _manifest(summary: Summary, options: Options) -> None:
    """Put down which shards there are, from their indexes. Every rank that finds all of them writes the same."""
    source = options.source
    if not summary.shards:
        raise StageError("the pipeline gave no samples, so no shard was written; check its filters and shards")

    def one(number: int) -> tuple[Entry, np.ndarray]:
        url = shard_url(summary.pattern, number)
        place = index_url(url)
        found = ShardIndex.from_bytes(source.read(place), redact(place))
        keys = np.fromiter(map(hash, found.keys()), np.int64, len(found))
        return Entry(url.rpartition("/")[2], found.shard_bytes, len(found), found.facts["sha256"]), keys

    found = list(ordered(one, range(summary.shards), _THREADS))
    entries = [entry for entry, _ in found]
    summary.samples, summary.bytes = sum(each.samples for each in entries), sum(each.bytes for each in entries)
    if not summary.samples:
        raise StageError(
            f"all {summary.shards} shards are empty: the stages dropped every sample; check them against one sample"
        )
    summary.repeated = summary.samples - len(np.unique(np.concatenate([keys for _, keys in found])))
    if summary.repeated:
        log.warning(
            "%d samples of %s have a key that another shard has, too: what is joined or drawn by key will treat them "
            "alike; give them keys of their own where that matters",
            summary.repeated,
            redact(summary.pattern),
        )
    put(f"{summary.pattern.rpartition('/')[0] or '.'}/{NAME}", to_bytes(entries), source)
