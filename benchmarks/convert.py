"""A folder of images to shards: ``sp.pack`` beside tar, webdataset's ShardWriter, LitData's optimize and MosaicML's
MDSWriter on the same folder, and ``pipe.write`` beside ShardWriter. In one run; prints CPU time, and its ratio to tar.

    python benchmarks/convert.py [--images FOLDER] [--samples 4000] [--repeat 3] [--workers 2] [--only tar pack ...]
        [--before FOLDER]

``--before``: a checkout of an earlier version, whose ``pack``, ``plain`` and ``write`` take part in the same turns.

Each contender is a process of its own and takes its own CPU time, that of its children included, without imports; the
contenders take turns. LitData and MosaicML's streaming take part where they are installed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def make_folder(folder: Path, samples: int) -> Path:
    """JPEGs of about 95 kB, with captions, a thousand to a folder."""
    import io

    import numpy as np
    from PIL import Image

    rng, few = np.random.default_rng(0), []
    for _ in range(20):
        image = Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).resize(
            (640, 512), Image.Resampling.BICUBIC
        )
        file = io.BytesIO()
        image.save(file, "JPEG", quality=90)
        few.append(file.getvalue())
    for i in range(samples):
        place = folder / f"{i // 1000:03d}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i:07d}.jpg").write_bytes(few[i % 20] + i.to_bytes(4, "big"))
        (place / f"{i:07d}.txt").write_text(f"caption {i}")
    return folder


def pairs(folder: str):
    """Images and their captions, sorted."""
    for path in sorted(Path(folder).rglob("*.jpg")):
        text = path.with_suffix(".txt")
        yield path, text.read_bytes() if text.exists() else b""


def tar(folder, out, workers):
    """``tar cf``, and ``cat`` of what it wrote."""
    os.makedirs(out)
    subprocess.run(["tar", "cf", f"{out}/0.tar", "-C", folder, "."], check=True)
    with open(os.devnull, "wb") as nowhere:
        subprocess.run(["cat", f"{out}/0.tar"], check=True, stdout=nowhere)


def pack(folder, out, workers):
    """``sp.pack``: with indexes, checksums of samples, images and shards, a manifest, a journal."""
    import streampipe as sp

    yield sp.pack  # which imports it
    sp.pack(folder, out, progress=False, num_workers=workers, max_samples=1000)


def plain(folder, out, workers):
    """``sp.pack`` without sha256: each sample has its crc32, as ever."""
    import streampipe as sp

    yield sp.pack
    sp.pack(folder, out, progress=False, num_workers=workers, max_samples=1000, sha256=False)


def write(folder, out, workers):
    """``pipe.write`` of the same samples, from an iterable."""
    import streampipe as sp

    yield sp.from_iterable
    os.makedirs(out)
    samples = [{"__key__": path.stem, "path": path, "txt": text} for path, text in pairs(folder)]
    pipe = sp.from_iterable(samples).map(lambda path: path.read_bytes(), "path").rename(jpg="path")
    pipe.write(f"{out}/{{:05d}}.tar", progress=False, max_samples=1000)


def shardwriter(folder, out, workers):
    """webdataset's ShardWriter."""
    import webdataset as wds

    yield
    os.makedirs(out)
    with wds.ShardWriter(f"{out}/%05d.tar", maxcount=1000, maxsize=1e12, verbose=0) as sink:
        for path, text in pairs(folder):
            sink.write({"__key__": path.stem, "jpg": path.read_bytes(), "txt": text})


def mdswriter(folder, out, workers):
    """MosaicML's MDSWriter."""
    from streaming import MDSWriter

    yield
    with MDSWriter(out=out, columns={"jpg": "bytes", "txt": "str"}, size_limit=100 << 20) as sink:
        for path, text in pairs(folder):
            sink.write({"jpg": path.read_bytes(), "txt": text.decode()})


def _litdata(path):
    return {"jpg": Path(path).read_bytes(), "txt": Path(path).with_suffix(".txt").read_text()}


def optimize(folder, out, workers):
    """LitData's optimize."""
    import litdata

    yield
    inputs = [str(path) for path, _ in pairs(folder)]
    litdata.optimize(_litdata, inputs, out, chunk_bytes="100MB", num_workers=max(1, workers), mode="overwrite")


_BEFORE = ", "
CONTENDERS = {each.__name__: each for each in (tar, pack, plain, write, shardwriter, mdswriter, optimize)}


def run_one(name: str, folder: str, out: str, workers: int) -> None:
    """In a process of its own: prints CPU and wall seconds."""
    work = CONTENDERS[name](folder, out, workers)
    if work is not None:
        next(work)  # what it imports is not counted
    before, start = os.times(), time.perf_counter()
    if work is None:
        pass
    else:
        list(work)
    after = os.times()
    print(json.dumps([sum(after[:4]) - sum(before[:4]), time.perf_counter() - start]))


def measure(name: str, folder: Path, workers: int, before: Path | None) -> tuple[float, float] | None:
    """CPU and wall seconds; None if it cannot run here."""
    name, _, earlier = name.partition(_BEFORE)
    out = folder.parent / "out"
    shutil.rmtree(out, ignore_errors=True)
    if name == "tar":
        before, start = os.times(), time.perf_counter()
        tar(str(folder), str(out), 0)
        after = os.times()
        return sum(after[:4]) - sum(before[:4]), time.perf_counter() - start
    command = [sys.executable, __file__, "--one", name, "--folder", str(folder), "--workers", str(workers)]
    tree = before if earlier and before is not None else Path(__file__).resolve().parent.parent
    env = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        print(f"{name}: not run ({done.stderr.strip().splitlines()[-1]})", file=sys.stderr)
        return None
    cpu, wall = json.loads(done.stdout.strip().splitlines()[-1])
    return cpu, wall


def main() -> None:
    """Run all in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="a folder of JPEGs with captions (made if not given)")
    parser.add_argument("--samples", type=int, default=4000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), metavar="NAME")
    parser.add_argument("--before", type=Path, help="a checkout of an earlier version")
    parser.add_argument("--temp", help="where shards go (a disk in memory measures no disk)")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        run_one(given.one, given.folder, given.out, given.workers)
        return
    with tempfile.TemporaryDirectory(dir=given.temp) as temp:
        folder = given.images or make_folder(Path(temp) / "in", given.samples)
        files = [path for path in folder.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        names = ["tar", *(name for name in given.only if name != "tar")]  # which ratios are to
        if given.before is not None:
            names += [f"{name}{_BEFORE}before" for name in ("pack", "plain", "write") if name in names]
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
        if given.images:
            (Path(temp) / "in").symlink_to(given.images.resolve())
            folder = Path(temp) / "in"
        missing = set()
        for _ in range(given.repeat):
            for name in [each for each in names if each not in missing]:
                taken = measure(name, folder, given.workers, given.before)
                if taken is None:
                    missing.add(name)
                else:
                    found[name].append(taken)
    print(
        f"{len(files)} files, {size / 1e6:.0f} MB; CPU seconds (median of {given.repeat}), ratios of turns to tar + cat"
    )
    for name, runs in found.items():
        if runs:
            cpu, wall = (statistics.median(each[i] for each in runs) for i in (0, 1))
            ratio = statistics.median(mine[0] / tars[0] for mine, tars in zip(runs, found["tar"], strict=False))
            rates = f"{len(files) / cpu:8.0f} files/s  {size / 1e6 / cpu:6.0f} MB/s"
            print(f"{name:14} {cpu:6.2f} s CPU  {wall:6.2f} s wall  {ratio:5.2f} x tar  {rates}")


if __name__ == "__main__":
    main()
