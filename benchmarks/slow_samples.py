"""How busy a consumer is kept when one sample in twenty takes ten times as long: batches stay as planned.

    python benchmarks/slow_samples.py [--slow 20] [--times 10] [--milliseconds 5] [--readers 4] [--batches 150]

Samples wait instead of working, so a machine that others use tells the same. The consumer asks for what the mean rate
allows, less five in a hundred: its step is as long as one batch takes all readers on the mean. Utilisation: the time
that it spends in its steps, of all the time behind the first batch.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path

import streampipe as sp

BATCH = 16


def wait(text: bytes, slow: int, times: int, seconds: float) -> bytes:
    """The work on a sample: every ``slow``-th one takes so many times as long, wherever it comes in the order."""
    time.sleep(seconds * (times if int(text) * 2654435761 % (1 << 32) % slow == 0 else 1))
    return text


def utilisation(loader, step: float) -> tuple[float, int]:
    """Of a consumer with steps of so many seconds, and how many it took."""
    batches = iter(loader)
    next(batches)
    start, steps = time.perf_counter(), 0
    for _ in batches:
        time.sleep(step)
        steps += 1
    return steps * step / (time.perf_counter() - start), steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slow", type=int, default=20)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--milliseconds", type=float, default=5.0)
    parser.add_argument("--readers", type=int, default=4)
    parser.add_argument("--batches", type=int, default=150)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    seconds = given.milliseconds / 1000
    mean = seconds * (1 + (given.times - 1) / given.slow)
    step = BATCH * mean / given.readers / 0.95
    work = partial(wait, slow=given.slow, times=given.times, seconds=seconds)
    with tempfile.TemporaryDirectory() as folder:
        rows = [{"__key__": f"{number:06d}", "txt": b"%d" % number} for number in range(BATCH * given.batches)]
        sp.from_iterable(rows).write(str(Path(folder) / "{:05d}.tar"), max_samples=500, progress=False)
        pipe = sp.stream(folder, shuffle=True)
        planned = pipe.map(work, "txt").batch(BATCH)
        contenders = {
            f"threads={given.readers}": lambda: planned.loader(threads=given.readers),
            f"num_workers={given.readers}": lambda: planned.loader(num_workers=given.readers),
            f"map(threads={given.readers})": lambda: (
                pipe.map(work, "txt", threads=given.readers).batch(BATCH).loader(threads=1)
            ),
        }
        print(f"one in {given.slow} takes {given.times} times {given.milliseconds} ms; a step is {step * 1000:.1f} ms")
        for name, make in contenders.items():
            share, steps = utilisation(make(), step)
            print(f"  {name:<18} utilisation {share:.1%} over {steps} steps")


if __name__ == "__main__":
    main()
