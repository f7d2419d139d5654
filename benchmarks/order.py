"""The order at full scale, and how well it mixes: no data is read, only the integers are computed.

python benchmarks/order.py                  # 10^10 samples, 10^6 shards, 1024 ranks x 8 workers
python benchmarks/order.py --quality        # displacement, shards in a batch, epochs against each other
"""

from __future__ import annotations

import argparse
import random
import resource
import time
from collections import Counter

import numpy as np

from streampipe.plan.dataset import EpochStream
from streampipe.plan.deal import shard_seed
from streampipe.plan.lanes import EpochOrder, Lanes, RankReader, batch_seed, choose, sensible_window


def simulate(samples: int, shards: int, ranks: int, workers: int, per_rank: int, window: int) -> None:
    """One worker of the job, and a sampled check that all workers together cover the epoch exactly."""
    counts = np.full(shards, samples // shards, np.int64)
    size = per_rank * ranks
    places, columns = choose(size, samples, shards)
    lanes = Lanes(samples, size, places, columns, window)
    print(f"{samples:.0e} samples, {shards:.0e} shards, {ranks} ranks x {workers} workers, global batch {size}")
    print(f"lanes {places} x {columns}, window {window}, {lanes.batches:,} steps an epoch")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for what, step in (("first batch", 0), ("resume in the middle", lanes.batches // 2)):
        start = time.perf_counter()
        stream = EpochStream(counts, shard_seed(0, 3))
        read = RankReader(EpochOrder(lanes, batch_seed(0, 3)), 5, ranks)
        stream.find(read(step))
        print(f"time to {what}: {time.perf_counter() - start:.3f} s")
    start = time.perf_counter()
    steps = range(lanes.batches // 2, lanes.batches // 2 + 200 * workers, workers)
    for step in steps:
        stream.find(read(step))
    rate = len(steps) * per_rank / (time.perf_counter() - start)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"one worker plans {rate:,.0f} samples/s; memory {after:.0f} MB in all, {after - before:.0f} MB for the plan")
    check_cover(lanes, window)


def check_cover(lanes: Lanes, window: int, probes: int = 30) -> None:
    """Whole neighbourhoods of some lanes: what may stand there stands there once."""
    order = EpochOrder(lanes, batch_seed(0, 3))
    rng = random.Random(0)
    for _ in range(probes):
        lane = rng.randrange(lanes.number)
        start, end = lanes.bounds(lane)
        middle = rng.randrange(2 * window, end - start - 2 * window)
        drawn = Counter(order._draw(lane, draw) - start for draw in range(middle - 2 * window, middle + 2 * window))
        assert max(drawn.values()) == 1
        assert set(range(middle - window, middle + window)) <= set(drawn), "a sample is missing"
    print(f"exact cover: {probes} neighbourhoods of {4 * window} draws, nothing lost, nothing twice")


def quality(samples: int, per_shard: int, size: int, window: int) -> None:
    """Our order beside a shuffle buffer of the same size over shards one after the other, as webdataset's."""
    shards = samples // per_shard
    places, columns = choose(size, samples, shards)
    lanes = Lanes(samples, size, places, columns, sensible_window(places))
    ours = [_order(lanes, shards, per_shard, epoch) for epoch in range(2)]
    theirs = [_buffered(samples, per_shard, window, epoch) for epoch in range(2)]
    print(f"{samples} samples, {per_shard} a shard, batches of {size}, window {window}, lanes {lanes.number}")
    print(f"{'':34}{'ours':>10}{'buffer':>10}{'random':>10}")
    both = [ours[0], theirs[0], np.random.default_rng(0).permutation(samples)]
    rows = [_measures(order, per_shard, size) for order in both]
    for what in rows[0]:
        print(f"{what:34}" + "".join(f"{row[what]:>10.3f}" for row in rows))
    same = [_rank_correlation(*each) for each in (ours, theirs)]
    print(f"{'correlation of places, two epochs':34}{same[0]:>10.3f}{same[1]:>10.3f}{0:>10.3f}")


def _order(lanes: Lanes, shards: int, per_shard: int, epoch: int) -> np.ndarray:
    stream = EpochStream(np.full(shards, per_shard), shard_seed(0, epoch))
    order = EpochOrder(lanes, batch_seed(0, epoch))
    places = [place for t in range(lanes.batches) for place in stream.find(order.batch(t))]
    return np.array([shard * per_shard + number for shard, number in places])


def _buffered(samples: int, per_shard: int, size: int, epoch: int) -> np.ndarray:
    """The textbook shuffle buffer: fill it, then swap a random one out for each that comes in."""
    rng = np.random.default_rng([1, epoch])
    shards = rng.permutation(samples // per_shard)
    source = (shards[:, None] * per_shard + np.arange(per_shard)).ravel()
    held, out = source[:size].tolist(), []
    for each in source[size:]:
        i = rng.integers(len(held))
        out.append(held[i])
        held[i] = each
    rng.shuffle(held)
    return np.array(out + held)


def _measures(order: np.ndarray, per_shard: int, size: int) -> dict[str, float]:
    batches = order[: len(order) // size * size].reshape(-1, size) // per_shard
    kinds = np.array([len(set(row.tolist())) for row in batches])
    near = np.abs(np.diff(order)) <= 10
    inside = np.diff(np.sort(order[: len(order) // size * size].reshape(-1, size), axis=1), axis=1) <= 10
    return {
        "different shards in a batch / size": float(kinds.mean() / size),
        "least of them / size": float(kinds.min() / size),
        "share of near neighbours kept": float(near.mean()),
        "near neighbours in one batch": float(inside.mean()),
    }


def _rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.corrcoef(np.argsort(first), np.argsort(second))[0, 1])


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quality", action="store_true")
    parser.add_argument("--samples", type=float, default=1e10)
    parser.add_argument("--shards", type=float, default=1e6)
    parser.add_argument("--ranks", type=int, default=1024)
    parser.add_argument("--workers", type=int, default=8)
    given = parser.parse_args()
    if given.quality:
        quality(200_000, 1000, 256, 2000)
    else:
        simulate(int(given.samples), int(given.shards), given.ranks, given.workers, 16, 10_000)


if __name__ == "__main__":
    main()
