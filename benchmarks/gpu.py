"""Feeding one GPU: images on it per second, decoded by worker processes or by the GPU itself; and the copy alone.

    python benchmarks/gpu.py --images FOLDER_OF_PHOTOS [--workers 4 8 16] [--count 4000]

The contenders take turns; medians are printed. The consumer only waits for each batch to be there, so a rate is what
the GPU could be fed with. Needs a GPU, and ``pip install 'streampipe[gpu]'`` for the rows that decode on it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

import streampipe as sp
from streampipe.decoding import DeferredBatch, EncodedImage
from streampipe.device.images import ImageMaker

sys.path.insert(0, str(Path(__file__).parent))
from data import photos

SIZE, BATCH = 512, 64


def pipeline(folder: str, device: str | None) -> sp.Pipeline:
    return (
        sp.stream(folder, shuffle=True, epochs=None).decode(SIZE, crop="random", flip=0.5, device=device).batch(BATCH)
    )


def fed(folder: str, workers: int, device: str | None, naive: bool, count: int) -> float:
    """Images a second that are on the GPU, once the workers run."""
    loader = pipeline(folder, device).loader(num_workers=workers, steps_per_epoch=count // BATCH)
    batches = iter(loader) if naive else iter(sp.to_device(loader, "cuda"))
    next(batches)
    start, seen = time.perf_counter(), 0
    for batch in batches:
        pixels = batch["jpg"].to("cuda") if naive else batch["jpg"]
        seen += len(pixels)
    torch.cuda.synchronize()
    return seen / (time.perf_counter() - start)


def decoded(batch: DeferredBatch, maker: ImageMaker, rounds: int) -> float:
    """Images a second of the GPU's codec and resize alone, on bytes that are in memory."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        maker.finish(maker.open(batch, stream))
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(rounds):
            maker.finish(maker.open(batch, stream))
        torch.cuda.synchronize()
    return rounds * len(batch) / (time.perf_counter() - start)


def copied(pinned: bool, rounds: int) -> float:
    """GB/s of a batch's memory to the GPU."""
    from streampipe.device.transfer import Transfer

    batch = {"image": torch.zeros(BATCH, 3, SIZE, SIZE, dtype=torch.uint8)}
    stream, transfer = torch.cuda.Stream(), Transfer(torch.device("cuda", 0), 3)
    with torch.cuda.stream(stream):
        for turn in range(rounds + 3):
            if turn == 3:
                torch.cuda.synchronize()
                start = time.perf_counter()
            transfer(batch, stream) if pinned else batch["image"].to("cuda")
        torch.cuda.synchronize()
    return rounds * batch["image"].nbytes / (time.perf_counter() - start) / 1e9


def close(batch: DeferredBatch, maker: ImageMaker) -> tuple[float, float]:
    """PSNR of the GPU's pixels to the CPU's, in dB: of the worst image and of the median one."""
    made, _ = maker.finish(maker.open(batch, torch.cuda.default_stream()))
    ratios = []
    for image, pixels in zip(batch, made.cpu().float(), strict=True):
        reference = EncodedImage(image.data).decode(image.cut, interpolation=image.interpolation)[0].float()
        ratios.append(float(10 * torch.log10(255**2 / (pixels - reference).square().mean().clamp(min=1e-9))))
    return min(ratios), statistics.median(ratios)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", required=True)
    options.add_argument("--workers", type=int, nargs="+", default=[4, 8, 16])
    options.add_argument("--count", type=int, default=4000)
    options.add_argument("--repeat", type=int, default=3)
    given = options.parse_args()
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    with tempfile.TemporaryDirectory() as folder:
        photos(Path(folder), Path(given.images), each=given.count // 8)
        first = next(iter(pipeline(folder, "cuda").loader(num_workers=1)))["jpg"]
        maker = ImageMaker(torch.device("cuda", 0))
        print("PSNR to the CPU's pixels, dB: worst {:.1f}, median {:.1f}".format(*close(first, maker)))
        print(f"GPU codec and then resize, alone: {decoded(first, maker, 20):,.0f} img/s")
        print(f"copy of batches: pinned {copied(True, 50):.1f} GB/s, plain {copied(False, 50):.1f} GB/s")
        rows = [
            (workers, name, device, naive)
            for workers in given.workers
            for name, device, naive in (
                ("decoded by workers, .to('cuda')", None, True),
                ("decoded by workers, to_device", None, False),
                ("decoded by the GPU, to_device", "cuda", False),
            )
        ]
        rates: dict[tuple[int, str], list[float]] = {}
        for _ in range(given.repeat):
            for workers, name, device, naive in rows:
                rates.setdefault((workers, name), []).append(fed(folder, workers, device, naive, given.count))
        for (workers, name), found in rates.items():
            print(f"{workers:3} workers, {name:32} {statistics.median(found):10,.0f} img/s")


if __name__ == "__main__":
    main()
