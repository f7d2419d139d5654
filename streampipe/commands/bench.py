"""``streampipe bench URL...``: how fast samples come from these shards to this machine, and what limits them."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

from streampipe.commands.arguments import add_index, add_urls, positive, whole
from streampipe.commands.say import say_json
from streampipe.decoding.fields import IMAGES
from streampipe.errors import ConfigError
from streampipe.loader import Loader
from streampipe.pipeline import Pipeline
from streampipe.stream import stream

HELP = """Measure samples a second from these shards on this machine, in shuffled order as in training: their bytes, or
images decoded to a size or to buckets. Says what limits the rate and what to change, then where the time goes, stage by
stage. The first batch is not counted: with it workers and threads start."""
EXAMPLES = """
  streampipe bench shards/ --bucket sdxl --threads 8
  streampipe bench 's3://bucket/{00000..00099}.tar' --seconds 30
  streampipe bench shards/ --size 512 --auto --report report.html
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    add_urls(parser)
    add_index(parser)
    parser.add_argument(
        "--size", type=positive, metavar="PIXELS", help="decode to such squares; without it, bytes only"
    )
    parser.add_argument("--bucket", metavar="NAME", help="or to buckets: sdxl, sd15, pixart, photo")
    parser.add_argument("--where", metavar="CONDITION", help="only those, as in 'width >= 512 and aesthetic > 5'")
    parser.add_argument("--batch", type=positive, default=16, metavar="N", help="samples of a batch (16)")
    parser.add_argument("--workers", type=whole, default=0, metavar="N", help="worker processes (0)")
    parser.add_argument("--threads", type=whole, default=0, metavar="N", help="threads that decode (0)")
    parser.add_argument("--auto", action="store_true", help="try a few numbers of workers and threads first")
    parser.add_argument("--report", metavar="FILE", help="write a page (HTML) with stages and a timeline")
    parser.add_argument("--seconds", type=positive, default=10, metavar="S", help="how long (10)")
    parser.add_argument("--json", action="store_true", help="print it as a JSON object")


def run(given: argparse.Namespace) -> int:
    """Measure."""
    trace = given.report is not None
    pipe = _pipe(given).batch(given.batch)
    loader = Loader(pipe, given.workers, threads=given.threads, auto=given.auto, trace=trace)
    samples, seconds = _measure(iter(loader), given.seconds)
    summary, rate = loader.summary(), samples / seconds
    if trace:
        loader.report("html", given.report)
    if given.json:
        say_json({"samples_a_second": rate, "samples": samples, "seconds": seconds, "report": summary.as_dict()})
        return 0
    if given.auto:
        print(loader.explain().splitlines()[-1])
    print(f"{rate:,.0f} {_what(given)} a second ({samples:,} in {seconds:.1f} s)")
    print(loader.report())
    return 0


def _pipe(given: argparse.Namespace) -> Pipeline:
    if given.size is not None and given.bucket is not None:
        raise ConfigError("bench decodes to --size or to --bucket, not to both")
    pipe = stream(
        given.urls,
        shuffle=True,
        epochs=None,
        index=given.index,
        storage_options=given.storage_options,
        limits=given.limits,
    )
    pipe = pipe if given.where is None else pipe.where(given.where)
    pipe = pipe if given.bucket is None else pipe.bucket(given.bucket)
    if given.size is None and given.bucket is None:
        return pipe
    return pipe.rename(image=";".join(sorted(IMAGES))).select("image").decode(given.size)


def _what(given: argparse.Namespace) -> str:
    if given.bucket is not None:
        return f"images decoded to the buckets {given.bucket}"
    return f"images decoded to {given.size} x {given.size}" if given.size else "samples of bytes"


def _measure(batches: Iterator[dict[str, Any]], most: float) -> tuple[int, float]:
    """Samples that came in so many seconds, and the seconds."""
    next(batches)
    samples, start = 0, time.perf_counter()
    for batch in batches:
        samples += len(batch["__key__"])
        if time.perf_counter() - start >= most:
            break
    return samples, time.perf_counter() - start
