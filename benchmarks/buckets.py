"""Aspect-ratio buckets: what each policy loses, what is cut away, and what deciding them in integers costs.

python benchmarks/buckets.py             # samples lost by policy: 8 ranks x 8 workers, batches of 16, 33 buckets
python benchmarks/buckets.py --cut       # the share of an image that is cut away, by set of buckets
python benchmarks/buckets.py --scale     # 10^9 samples in 10^5 shards: time to a step, memory, rate

No data is read: aspect ratios are drawn from two distributions. "photo": 25 % 3:2, 15 % 4:3, 12 % 16:9, 12 % 1:1, 10 %
2:3, 8 % 3:4, 4 % 4:5, 4 % 9:16, 2 % 1.91:1, each give or take 0.4 %, and 8 % lognormal with sigma 0.38. "danbooru": the
histogram that NovelAI published of its 3.1 million images (README of novelai-aspect-ratio-bucketing), uniform in log
aspect ratio within each of its buckets.
"""

from __future__ import annotations

import argparse
import json
import time
import tracemalloc
from collections import Counter

import numpy as np

from streampipe.context import Run
from streampipe.counters import counters
from streampipe.index.answers import Tally
from streampipe.plan.bucket_plan import BucketPlaces, make_plan
from streampipe.plan.bucketed import BucketDataset
from streampipe.plan.buckets import Buckets
from streampipe.plan.dataset import Dataset
from streampipe.plan.groups import GroupOrder, Groups
from streampipe.plan.lanes import Shuffle
from streampipe.plan.ratios import cut_away, log_ratios
from streampipe.plan.shapes import SETS
from streampipe.stages.bucket import MAX_BYTES, Pools

RANKS, WORKERS, BATCH = 8, 8, 16
PRESETS = {name: Buckets(name) for name in SETS if name != "pixart"}  # that is sdxl-published
PHOTO = {3 / 2: 25, 4 / 3: 15, 16 / 9: 12, 1: 12, 2 / 3: 10, 3 / 4: 8, 4 / 5: 4, 9 / 16: 4, 1.91: 2}
DANBOORU = {  # (height, width): images
    (1024, 256): 16618,
    (1024, 320): 38428,
    (1024, 384): 24377,
    (960, 384): 12010,
    (896, 384): 42191,
    (832, 448): 247869,
    (768, 512): 661814,
    (704, 512): 2189784,
    (640, 576): 417592,
    (512, 512): 429811,
    (576, 640): 231463,
    (512, 704): 586743,
    (512, 768): 209557,
    (448, 832): 173294,
    (384, 896): 15046,
    (384, 960): 3478,
    (384, 1024): 4512,
    (320, 1024): 3704,
    (256, 1024): 2326,
}


def photo(n: int, rng: np.random.Generator) -> np.ndarray:
    """Log aspect ratios of photographs."""
    shares = np.array([*PHOTO.values(), 8]) / 100
    kind = rng.choice(len(shares), n, p=shares)
    known = np.log([*PHOTO, 1.0])[kind] + np.log1p(rng.uniform(-0.004, 0.004, n))
    return np.where(kind == len(PHOTO), rng.normal(0, 0.38, n), known)


def danbooru(n: int, rng: np.random.Generator) -> np.ndarray:
    """Log aspect ratios of drawings."""
    ratios = log_ratios(list(DANBOORU))
    middles = (ratios[:-1] + ratios[1:]) / 2
    edges = np.array([2 * ratios[0] - middles[0], *middles, 2 * ratios[-1] - middles[-1]])
    weights = np.array([*DANBOORU.values()], float)
    kind = rng.choice(len(ratios), n, p=weights / weights.sum())
    return np.asarray(edges[kind] + rng.random(n) * (edges[kind + 1] - edges[kind]))


DISTRIBUTIONS = {"photo": photo, "danbooru": danbooru}


def assigned(buckets: Buckets, ratios: np.ndarray) -> np.ndarray:
    """The bucket of each image: all are about 4 megapixels."""
    return buckets.assign(np.round(2000 * np.exp(-ratios / 2)), np.round(2000 * np.exp(ratios / 2)))


def losses(n: int, distribution: str) -> None:
    """Samples that an epoch never gives out, by policy."""
    rng = np.random.default_rng(1)
    buckets = PRESETS["sdxl"]
    ratios = DISTRIBUTIONS[distribution](n, rng)
    found = assigned(buckets, ratios)
    counts = np.bincount(found, minlength=len(buckets))
    print(f"\n{distribution}, {n:,} samples, {RANKS} ranks x {WORKERS} workers, batches of {BATCH}")
    print(f"{'policy':58}{'lost':>9}{'shapes never seen':>19}{'steps a rank':>16}")
    for what, readers in (
        ("a pool in each worker, partial batches dropped", RANKS * WORKERS),
        ("one in each rank", RANKS),
    ):
        table = np.stack([np.bincount(found[i::readers], minlength=len(buckets)) for i in range(readers)])
        full = table // BATCH
        never = int(((full.sum(0) == 0) & (counts > 0)).sum())
        steps = full.sum(1).reshape(-1, RANKS).sum(0)
        _row(what, int((table % BATCH).sum()), n, never, f"{steps.min()} to {steps.max()}")
    for leftover in ("carry", "merge"):
        _pools(buckets, ratios, leftover)
    for leftover, same in (("carry", True), ("merge", True), ("drop", True), ("carry", False), ("drop", False)):
        _planned(buckets, counts, leftover, same)


def _pools(buckets: Buckets, ratios: np.ndarray, leftover: str) -> None:
    """The stage itself, over the samples of each of the workers."""
    n, readers = len(ratios), RANKS * WORKERS
    if n > 200_000:
        return
    out = 0
    sizes = (BATCH,) * len(buckets)
    steps = [0] * RANKS
    counters.take()
    for number in range(readers):
        pools = Pools(buckets, sizes, leftover, MAX_BYTES, Run(stage="bucket"))
        for group in pools.groups(map(_sample, ratios[number::readers].tolist())):
            out += len(group.samples)
            steps[number % RANKS] += 1
    short = counters.get("bucket", "short batches at the end") + counters.get("bucket", "merged batches")
    text = (
        f"ours, not counted: {leftover} ({short:.0f} {'short' if leftover == 'carry' else 'merged'} batches at the end)"
    )
    _row(text, n - out, n, 0, f"{min(steps)} to {max(steps)}")


def _sample(ratio: float) -> dict[str, object]:
    size = {"width": round(2000 * np.exp(ratio / 2)), "height": round(2000 * np.exp(-ratio / 2))}
    return {"__key__": "", "json": json.dumps(size).encode()}


def _planned(buckets: Buckets, counts: np.ndarray, leftover: str, same: bool, epochs: int = 10) -> None:
    """The plan's groups: every draw of some epochs is counted."""
    samples = tuple(counts.tolist())
    size = BATCH * RANKS if same else BATCH
    groups = Groups(buckets, samples, (size,) * len(buckets), leftover, 1 if same else RANKS)
    order, given = GroupOrder(groups, 0), Counter[int]()
    for number in range(groups.steps_before(epochs) * groups.together):
        for bucket, _, count in order.at(number, 0).draws:
            given[bucket] += count
    total = epochs * sum(samples)
    late = total - sum(given.values())
    never = sum(1 for b, n in enumerate(samples) if n and not given[b])
    steps = [groups.steps_before(e + 1) - groups.steps_before(e) for e in range(epochs)]
    what = f"ours, planned: {leftover}, {'one bucket on all ranks' if same else 'one on each rank'}, {epochs} epochs"
    if leftover == "carry":
        what, late = f"{what} ({late} wait for the next)", 0
    elif leftover == "merge":
        what += f" ({sum(each.samples for each in groups.merged)} merged)"
    _row(what, late, total, never, f"{min(steps)} to {max(steps)}")


def _row(what: str, lost: int, n: int, never: int, steps: str) -> None:
    print(f"{what:<84}{100 * lost / n:>7.2f} %{never:>10}{steps:>16}")


def cuts(n: int = 400_000) -> None:
    """The share of the resized image that is cut away."""
    print(f"{'buckets':12}{'number':>8}" + "".join(f"{name + ' mean / p95 / p99 %':>32}" for name in DISTRIBUTIONS))
    sets = {"1024x1024": Buckets([(1024, 1024)]), **PRESETS, "step 32": Buckets(base=1024, step=32)}
    for name, buckets in sets.items():
        text = f"{name:12}{len(buckets):>8}"
        for draw in DISTRIBUTIONS.values():
            ratios = draw(n, np.random.default_rng(2))
            lost = 100 * cut_away(ratios, log_ratios(buckets.sizes)[assigned(buckets, ratios)])
            text += f"{lost.mean():>18.1f} / {np.percentile(lost, 95):.1f} / {np.percentile(lost, 99):.1f}"
        print(text)


def scale(samples: int, shards: int, ranks: int, window: int) -> None:
    """The plan of one rank of a large job."""
    buckets = PRESETS["sdxl"]
    rng = np.random.default_rng(0)
    shares = np.bincount(assigned(buckets, photo(1_000_000, rng)), minlength=len(buckets)) / 1e6
    matrix = rng.multinomial(samples // shards, shares, shards).astype(np.int32)
    tally = Tally(matrix, np.zeros(len(buckets)))
    whole = Dataset([f"{i}.tar" for i in range(shards)], None, matrix.sum(1, dtype=np.int64))  # type: ignore[arg-type]
    dataset = BucketDataset(whole, buckets, tally)
    plan = make_plan(dataset, (BATCH,) * len(buckets), ranks, Shuffle(window), 0, "")
    print(
        f"{samples:.0e} samples in {shards:.0e} shards, {len(buckets)} buckets, {ranks} ranks, "
        f"global batch {BATCH * ranks}"
    )
    print(f"{plan.batches_in(0):,} steps in the first epoch, window {window}, {plan.lanes.places} lanes a bucket")
    for what, step in (("first batch", 0), ("resume in the middle", plan.batches_in(0) // 2)):
        start = time.perf_counter()
        places = BucketPlaces(dataset, plan, 5, ranks)
        places(3, step)
        print(f"time to {what}: {time.perf_counter() - start:.3f} s")
    tracemalloc.start()
    places = BucketPlaces(dataset, plan, 5, ranks)
    steps = range(plan.batches_in(0) // 2, plan.batches_in(0) // 2 + 1600)
    for step in steps[:800]:
        places(3, step)  # orders of all buckets are begun
    held = tracemalloc.get_traced_memory()[0] / 1e6
    tracemalloc.stop()
    start = time.perf_counter()
    for step in steps[800:]:
        places(3, step)
    rate = 800 * BATCH / (time.perf_counter() - start)
    print(f"one rank plans {rate:,.0f} samples/s; {held:.0f} MB beside the {matrix.nbytes / 1e6:.0f} MB matrix")


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cut", action="store_true")
    parser.add_argument("--scale", action="store_true")
    given = parser.parse_args()
    if given.cut:
        cuts()
    elif given.scale:
        scale(10**9, 10**5, 64, 2000)
    else:
        for n in (100_000, 1_000_000):
            for distribution in DISTRIBUTIONS:
                losses(n, distribution)


if __name__ == "__main__":
    main()
