"""``streampipe bench URL...``: how fast samples come from these shards to this machine, and what limits them."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from typing import Any

from streampipe.commands.say import say_json
from streampipe.decoding.codecs import ALL
from streampipe.decoding.fields import ALL_IMAGES
from streampipe.errors import ConfigError
from streampipe.loader import Loader
from streampipe.pipeline import Pipeline
from streampipe.stream import stream


def run(given: argparse.Namespace) -> int:
    """Measure."""
    trace = given.report is not None
    decoded = given.size is not None or given.bucket is not None
    pipe = _pipe(given).batch(given.batch, collate=None if decoded else _together)
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
    return pipe.rename(image=";".join(sorted(ALL_IMAGES))).select("image").decode(given.size, formats=ALL)


def _together(samples: Sequence[Any]) -> dict[str, Any]:
    """Samples of bytes as a batch, whatever fields each of them has."""
    return {"__key__": [sample["__key__"] for sample in samples], "samples": samples}


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
