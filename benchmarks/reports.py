"""What it costs that a loader counts: the same passes with counting taken out, as it is, and with ``trace=True``.

    python benchmarks/reports.py --images FOLDER_OF_PHOTOS [--turns 500] [--only bytes|photos]

CPU time of the thread that makes batches and takes them. Three loaders take turns of a few milliseconds, in an order
that changes, so whatever else runs on the machine slows them alike; what is told is the median of the turns' ratios,
and between which two of these ratios the true median lies with 95 % certainty. Counting has no switch; it is taken out
here by force, function by function, and the benchmark looks whether nothing is counted then.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import streampipe as sp
from streampipe.context import Run
from streampipe.counters import OfLoader, OfProcess
from streampipe.engine import batches, chain
from streampipe.loader import feed
from streampipe.loader.recorder import Recorder
from streampipe.source.local import LocalFile
from streampipe.stages import guard

sys.path.insert(0, str(Path(__file__).parent))
from data import laion_like, photos


@contextmanager
def without_counting() -> Iterator[None]:
    """Nothing is counted, and no clock is looked at, by what is built meanwhile."""

    def guarded(stage: object, items: object, run: Run) -> Iterator[object]:
        policy, skips, pulled = run.policy, run.policy.mode != "raise", guard._Pulled()
        rows = guard.traits_of(stage).rows
        checked, before = rows in (guard.Rows.EACH, guard.Rows.FEWER), policy.left_out
        try:
            for item in guard._started(stage, pulled.stream(items), run):
                pulled.yielded += 1
                if skips:
                    policy.yielded(run.stage)
                if checked and pulled.yielded > pulled.given:
                    raise AssertionError
                yield item
                del item
            assert rows is not guard.Rows.EACH or pulled.yielded + policy.left_out - before == pulled.given
        except BaseException:
            raise

    def made(counts: OfLoader, items: Iterator[object]) -> Iterator[object]:
        return items

    out = [
        (chain, "guarded", guarded),
        (batches, "watched", lambda items, tally, count=1: items),
        (feed, "made_for", made),
        (OfProcess, "add", lambda self, *args, **kwargs: None),
        (OfLoader, "add", lambda self, *args, **kwargs: None),
        (LocalFile, "watched", lambda self, start, end, tally: self.read(start, end)),
        *((Recorder, name, lambda self, *args: None) for name in ("begin", "asks", "gives", "ends")),
    ]
    with ExitStack() as stack:
        for owner, name, instead in out:
            stack.enter_context(patch.object(owner, name, instead))
        yield


def middle(values: list[float]) -> tuple[float, float, float]:
    """The median, and the two values that have it between them with a certainty of 95 %."""
    values, number = sorted(values), len(values)
    far = int(0.98 * math.sqrt(number))  # by the binomial distribution of how many lie below it
    return statistics.median(values), values[max(0, number // 2 - far)], values[min(number - 1, number // 2 + far)]


def compare(name: str, pipe: sp.Pipeline, number: int, samples: int, turns: int) -> None:
    """Print what the three take for a batch of so many samples, and the two ratios: so many batches of each in turn."""
    kinds = ("without", "counting", "tracing")
    loaders = {kind: pipe.loader(trace=kind == "tracing") for kind in kinds}
    batches = {kind: iter(loader) for kind, loader in loaders.items()}
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    gc.collect()
    gc.disable()
    for turn in range(turns + 3):  # the first open shards and start codecs
        for at in range(3):
            kind = kinds[(turn + at) % 3]
            with without_counting() if kind == "without" else ExitStack():
                began = time.thread_time()
                for _ in itertools.islice(batches[kind], number):
                    pass
                if turn >= 3:
                    times[kind].append(time.thread_time() - began)
    gc.enable()
    assert [loaders[kind].summary().batches == 0 for kind in kinds] == [True, False, False]
    each = 1e6 * statistics.median(times["without"]) / number / samples
    shown = [f"{name:<40}{each:>9.1f}"]
    for kind in kinds[1:]:
        ratios = [100 * (a / b - 1) for a, b in zip(times[kind], times["without"], strict=True)]
        half, least, most = middle(ratios)
        shown.append(f"{half:>+7.2f} % ({least:+.2f} to {most:+.2f})")
    print("  ".join(shown), flush=True)


def main() -> None:
    """Run the comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="JPEGs; without them only bytes are read")
    parser.add_argument("--turns", type=int, default=500)
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "streampipe-benchmark")
    parser.add_argument("--only", choices=("bytes", "photos"))
    given = parser.parse_args()
    given.data.mkdir(parents=True, exist_ok=True)
    print(f"load {os.getloadavg()[0]:.1f} of {os.cpu_count()} cores")
    print(f"{'':<40}us a sample  counting                     tracing")
    if given.only != "photos":
        plain = sp.stream(laion_like(given.data, 4000), epochs=None)
        compare("bytes, batches of 64", plain.batch(64), 8, 64, given.turns)
        mapped = plain.map(len, "txt").select("jpg", "txt").batch(64)
        compare("bytes, map, select, batches of 64", mapped, 4, 64, given.turns)
        compare("bytes, samples one by one", plain, 200, 1, given.turns)
    if given.images and given.only != "bytes":
        pipe = sp.stream(photos(given.data, given.images, 4, 32), epochs=None, shuffle=True)
        pipe = pipe.rename(image="jpg").decode(512).batch(8)
        compare("photos to 512 x 512, batches of 8", pipe, 1, 8, given.turns)


if __name__ == "__main__":
    main()
