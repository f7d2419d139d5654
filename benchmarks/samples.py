"""CPU time a sample of what is not decoded, beside webdataset, LitData and MosaicML, in one run: bytes, and latents.

    python benchmarks/samples.py [--kilobytes 4 40 400] [--rounds 5] [--only bytes|latents]

Local shards, page cache warm. The contenders take turns, each in this process; what is counted is the processor time of
the whole process, so a machine that others use tells the same ratios. Peers that are not installed are left out; they
read their own formats, written from the same samples. Prints medians in microseconds a sample.
"""

from __future__ import annotations

import argparse
import io
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
import webdataset as wds

import streampipe as sp

sys.path.insert(0, str(Path(__file__).parent))
from data import indexed, samples_of, shards

BATCH = 32


def latents_of(number: int):
    """A latent of 32 kB and a text embedding of 315 kB, as npy."""
    rng = np.random.default_rng(0)
    for i in range(number):
        arrays = {"latent.npy": (16, 32, 32), "text.npy": (77, 2048)}
        yield {"__key__": f"{i:06d}"} | {
            name: _npy(rng.standard_normal(shape).astype(np.float16)) for name, shape in arrays.items()
        }


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def mosaic(folder: Path, name: str, samples) -> str | None:
    """The samples in MosaicML's format; None where it is not installed."""
    try:
        from streaming import MDSWriter
    except ImportError:
        return None
    place = folder / f"{name}-mds"
    if not (place / "index.json").exists():
        shutil.rmtree(place, ignore_errors=True)
        first = next(samples)
        columns = {key: "str" if key == "__key__" else "bytes" for key in first}
        with MDSWriter(out=str(place), columns=columns) as writer:
            writer.write(first)
            for sample in samples:
                writer.write(sample)
    return str(place)


def mosaic_samples(place: str, by_number: bool = False):
    from streaming import StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    clean_stale_shared_memory()
    data = StreamingDataset(local=place, batch_size=1, shuffle=False)
    return (data[i] for i in range(len(data))) if by_number else iter(data)


def litdata(folder: Path, name: str, samples, tensors: bool = False) -> str | None:
    """The samples in LitData's format, as tensors or as they are; None where it is not installed."""
    try:
        from litdata.streaming.writer import BinaryWriter
    except ImportError:
        return None
    place = folder / f"{name}-lit"
    if not (place / "index.json").exists():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        writer = BinaryWriter(str(place), chunk_bytes="64MB")
        for i, sample in enumerate(samples):
            if tensors:
                sample = {k: v if k[0] == "_" else torch.from_numpy(np.load(io.BytesIO(v))) for k, v in sample.items()}
            writer[i] = sample
        writer.done()
        writer.merge()
    return str(place)


def litdata_samples(place: str):
    from litdata import StreamingDataset

    return iter(StreamingDataset(place))


@sp.stage(rows="each", state="nothing", views=True, bytes_out=True)
def views(samples):
    """Fields as views of what was read, for a consumer that takes any buffer."""
    yield from samples


def each(items) -> int:
    return sum(1 for _ in items)


def rows(batches) -> int:
    return sum(len(batch["__key__"]) for batch in batches)


def compare(title: str, contenders: dict, rounds: int) -> None:
    """Run all in turns; print each one's median CPU time a sample, and how many times the first one's that is."""
    costs: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, (make, count) in contenders.items():
            start = time.process_time()
            counted = count(make())
            if number:
                costs[name].append((time.process_time() - start) / counted * 1e6)
    first = statistics.median(next(iter(costs.values())))
    print(f"\n{title}")
    for name, found in costs.items():
        middle = statistics.median(found)
        print(f"  {name:<46} {middle:>8.1f} us ({min(found):.1f} to {max(found):.1f}) {first / middle:>6.1f} times")
    sys.stdout.flush()


def bytes_only(folder: Path, kilobytes: int, rounds: int) -> None:
    number = max(600, min(10_000, 120_000 // kilobytes))
    name = f"bytes-{kilobytes}-{number}"
    urls = shards(folder, name, samples_of(kilobytes, number))
    index = indexed(folder, urls)
    contenders = {
        "webdataset": (lambda: wds.WebDataset(urls, shardshuffle=False, empty_check=False), each),
        "streampipe, checksums, batches of views": (
            lambda: sp.stream(urls, index=index).apply(views()).batch(BATCH),
            rows,
        ),
        "streampipe, checksums, batches": (lambda: sp.stream(urls, index=index).batch(BATCH), rows),
        "streampipe, checksums, one by one": (lambda: sp.stream(urls, index=index), each),
        "streampipe, scanned, batches": (lambda: sp.stream(urls).batch(BATCH), rows),
        "streampipe, scanned, one by one": (lambda: sp.stream(urls), each),
        "streampipe, scanned, select and rename": (lambda: sp.stream(urls).select("jpg").rename(image="jpg"), each),
        "streampipe, sequential": (lambda: sp.stream(urls, tier="sequential"), each),
    }
    if place := mosaic(folder, name, samples_of(kilobytes, number)):
        contenders["MosaicML, iterated"] = (lambda: mosaic_samples(place), each)
        contenders["MosaicML, by number"] = (lambda: mosaic_samples(place, True), each)
    if other := litdata(folder, name, samples_of(kilobytes, number)):
        contenders["LitData"] = (lambda: litdata_samples(other), each)
    compare(f"{kilobytes} kB, txt and json, bytes only", contenders, rounds)


def latents(folder: Path, rounds: int) -> None:
    number = 600
    urls = shards(folder, f"latents-{number}", latents_of(number))
    index = indexed(folder, urls)
    contenders = {
        "webdataset": (lambda: (dict(zip(("__key__",), (b[0],), strict=True)) for b in _tuples(urls)), rows),
        "streampipe, checksums": (lambda: sp.stream(urls, index=index).decode().batch(BATCH), rows),
        "streampipe, scanned": (lambda: sp.stream(urls).decode().batch(BATCH), rows),
        "streampipe, sequential": (lambda: sp.stream(urls, tier="sequential").decode().batch(BATCH), rows),
    }
    if other := litdata(folder, f"latents-{number}", latents_of(number), tensors=True):
        contenders["LitData, tensors, its loader"] = (lambda: _litdata_batches(other), rows)
    compare("latents: npy of 32 and 315 kB, decoded, batches of 32", contenders, rounds)


def _tuples(urls):
    data = wds.WebDataset(urls, shardshuffle=False, empty_check=False).decode()
    return data.to_tuple("__key__", "latent.npy", "text.npy").batched(BATCH)


def _litdata_batches(place: str):
    from litdata import StreamingDataLoader, StreamingDataset

    return StreamingDataLoader(StreamingDataset(place), batch_size=BATCH)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "streampipe-benchmarks")
    parser.add_argument("--kilobytes", type=int, nargs="+", default=[4, 40, 400])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=("bytes", "latents"))
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.only in (None, "bytes"):
        for kilobytes in given.kilobytes:
            bytes_only(given.folder, kilobytes, given.rounds)
    if given.only in (None, "latents"):
        latents(given.folder, given.rounds)


if __name__ == "__main__":
    main()
