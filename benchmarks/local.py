"""Local shards, page cache warm: streampipe beside webdataset and a bare loop, in one run. Prints rates and ratios.

    python benchmarks/local.py --images FOLDER_OF_PHOTOS [--repeat 5]

The contenders take turns, so a slow moment of the machine hits all of them; the medians are printed, and each ratio is
the median of the ratios of neighbouring runs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
import webdataset as wds

import streampipe as sp

sys.path.insert(0, str(Path(__file__).parent))
from data import laion_like, photos
from decoders import SIZE, our_decode, pillow_fit

BATCH = 16


def wds_samples(urls: list[str]) -> wds.WebDataset:
    return wds.WebDataset(urls, shardshuffle=False, empty_check=False)


def rate(make, length=lambda item: 1) -> float:
    start = time.perf_counter()
    count = sum(length(item) for item in make())
    return count / (time.perf_counter() - start)


def compare(title: str, contenders: dict, pairs: list, repeat: int) -> None:
    """Run all in turns; print each one's median rate and the median of each pair's ratios."""
    rates = {name: [] for name in contenders}
    for round_ in range(repeat + 1):
        for name, (make, length) in contenders.items():
            found = rate(make, length)
            if round_:
                rates[name].append(found)
    print(f"\n{title}")
    for name, found in rates.items():
        print(f"  {name:<52} {statistics.median(found):>9.0f} samples/s   ({min(found):.0f} to {max(found):.0f})")
    for one, other in pairs:
        ratios = [a / b for a, b in zip(rates[one], rates[other], strict=True)]
        print(f"  {one} / {other}: {statistics.median(ratios):.2f}")


def rows(batch: dict) -> int:
    return len(batch["__key__"])


def bytes_only(folder: Path, repeat: int) -> None:
    urls = laion_like(folder)
    one = lambda sample: 1  # noqa: E731
    contenders = {
        "webdataset": (lambda: wds_samples(urls), one),
        "streampipe, planned": (lambda: sp.stream(urls), one),
        "streampipe, sequential": (lambda: sp.stream(urls, tier="sequential"), one),
        "read() alone": (lambda: _read(urls), lambda n: n),
    }
    pairs = [("streampipe, planned", "webdataset"), ("streampipe, sequential", "webdataset")]
    compare("bytes only, LAION-like samples", contenders, pairs, repeat)


def _read(urls):
    for url in urls:
        with open(url, "rb") as file:
            while file.read(8 << 20):
                pass
    yield 10_000


def decoded(urls: list[str], repeat: int) -> None:
    one = lambda sample: 1  # noqa: E731
    pipe = sp.stream(urls).decode(size=SIZE)
    contenders = {
        "webdataset, Pillow": (lambda: wds_samples(urls).map_dict(jpg=pillow_fit), one),
        "webdataset, our decode function": (lambda: wds_samples(urls).map_dict(jpg=our_decode), one),
        "bare loop, our decode function": (lambda: map(our_decode, [s["jpg"] for s in sp.stream(urls)]), one),
        "streampipe": (lambda: pipe, one),
        "streampipe, batched": (lambda: pipe.batch(BATCH), rows),
    }
    pairs = [("streampipe", "webdataset, Pillow"), ("streampipe", "bare loop, our decode function")]
    pairs += [("streampipe, batched", "bare loop, our decode function")]
    compare(f"photos decoded to {SIZE}, one process, one thread", contenders, pairs, repeat)


def parallel(urls: list[str], repeat: int) -> None:
    pipe = sp.stream(urls).decode(size=SIZE).batch(BATCH)
    theirs = wds_samples(urls).map_dict(jpg=our_decode).batched(BATCH)
    contenders = {
        "webdataset, our decode function, 2 workers": (
            lambda: wds.WebLoader(theirs, batch_size=None, num_workers=2),
            rows,
        ),
        "streampipe, 2 workers": (lambda: pipe.loader(num_workers=2), rows),
        "streampipe, 1 thread": (lambda: sp.stream(urls).decode(size=SIZE, threads=1).batch(BATCH), rows),
        "streampipe, 2 threads": (lambda: pipe.loader(threads=2), rows),
    }
    pairs = [("streampipe, 2 threads", "streampipe, 1 thread")]
    pairs += [("streampipe, 2 threads", "webdataset, our decode function, 2 workers")]
    compare(f"photos decoded to {SIZE}, two cores", contenders, pairs, repeat)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="a folder of JPEG photos")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "streampipe-benchmarks")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--only", choices=("bytes", "decoded", "parallel"))
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    given.folder.mkdir(parents=True, exist_ok=True)
    urls = photos(given.folder, given.images)
    if given.only in (None, "bytes"):
        bytes_only(given.folder, given.repeat)
    if given.only in (None, "decoded"):
        decoded(urls, given.repeat)
    if given.only in (None, "parallel"):
        parallel(urls, given.repeat)


if __name__ == "__main__":
    main()
