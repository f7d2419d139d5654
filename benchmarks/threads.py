"""Threads, workers and functions in ``map``: CPU time and wall time a photo, all contenders in turns in one run.

    python benchmarks/threads.py --images FOLDER_OF_PHOTOS [--only threads|map] [--repeat 5]

CPU time is that of this process and its workers; on a machine that others use, trust it and its ratios. Photos are
brought to 768 pixels at most first, and then decoded to 512 x 512 in batches of 32.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import webdataset as wds

import streampipe as sp
from streampipe.decoding import decode_image

sys.path.insert(0, str(Path(__file__).parent))
from data import photos, smaller
from decoders import SIZE, our_decode

BATCH = 32


def cpu_seconds() -> float:
    """CPU time of this process and of the workers that it has now."""
    total = time.process_time()
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def compare(contenders: dict[str, Callable[[], Iterator]], first: str, repeat: int, number: int) -> None:
    """All in turns, ``number`` photos each after a warm-up; medians, and ratios to the first one of the same round."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for _ in range(repeat):
        for name, make in contenders.items():
            batches = make()
            for _ in range(4):
                next(batches)
            cpu, wall, seen = cpu_seconds(), time.perf_counter(), 0
            while seen < number:
                seen += len(next(batches))
            found[name].append(((cpu_seconds() - cpu) / seen, (time.perf_counter() - wall) / seen))
            del batches
            gc.collect()
    print(f"{'':<44}  CPU us  wall us  photos/s   CPU and wall of the first over it")
    for name, each in found.items():
        cpu, wall = (statistics.median(times) * 1e6 for times in zip(*each, strict=True))
        ratios = [statistics.median(a[i] / b[i] for a, b in zip(found[first], each, strict=True)) for i in range(2)]
        print(f"{name:<44} {cpu:>7.0f}  {wall:>7.0f}  {1e6 / wall:>8.0f}   {ratios[0]:.2f}  {ratios[1]:.2f}")


def compare_batches(contenders: dict[str, Callable[[], Iterator]], first: str, number: int) -> None:
    """All in turns, a batch each: for contenders that work only while they are asked. Medians of CPU time."""
    running = {name: make() for name, make in contenders.items()}
    found: dict[str, list[float]] = {name: [] for name in running}
    for turn in range(2 + number // BATCH):
        for name, batches in running.items():
            start = time.process_time()
            seen = len(next(batches))
            if turn > 1:
                found[name].append((time.process_time() - start) / seen)
    print(f"{'':<44}  CPU us  of the first over it")
    for name, each in found.items():
        ratio = statistics.median(a / b for a, b in zip(found[first], each, strict=True))
        print(f"{name:<44} {statistics.median(each) * 1e6:>7.0f}  {ratio:.2f}")


def images(loader) -> Iterator:
    return (batch["jpg"] for batch in loader)


def into_row(data: bytes, out: torch.Tensor | None = None) -> torch.Tensor:
    """streampipe's decoder as a function, into a row of a batch where it is given one."""
    return decode_image(data, size=(SIZE, SIZE), out=out)


def threads(urls: list[str], repeat: int, number: int) -> None:
    pipe = sp.stream(urls, shuffle=True, epochs=None).decode(SIZE).batch(BATCH)
    contenders = {
        "in the loop itself": lambda: images(pipe.loader()),
        "threads=1": lambda: images(pipe.loader(threads=1)),
        "threads=2": lambda: images(pipe.loader(threads=2)),
        "num_workers=2": lambda: images(pipe.loader(num_workers=2)),
    }
    compare(contenders, "threads=1", repeat, number)


def bare_loop(urls: list[str]) -> Iterator:
    """Decode, and nothing else; what is decoded is dropped."""
    data = [sample["jpg"] for sample in sp.stream(urls, shuffle=False)]
    while True:
        for start in range(0, len(data) - BATCH, BATCH):
            yield [our_decode(each) for each in data[start : start + BATCH]]


def functions(urls: list[str], repeat: int, number: int) -> None:
    torch.set_num_threads(1)  # else webdataset's batches are stacked by all cores at once, at twice the CPU time
    pipe = sp.stream(urls, shuffle=True, epochs=None)
    theirs = wds.WebDataset(urls, shardshuffle=False, empty_check=False).repeat().map_dict(jpg=our_decode)
    contenders = {
        "a bare loop over the function": lambda: bare_loop(urls),
        "map(function, 'jpg') with out=": lambda: images(pipe.map(into_row, "jpg").batch(BATCH)),
        "map(function, 'jpg')": lambda: images(pipe.map(our_decode, "jpg").batch(BATCH)),
        "decode(512)": lambda: images(pipe.decode(SIZE).batch(BATCH)),
        "webdataset, the same function": lambda: images(theirs.batched(BATCH)),
    }
    compare_batches(contenders, "a bare loop over the function", repeat * number)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="a folder of JPEG photos")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "streampipe-benchmarks")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--photos", type=int, default=640, help="of each contender in each round")
    parser.add_argument("--only", choices=("threads", "map"))
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    small = smaller(given.images, given.folder / "photos-768")
    urls = photos(given.folder, small, shards=16, each=128)
    if given.only != "map":
        threads(urls, given.repeat, given.photos)
    if given.only != "threads":
        functions(urls, given.repeat, given.photos)


if __name__ == "__main__":
    main()
