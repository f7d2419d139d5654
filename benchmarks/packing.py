"""Packs to a token budget: fill, balance, what is cut or left out, and the CPU time of deciding, of ours and of others.

python benchmarks/packing.py                    # 10^6 samples; others need: pip install zephon lancedb
python benchmarks/packing.py --scale            # planning 10^9 samples in 10^5 shards: time, memory
python benchmarks/packing.py --samples 100000   # fewer

No data is read: costs are drawn, as patches of 16 x 16 pixels and tokens of text. 80 % are an image with a caption,
15 % a text alone, 5 % two to seven frames of a video; sides are lognormal around 640 pixels, texts around 80 tokens;
what costs more than 16,384 is left out. The budget is 36,864, as BAGEL's. Times are CPU seconds of this process.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from streampipe.plan.packing import Draws, PackOrder, Packs, fine_class, merge_classes, most_classes
from streampipe.stages.pack import pack

BUDGET, LIMIT, BINS = 36_864, 16_384, 64
RANKS = (2, 3, 4, 6, 8)
MOST_LANCE = 20_000  # samples: there must be a table of real tokens


def realistic(samples: int, seed: int = 0) -> np.ndarray:
    """Costs of images with captions, texts alone and short videos."""
    rng = np.random.default_rng(seed)
    kind = rng.random(samples)
    side = np.clip(np.exp(rng.normal(np.log(640), 0.45, samples)), 128, 2048)
    ratio = np.exp(rng.normal(0, 0.35, samples))
    image = (side * np.sqrt(ratio)).astype(int) * (side / np.sqrt(ratio)).astype(int) // 256
    frames = np.where(kind < 0.05, rng.integers(2, 8, samples), 1)
    text = np.clip(np.exp(rng.normal(np.log(80), 0.8, samples)), 4, 1024).astype(int)
    costs = np.where(kind > 0.85, 0, image * frames) + text
    return np.asarray(costs[costs <= LIMIT])


def classes_of(costs: np.ndarray, shards: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """The class of each sample, and what each class counts as."""
    fine = fine_class(costs)
    most = np.zeros(fine.max() + 1, np.int64)
    np.maximum.at(most, fine, costs)
    ends = merge_classes(np.bincount(fine), np.bincount(fine, costs), most, most_classes(shards))
    return np.searchsorted(ends, fine), most[ends]


def planned(costs: np.ndarray) -> tuple[list[float], str]:
    """What each pack of an epoch costs."""
    begun = time.process_time()
    own, tops = classes_of(costs)
    counts = np.bincount(own, minlength=len(tops))
    packs = Packs(tops.tolist(), counts.tolist(), BUDGET)
    decided = time.process_time() - begun
    order = PackOrder(packs, 0)
    drawn = [order.at(number) for number in range(packs.number)]
    walked = time.process_time() - begun - decided
    ends = [np.concatenate([[0], np.cumsum(costs[own == c])]) for c in range(len(tops))]

    def cost(parts: Iterable[Draws]) -> float:
        return float(sum(ends[c][first + n] - ends[c][first] for c, first, n in parts))

    return [cost(each) for each in drawn], f"{decided:.2f} s to decide, {walked:.2f} s to name all packs"


def windows(window: int) -> Callable[[np.ndarray], tuple[list[float], str]]:
    """Ours where nothing is known before: window after window."""

    def side(costs: np.ndarray) -> tuple[list[float], str]:
        begun = time.process_time()
        samples = ({"n": n} for n in costs.tolist())
        made = pack(budget=BUDGET, cost=lambda sample: sample["n"], window=window, collate=_total)(samples)
        return list(made), f"{time.process_time() - begun:.2f} s"

    return side


def _total(samples: Iterable[dict[str, int]]) -> float:
    return float(sum(sample["n"] for sample in samples))


def next_fit(costs: np.ndarray) -> tuple[list[float], str]:
    """What a loop in a trainer does: a pack goes when the next sample does not fit."""
    begun = time.process_time()
    found, held = [], 0
    for n in costs.tolist():
        if held + n > BUDGET:
            found.append(float(held))
            held = 0
        held += n
    return [*found, float(held)], f"{time.process_time() - begun:.2f} s"


def zephon(algorithm: str) -> Callable[[np.ndarray], tuple[list[float], str]]:
    """The accumulator of Zephon's ``pack_sequences``, over one lane."""

    def side(costs: np.ndarray) -> tuple[list[float], str]:
        from zephon import SampleMeta, SampleRecord
        from zephon._internal.ops.pack_sequences import PackSequences

        op = PackSequences(BUDGET, num_bins=BINS, length_fn=lambda record: record.payload["n"], algorithm=algorithm)
        accumulator = op.accumulator(deterministic=True, ctx={})
        records = [
            SampleRecord(SampleMeta(sample_id=i, lane_id=0, chunk_id=0, chunk_offset=i), {"n": n})
            for i, n in enumerate(costs.tolist())
        ]
        begun = time.process_time()
        ready = [each for at in range(0, len(records), 256) for each in accumulator.push_many(records[at : at + 256])]
        ready += accumulator.flush()
        spent = time.process_time() - begun
        bins = [bin for bins, _ in ready for bin in bins if hasattr(bin.payload, "segments")]
        return [float(sum(each.length for each in bin.payload.segments)) for bin in bins], f"{spent:.2f} s"

    return side


def lance(costs: np.ndarray) -> Iterator[str]:
    """LanceDB's ``StreamingDataset``, which joins and cuts: it gives one row of text."""
    import lancedb
    import pyarrow as pa
    from lancedb.streaming import StreamingDataset

    some = costs[:MOST_LANCE]
    with tempfile.TemporaryDirectory() as folder:
        values = pa.array(np.repeat(np.arange(len(some), dtype=np.int32) + 2, some))
        ends = pa.array(np.concatenate([[0], np.cumsum(some)]).astype(np.int32))
        table = pa.table({"tokens": pa.ListArray.from_arrays(ends, values)})
        made = lancedb.connect(folder).create_table("packs", table)
        options = {"pack_sequences": BUDGET, "eos_id": 1, "pad_id": 0, "num_splits": 8, "shuffle_seed": 0}
        begun = time.process_time()
        blocks = list(StreamingDataset(made, columns=["tokens"], blocks_per_epoch="auto", **options))
        spent = time.process_time() - begun
    parts = [np.unique(block["input_ids"].numpy(), return_counts=True) for block in blocks]
    seen: dict[int, list[int]] = {}
    for numbers, lengths in parts:
        for number, length in zip(numbers.tolist(), lengths.tolist(), strict=True):
            if number > 1:
                seen.setdefault(number - 2, []).append(length)
    cut = sum(len(pieces) > 1 or sum(pieces) < some[number] for number, pieces in seen.items())
    real = sum(length for numbers, lengths in parts for n, length in zip(numbers, lengths, strict=True) if n > 1)
    yield (
        f"{'LanceDB ' + lancedb.__version__ + ' (joins and cuts)':44} {len(blocks):8,} packs  fill "
        f"{real / len(blocks) / BUDGET:7.2%}  of {len(some):,} samples {cut:,} cut in two or more, "
        f"{len(some) - len(seen):,} never given; {spent:.2f} s with reading"
    )


def told(name: str, packs: list[float], spent: str) -> str:
    """A row."""
    real = np.array(packs)
    assert real.max() <= BUDGET
    found = {ranks: _uneven(real, ranks) for ranks in RANKS}
    worst = ", ".join(f"{found[ranks].max():.4f}" for ranks in RANKS)
    return (
        f"{name:44} {len(real):8,} packs  fill {real.sum() / len(real) / BUDGET:7.2%}  max/mean of a step's ranks "
        f"{found[8].mean():.4f} on average of 8, at most {worst} on {', '.join(map(str, RANKS))}; {spent}"
    )


def _uneven(packs: np.ndarray, ranks: int) -> np.ndarray:
    """The dearest pack of each step over the mean one."""
    steps = packs[: len(packs) // ranks * ranks].reshape(-1, ranks)
    return np.asarray(steps.max(1) / steps.mean(1))


def scale() -> None:
    """Planning 10^9 samples in 10^5 shards, from the matrix on."""
    costs = realistic(1_000_000)
    own, tops = classes_of(costs, shards=100_000)
    counts = np.bincount(own) * 1000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.process_time()
    packs = Packs(tops.tolist(), counts.tolist(), BUDGET)
    decided = time.process_time() - begun
    order = PackOrder(packs, 0)
    laid = time.process_time() - begun - decided
    order.at(packs.number // 2)
    found = time.process_time() - begun - decided - laid
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    fill = 1000 * costs.sum() / packs.number / BUDGET
    print(
        f"{int(counts.sum()):,} samples, {len(tops)} classes, {packs.number:,} packs: {decided:.2f} s to decide, "
        f"{laid:.2f} s to lay out an epoch, {found:.2f} s to a pack in its middle, {grown:.0f} MB; "
        f"the matrix of 100,000 shards has {4 * len(tops) * 100_000 >> 20} MB; fill {fill:.2%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--scale", action="store_true")
    given = parser.parse_args()
    if given.scale:
        scale()
        return
    costs = realistic(given.samples)
    print(f"{len(costs):,} samples, {costs.sum():,} tokens, budget {BUDGET:,}")
    sides = {
        "ours, planned": planned,
        "ours, as samples come, window 256": windows(256),
        "ours, as samples come, window 1024": windows(1024),
        "next fit (a loop in a trainer)": next_fit,
        f"Zephon, first_fit, {BINS} bins": zephon("first_fit"),
        f"Zephon, best_fit, {BINS} bins": zephon("best_fit"),
    }
    for name, side in sides.items():
        try:
            print(told(name, *side(costs)), flush=True)
        except ImportError as error:
            print(f"{name:44} left out: {error}")
    try:
        print(*lance(costs), sep="\n")
    except ImportError as error:
        print(f"LanceDB left out: {error}")


if __name__ == "__main__":
    main()
