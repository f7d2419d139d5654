"""Samples that can only be read front to back, in another order: packed as they come first, and then by their index.

Both steps are jobs of their own with their own journals, so a run that is killed in either goes on there.
"""

from __future__ import annotations

import os
import shutil
from contextlib import closing, suppress
from dataclasses import replace

from streampipe.index import Finder
from streampipe.pack.catalog import Catalog
from streampipe.pack.change import Change
from streampipe.pack.find import Choice
from streampipe.pack.job import finished
from streampipe.pack.output import Output
from streampipe.pack.sift import Sift
from streampipe.pack.summary import Summary, summary_of
from streampipe.pack.work import How, Job, Work, planned
from streampipe.reading.tars import IndexedTars
from streampipe.source import Source
from streampipe.urls import ShardList

_SPOOL = ".in-order"
_BYTES = 256 << 20  # of a shard that is read in another order soon


def unordered(given: Catalog, choice: Choice, job: Job, how: How, max_samples: int, max_bytes: int) -> Summary:
    """Pack what a catalog has in the order that ``choice`` says, or in buckets."""
    job = replace(job, asked={**job.asked, "stamp": given.stamp()})
    spool = os.path.join(job.out.state, _SPOOL)
    done = finished(job.out, job.asked)
    if done is not None:
        summary = summary_of(given, job.sift, job.out.url, done, False)
        summary.kept, summary.bytes = len(done), sum(made.entry.bytes for made in done)
        summary.samples = sum(made.entry.samples for made in done)
        summary.stills = sum(made.stills for made in done)
        shutil.rmtree(spool, ignore_errors=True)
        return summary
    plain = Job(Output(spool), job.asked, job.on_error, Change(), False, Sift(None, None), sha256=job.sha256)
    first = list(planned(given, max_samples, _BYTES))
    skipped = summary_of(given, job.sift, spool, first, False)
    Work(given, first, plain, skipped)(how)
    shards = ShardList.of([os.path.join(spool, name) for name in sorted(plain.out.names()) if name.endswith(".tar")])
    sift = Sift(None, job.sift.buckets)  # what is to be left out has been
    again = Catalog(
        IndexedTars(shards, Finder(Source(), choice.limits)),
        sift=sift,
        seed=choice.seed,
        case_sensitive=choice.case_sensitive,
    )
    again.repeated, again.repeated_in = given.repeated, given.repeated_in
    with closing(again):
        second = list(planned(again, max_samples, max_bytes))
        summary = summary_of(again, job.sift, job.out.url, second, False)
        summary.skipped = list(skipped.skipped)
        summary.notes[0] = f"samples of {given.name}"
        Work(again, second, job, summary)(how)
    with suppress(OSError):
        shutil.rmtree(spool)
    return summary
