"""``streampipe bench URL...``: how fast samples come from these shards to this machine, bytes or pixels."""

from __future__ import annotations

import argparse
import time

from streampipe.commands.arguments import add_index, add_urls, positive, whole
from streampipe.decoding.fields import IMAGES
from streampipe.loader import Loader
from streampipe.stream import stream

HELP = "measure samples a second from these shards: bytes, or images decoded to a size"


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    add_urls(parser)
    add_index(parser)
    parser.add_argument(
        "--size", type=positive, metavar="PIXELS", help="decode to such squares; without it, bytes only"
    )
    parser.add_argument("--batch", type=positive, default=16, metavar="N", help="samples of a batch (16)")
    parser.add_argument("--workers", type=whole, default=0, metavar="N", help="worker processes (0)")
    parser.add_argument("--threads", type=whole, default=0, metavar="N", help="threads that decode (0)")
    parser.add_argument("--auto", action="store_true", help="try a few numbers of workers and threads first")
    parser.add_argument("--report", metavar="FILE", help="write a page (HTML) with stages and a timeline")
    parser.add_argument("--seconds", type=positive, default=10, metavar="S", help="how long (10)")


def run(given: argparse.Namespace) -> int:
    """Measure, in shuffled order as in training. The first batch is not counted: with it workers and threads start.

    The sentence says what limits the rate, and what to change.
    """
    pipe = stream(
        given.urls,
        shuffle=True,
        epochs=None,
        index=given.index,
        storage_options=given.storage_options,
        limits=given.limits,
    )
    if given.size:
        pipe = pipe.rename(image=";".join(sorted(IMAGES))).select("image").decode(given.size)
    trace = given.report is not None
    loader = Loader(pipe.batch(given.batch), given.workers, threads=given.threads, auto=given.auto, trace=trace)
    batches = iter(loader)
    next(batches)
    samples, start = 0, time.perf_counter()
    for batch in batches:
        samples += len(batch["__key__"])
        if time.perf_counter() - start >= given.seconds:
            break
    seconds = time.perf_counter() - start
    if given.auto:
        print(loader.explain().splitlines()[-1])
    what = f"images decoded to {given.size} x {given.size}" if given.size else "samples of bytes"
    print(f"{samples / seconds:,.0f} {what} a second ({samples:,} in {seconds:.1f} s)")
    print(loader.summary().verdict)
    if trace:
        loader.report("html", given.report)
    return 0
