"""``write``: a pipeline becomes shards, in this process or in workers, on one rank or many.

The job is written down first, then shards with their indexes, in any order and by whoever, and the manifest last.
Shards that are there are kept. Ranks need not talk: each makes its own, and the last to finish finds all of them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any

import numpy as np
from tqdm import tqdm

from streampipe.cluster import Cluster
from streampipe.context import Run
from streampipe.engine.chain import takes_views, through
from streampipe.errors import ConfigError, IndexMismatch, OutputBusy, StageError
from streampipe.index import ShardIndex
from streampipe.index.find import index_url
from streampipe.index.manifest import NAME, Entry, to_bytes
from streampipe.plan.ask import Uncounted
from streampipe.policy import ErrorPolicy
from streampipe.source import Source, redact
from streampipe.spec import Spec
from streampipe.stages.stage import pushdown_of
from streampipe.threads import ordered
from streampipe.traits import Batch, Pack
from streampipe.write.cost import Cost, costs_in, total
from streampipe.write.draft import put
from streampipe.write.job import check_pattern, claim, facts_of, is_done, shard_url
from streampipe.write.work import CountedLate, Work, key_of, planned, told, write_shard
from streampipe.write.workers import in_workers

log = logging.getLogger("streampipe")
_THREADS = 16  # for many small requests to a store


@dataclass
class Summary:
    """What a run of ``write`` did; ``samples`` and ``bytes`` of all shards, once none is ``missing``."""

    pattern: str
    samples: int = 0
    shards: int = 0
    kept: int = 0  # shards that an earlier run, or another rank, had finished
    missing: int = 0  # shards of other ranks that are not there yet: who finishes last writes the manifest
    repeated: int = 0  # samples whose key is in another shard, too
    bytes: int = 0
    seconds: float = 0.0
    costs: dict[str, Cost] = field(default_factory=dict)  # of each field of conditions, by name

    def __str__(self) -> str:
        if self.missing:
            text = f"{self.shards - self.missing} of {self.shards} shards, the others are other ranks'"
        else:
            text = f"{self.samples} samples in {self.shards} shards ({self.bytes / 1e6:.1f} MB)"
        kept = f"; {self.kept} were there already" if self.kept else ""
        costs = "".join(f"\n{name}: {cost}" for name, cost in sorted(self.costs.items()))
        return f"{text}, {self.seconds:.1f} s{kept}: {redact(self.pattern)}{costs}"


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
    sha256: bool
    source: Source
    context: Any
    progress: bool


def write(spec: Spec, pattern: str, options: Options) -> Summary:
    """See ``Pipeline.write``."""
    start = time.perf_counter()
    check_pattern(pattern)
    if spec.epochs is None:
        raise ConfigError("epochs=None makes the pipeline endless, so it cannot be written: give stream(epochs=n)")
    last = pushdown_of(spec.chain[-1]) if spec.chain else None
    if isinstance(last, (Batch, Pack)):  # before the folder is claimed for such a job
        name, advice = ("batch", "put unbatch() behind it") if isinstance(last, Batch) else ("pack", "leave it out")
        raise ConfigError(f"write takes samples, and the pipeline ends with {name}(...): {advice}")
    spec = replace(spec, policy=options.policy)
    try:
        plan, stages = planned(spec, options.max_samples)
    except Uncounted as reason:
        advice = "put it first" if isinstance(reason, CountedLate) else "make an index (streampipe index)"
        summary = _in_one_go(spec, pattern, options, str(reason), advice)
    else:
        shards = plan.batches * (spec.epochs or 1)
        work = Work(
            plan,
            stages,
            shards,
            pattern,
            spec.seed,
            options.policy.fresh(),
            options.source,
            options.quality,
            options.sha256,
            options.threads,
        )
        summary = _planned(spec, work, options)
    if not summary.missing:
        _manifest(summary, options)
    summary.seconds = time.perf_counter() - start
    return summary


def _planned(spec: Spec, work: Work, options: Options) -> Summary:
    plan = work.plan
    facts = {
        "samples": plan.lanes.samples,
        "epochs": spec.epochs,
        "window": plan.lanes.window if plan.shuffled else None,
        "lanes": [plan.lanes.places, plan.lanes.columns],
        "dataset": plan.dataset.fingerprint,
        "filter": plan.filter,
    }
    claim(work.pattern, facts_of(spec, work.pattern, options, facts), options.source, work.shards)
    summary = Summary(work.pattern, shards=work.shards)
    rank, world_size = options.world
    mine = list(range(rank, work.shards, world_size))
    todo = _missing(work.pattern, mine, options.source)
    size, samples = plan.lanes.size, plan.lanes.samples
    total = sum(min(size, samples - number % plan.batches * size) for number in todo)
    with _bar(options, total) as bar:
        workers = min(options.num_workers, len(todo))
        apart = bool(workers) or isinstance(options.context, Cluster)
        if apart:
            in_workers(work, todo, workers, options.context, bar.update)
        for number in () if apart else todo:
            work.make(number, bar.update, beside=True)
    others = sorted(set(range(work.shards)) - set(mine))
    summary.missing = len(_missing(work.pattern, others, options.source))
    summary.kept = work.shards - len(todo) - summary.missing
    return summary


def _missing(pattern: str, numbers: Sequence[int], source: Source) -> list[int]:
    done = ordered(lambda number: is_done(pattern, number, source), numbers, _THREADS if "://" in pattern else 0)
    return [number for number, there in zip(numbers, done, strict=True) if not there]


def _bar(options: Options, total: int | None = None) -> Any:
    rank, world_size = options.world
    name = "write" if world_size == 1 else f"write, rank {rank} of {world_size}"
    return tqdm(total=total, unit=" samples", desc=name, disable=not options.progress)


def _in_one_go(spec: Spec, pattern: str, options: Options, reason: str, advice: str) -> Summary:
    """Where samples are not counted: one writer, front to back. What is there is kept, and gone through once more."""
    if options.num_workers > 0 or options.world[1] > 1 or isinstance(options.context, Cluster):
        raise ConfigError(
            f"only one process can write this pipeline, because {reason}: {advice} to write in parallel, or leave out "
            f"num_workers= and run it on one rank"
        )
    if spec.source.parts:
        raise ConfigError(f"a mixture cannot be written where {reason}: {advice}")
    claim(pattern, facts_of(spec, pattern, options, {"epochs": spec.epochs}), options.source, 100_000)
    summary = Summary(pattern)
    with _bar(options) as bar:
        run = Run(seed=spec.seed, policy=options.policy.fresh(), threads=options.threads)
        views = takes_views(spec.chain)

        def of_epoch(epoch: int) -> Iterable[Any]:
            return through(spec.chain, told(spec.source(run, epoch, views is not None), bar.update), run, views)

        items = chain.from_iterable(map(of_epoch, range(spec.epochs or 1)))
        for first in items:
            of_shard = chain([first], islice(items, options.max_samples - 1))
            url = shard_url(pattern, summary.shards)
            if is_done(pattern, summary.shards, options.source):
                summary.kept += 1
                _check_same(url, of_shard, options.source)
            else:
                write_shard(url, of_shard, run, options.source, options.quality, options.sha256, beside=True)
            summary.shards += 1
    if is_done(pattern, summary.shards, options.source):
        url = redact(shard_url(pattern, summary.shards))
        raise OutputBusy(
            f"{url} is there, and the samples end before it now: what is read has "
            f"changed since, or other parts of it were skipped as damaged; choose an empty folder, or delete this one"
        )
    return summary


def _check_same(url: str, samples: Iterable[Any], source: Source) -> None:
    """Go through the samples that a shard was made of; those that could not be encoded are not in it.

    Raises:
        OutputBusy: it was made of others, so what follows would leave samples out, or have them twice.
    """
    keys, there = map(key_of, samples), _index_of(url, source).keys()
    for key in there:
        if key not in keys:  # goes on behind the one before
            raise OutputBusy(
                f"{redact(url)} has sample {key!r}, which does not come in its turn now: what is read has changed "
                f"since, or other parts of it were skipped as damaged; choose an empty folder, or delete this one"
            )
    for _ in keys:
        pass


def _index_of(url: str, source: Source) -> ShardIndex:
    place = index_url(url)
    return ShardIndex.from_bytes(source.read(place), redact(place))


def _manifest(summary: Summary, options: Options) -> None:
    """Put down which shards there are, from their indexes. Every rank that finds all of them writes the same."""
    source = options.source
    if not summary.shards:
        raise StageError("the pipeline gave no samples, so no shard was written; check its filters and shards")

    def one(number: int) -> tuple[Entry, np.ndarray, dict[str, Cost]]:
        url = shard_url(summary.pattern, number)
        found = _index_of(url, source)
        size = source.size(url)
        if size is not None and size != found.shard_bytes:
            raise IndexMismatch(
                f"{redact(url)} has {size} bytes, and had {found.shard_bytes} when it was written: it is damaged; "
                f"delete it, and run the same again"
            )
        keys = np.fromiter(map(hash, found.keys()), np.int64, len(found))
        return (
            Entry(url.rpartition("/")[2], found.shard_bytes, len(found), found.facts.get("sha256")),
            keys,
            costs_in(found),
        )

    found = list(ordered(one, range(summary.shards), _THREADS))
    entries = [entry for entry, _, _ in found]
    summary.costs = total(costs for _, _, costs in found)
    summary.samples, summary.bytes = sum(each.samples for each in entries), sum(each.bytes for each in entries)
    if not summary.samples:
        raise StageError(
            f"all {summary.shards} shards are empty: the stages dropped every sample; check them against one sample"
        )
    summary.repeated = summary.samples - len(np.unique(np.concatenate([keys for _, keys, _ in found])))
    if summary.repeated:
        log.warning(
            "%d samples of %s have a key that another shard has, too: what is joined or drawn by key will treat them "
            "alike; give them keys of their own where that matters",
            summary.repeated,
            redact(summary.pattern),
        )
    put(f"{summary.pattern.rpartition('/')[0] or '.'}/{NAME}", to_bytes(entries), source)
